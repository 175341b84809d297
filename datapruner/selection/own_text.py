"""Where a row's own text stood; it is :mod:`datapruner.cleaning.own_text` now."""

from datapruner.moved import moved

__getattr__ = moved(
    __name__,
    {
        "OwnText": "datapruner.cleaning.own_text",
        "Shared": "datapruner.cleaning.own_text",
        "find_shared": "datapruner.cleaning.own_text",
    },
)
