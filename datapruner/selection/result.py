"""Where scores and selections stood; they are :mod:`datapruner.scores` now."""

from datapruner.moved import moved

__getattr__ = moved(__name__, dict.fromkeys(("Scores", "Selection"), "datapruner.scores"))
