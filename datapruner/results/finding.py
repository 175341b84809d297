"""Find rows by what they say or by a column, or refuse a row that is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples


def checked_row(row: int, n: int) -> int:
    """Refuse a row that is not there."""
    if not 0 <= row < n:
        raise DataPrunerError(f"there is no row {row}; the dataset has {n} rows, counted from 0")
    return int(row)


def find_rows(
    samples: Samples, match: str | None, where: Mapping[str, Any] | None, *, case: bool = False
) -> Ints:
    """Find rows by text and columns; see :meth:`SelectionView.find`."""
    if match is None and not where:
        raise DataPrunerError("say what to look for: a text that rows hold, or a column and its value")
    rows = np.arange(len(samples), dtype=np.int64)
    for column, value in (where or {}).items():
        wanted = {str(value)}
        held = samples.column(column)
        names = getattr(samples.dataset.features[column], "names", None) or []
        if str(value) in names:  # a class label by its name
            wanted.add(str(names.index(str(value))))
        rows = rows[[str(held[row]) in wanted for row in rows.tolist()]]
    if match is None or not rows.size:
        return rows
    if not samples.layout.has_text:
        raise DataPrunerError(
            f"the rows of {safe_text(samples.source, 200)} have no text to look in; find them by a column, "
            "--where=COLUMN=VALUE"
        )
    sought = match if case else match.casefold()
    found = [
        row
        for row, sample in zip(rows.tolist(), samples.iter_samples(rows), strict=True)
        if any(sought in (turn.text if case else turn.text.casefold()) for turn in sample.messages)
    ]
    return np.array(found, dtype=np.int64)
