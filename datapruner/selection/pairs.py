"""Where pairs of rows stood; they are :mod:`datapruner.cleaning.pairs` now."""

from datapruner.moved import moved

__getattr__ = moved(
    __name__,
    {
        "Pair": "datapruner.cleaning.pairs",
        "pairs": "datapruner.cleaning.pairs",
    },
)
