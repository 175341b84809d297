"""Where rows of different lengths stood; they are :mod:`datapruner.ragged` now."""

from datapruner.moved import moved

__getattr__ = moved(__name__, dict.fromkeys(("Ragged", "offsets_of"), "datapruner.ragged"))
