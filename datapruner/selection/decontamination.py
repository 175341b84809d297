"""Where leaks were looked for; it is :mod:`datapruner.cleaning.decontamination` now."""

from datapruner.moved import moved

__getattr__ = moved(
    __name__,
    {
        "contaminated": "datapruner.cleaning.decontamination",
    },
)
