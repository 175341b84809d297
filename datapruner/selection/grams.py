"""Where runs of words were hashed; it is :mod:`datapruner.cleaning.grams` now."""

from datapruner.moved import moved

__getattr__ = moved(
    __name__,
    {
        "ngrams": "datapruner.cleaning.grams",
        "hashed_ngrams": "datapruner.cleaning.grams",
    },
)
