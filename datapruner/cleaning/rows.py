"""The rows that a cleaning step is given: checked, read in blocks, listed, and what they are besides texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.arrays import Flags, Ints
from datapruner.choices import Match
from datapruner.errors import DataPrunerError, RowError
from datapruner.matching import match_form
from datapruner.samples.column_kinds import TEXT, kinds_of
from datapruner.samples.labels import encode_labels

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples

BLOCK_ROWS = 4096


def text_blocks(texts: Iterable[str], rows: Ints, size: int = BLOCK_ROWS) -> Iterator[tuple[list[str], Ints]]:
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


def checked_rows(rows: ArrayLike, protected: Flags | None) -> Ints:
    """Return the rows as int64, or say what is wrong with them."""
    array = np.asarray(rows, dtype=np.int64)
    if array.ndim != 1 or (array.size and (array[0] < 0 or np.any(np.diff(array) <= 0))):
        raise DataPrunerError("The rows to deduplicate must be unique source positions in ascending order.")
    if protected is not None and array.size and array[-1] >= len(protected):
        raise DataPrunerError(
            f"The mask of protected rows has {len(protected)} entries and none for row {array[-1]}."
        )
    return array


def asides(samples: Samples, rows: Ints, match: Match) -> Ints | None:
    """Give rows a number for what they are besides their texts: the rejected answer, the label, images, sounds.

    Near and semantic duplicates compare texts or vectors, which say nothing of these: rows that differ there are
    kept, however alike they read.

    Returns
    -------
    ndarray, int64, shape (len(rows),), or None
        None where a row is its text alone.
    """
    hashes = aside_hashes(samples, rows, match)
    return None if hashes is None else numbered(hashes)


def numbered(hashes: NDArray[np.uint64]) -> Ints | None:
    """Give equal hashes one number; None where all are equal."""
    numbers: Ints = np.unique(hashes, return_inverse=True)[1].astype(np.int64)
    return numbers if numbers.any() else None


def aside_hashes(samples: Samples, rows: Ints, match: Match) -> NDArray[np.uint64] | None:
    """Hash what rows are besides their texts, so that rows of two sets can be compared; None where that is nothing."""
    from xxhash import xxh3_64_intdigest

    layout = samples.layout
    # Messages may hold images themselves.
    kinds = kinds_of(samples.dataset)
    texts = all(kinds[column] == TEXT for column in layout.spoken) and layout.has_text
    if not layout.beside and (texts or not layout.has_text):
        return None
    if not layout.has_text:
        return encode_labels(samples.column(layout.columns["label"]))[1][rows].astype(np.uint64)
    beside = (
        match_form(sample.aside(), match).encode("utf-8", "surrogatepass")
        for sample in samples.iter_samples(rows)
    )
    return np.fromiter(map(xxh3_64_intdigest, beside), np.uint64, len(rows))


def row_mask(value: str | list[int] | None, samples: Samples, what: str) -> Flags:
    """Give a mask over the source rows from a column of booleans or from row numbers."""
    mask = np.zeros(len(samples), dtype=np.bool_)
    if value is None:
        return mask
    if isinstance(value, str):
        column = samples.column(value)
        for row, cell in enumerate(column):
            if cell is not None and not isinstance(cell, bool):
                raise RowError(f"{what}: column '{value}', row {row}, holds {cell!r}, not true or false", row)
        return np.array([bool(cell) for cell in column], dtype=np.bool_)
    for row in value:
        if not 0 <= row < len(mask):
            raise DataPrunerError(
                f"{what} names row {row}, but the dataset has {len(mask)} rows, counted from 0"
            )
    mask[value] = True
    return mask
