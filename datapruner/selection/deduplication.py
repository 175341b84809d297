"""Where duplicates were looked for; it is :mod:`datapruner.cleaning` now."""

from datapruner.moved import moved

__getattr__ = moved(
    __name__,
    {
        "exact_duplicates": "datapruner.cleaning.exact",
        "near_duplicates": "datapruner.cleaning.near",
        "semantic_duplicates": "datapruner.cleaning.semantic",
        "text_blocks": "datapruner.cleaning.rows",
        "checked_rows": "datapruner.cleaning.rows",
    },
)
