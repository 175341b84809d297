"""Where a row's rank stood; it is :mod:`datapruner.results.standing` now."""

from datapruner.moved import moved

__getattr__ = moved(
    __name__,
    {
        "Standing": "datapruner.results.standing",
        "standing": "datapruner.results.standing",
    },
)
