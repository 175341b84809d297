"""Where a step's drops stood; they are :mod:`datapruner.cleaning.vetoes` now."""

from datapruner.moved import moved

__getattr__ = moved(
    __name__,
    {
        "Vetoes": "datapruner.cleaning.vetoes",
    },
)
