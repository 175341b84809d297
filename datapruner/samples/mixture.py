"""Rows of several layouts where nothing says how each is read, such as a mix that was loaded without its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Flags
from datapruner.errors import DataPrunerError
from datapruner.files.mapped import COLUMN_BLOCK, blocks
from datapruner.samples.detecting import other_layouts
from datapruner.samples.layouts import LAYOUTS, OPTIONAL
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datasets import Dataset

    from datapruner.samples.sample import Layout


def refuse_mixture(dataset: Dataset, layout: Layout, label: str) -> None:
    """Refuse rows of which some lack what they are read by and are of another layout by their other columns.

    They would be an error each, or rows without an answer. Where only an answer is missing, another layout counts
    that no row has beside it: a rendered copy in a column ``text`` is no layout of its own.

    Parameters
    ----------
    dataset
        The rows.
    layout
        As it was found by names and types of columns.
    label
        What the rows are called in a sentence.
    """
    roles = LAYOUTS[layout.name]
    if not roles.text:
        return
    needed = [layout.columns[role] for role in roles.needs if role not in OPTIONAL]
    if not any(dataset.data.column(name).null_count for name in needed):
        return
    answer = layout.columns.get(roles.answers or "")
    asked = _whole(dataset, [name for name in needed if name != answer])
    read = asked & _whole(dataset, needed)
    for name, columns in other_layouts(dataset):
        own = [column for column in columns if column not in layout.columns.values()]
        if not own:
            continue
        whole = _whole(dataset, columns)
        others = whole & ~asked
        if not (read & _whole(dataset, own)).any():
            others |= whole & ~read
        if others.any():
            row = int(others.argmax())
            lost = next(column for column in needed if not _whole(dataset, [column], row)[0])
            raise DataPrunerError(
                f"the rows of {label} are of several layouts: they are read as '{layout.name}', and row {row} has no "
                f"'{safe_text(lost, 60)}' but is '{name}' by {' and '.join(repr(safe_text(one, 60)) for one in own)}. "
                "Give the folder that datapruner wrote, whose selection.parquet says how each row is read, or the rows "
                "of each layout as a source; --layout or --columns says how all of them are read"
            )


def _whole(dataset: Dataset, columns: list[str], row: int | None = None) -> Flags:
    """Tell the rows, or that of one row, that have a value in each column."""
    rows = range(len(dataset)) if row is None else range(row, row + 1)
    whole = np.ones(len(rows), dtype=np.bool_)
    for name in columns:
        for start, table in blocks(dataset.select_columns([name]), COLUMN_BLOCK, rows):
            whole[start : start + COLUMN_BLOCK] &= table.column(name).is_valid().to_numpy()
    return whole
