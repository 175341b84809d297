"""Where explanations stood; they are :mod:`datapruner.results.explanation` now."""

from datapruner.moved import moved

__getattr__ = moved(__name__, dict.fromkeys(("Explanation", "Summary"), "datapruner.results.explanation"))
