"""Where results were read back; that is done by :mod:`datapruner.saved` now."""

from datapruner.moved import moved

__getattr__ = moved(
    __name__, dict.fromkeys(("SavedSelection", "explain", "load", "load_selection"), "datapruner.saved")
)
