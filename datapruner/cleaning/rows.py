"""The rows that a cleaning step is given: checked, read in blocks, and what is left of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.arrays import Ints
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError

BLOCK_ROWS = 4096


def without(rows: Ints, vetoes: Vetoes) -> Ints:
    """Give the rows that a step left."""
    return rows[~np.isin(rows, vetoes.rows)]


def text_blocks(
    texts: Iterable[str], rows: NDArray[np.int64], size: int = BLOCK_ROWS
) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
    """Yield the texts in blocks with their source rows; refuse a missing, a spare or a non-text entry."""
    stream = iter(texts)
    for start in range(0, rows.size, size):
        block_rows = rows[start : start + size]
        block = list(islice(stream, block_rows.size))
        if len(block) < block_rows.size:
            raise DataPrunerError(
                f"There are {start + len(block)} texts for {rows.size} rows; give one each."
            )
        for text, row in zip(block, block_rows, strict=True):
            if not isinstance(text, str):
                raise DataPrunerError(f"Row {row} holds {type(text).__name__} where a text is needed.")
        yield block, block_rows
    if next(stream, None) is not None:
        raise DataPrunerError(f"There are more texts than the {rows.size} rows; give one a row.")


def checked_rows(rows: ArrayLike, protected: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Return the rows as int64, or say what is wrong with them."""
    array = np.asarray(rows, dtype=np.int64)
    if array.ndim != 1 or (array.size and (array[0] < 0 or np.any(np.diff(array) <= 0))):
        raise DataPrunerError("The rows to deduplicate must be unique source positions in ascending order.")
    if protected is not None and array.size and array[-1] >= len(protected):
        raise DataPrunerError(
            f"The mask of protected rows has {len(protected)} entries and none for row {array[-1]}."
        )
    return array
