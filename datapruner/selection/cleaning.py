"""Where the cleaning steps stood; they are :mod:`datapruner.cleaning` now."""

from datapruner.moved import moved

__getattr__ = moved(
    __name__,
    {
        "clean_texts": "datapruner.cleaning.stage",
        "clean_embeddings": "datapruner.cleaning.stage",
        "without": "datapruner.cleaning.rows",
        "unanswered": "datapruner.cleaning.stage",
        "apart": "datapruner.cleaning.stage",
    },
)
