"""The values of a column, numbered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datapruner.arrays import Ints

NONE = "(none)"
"""What stands for a value that is not there."""


def encode_labels(labels: Sequence[Any]) -> tuple[list[str], Ints]:
    """Give a column's values numbers in the order of their first rows; None is ``(none)``."""
    numbers: dict[str, int] = {}
    texts = (NONE if label is None else str(label) for label in labels)
    found = (numbers.setdefault(text, len(numbers)) for text in texts)
    codes = np.fromiter(found, np.int64, len(labels))
    return list(numbers), codes
