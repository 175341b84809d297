"""Mapped files: their pages count as memory of the process until it lets go of them."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Ints

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

DONTNEED = 4
"""MADV_DONTNEED of Linux: pages that are only read come back from the file, or the system's cache of it."""
MAPS = Path("/proc/self/maps")
COLUMN_BLOCK = 100_000
"""Rows of a column that are looked at at a time."""
RELEASED, LITTLE = 64 << 20, 1 << 20
"""Bytes that are passed before pages leave the process's memory, and those that are not worth it at the end."""


def mapped_by(dataset: Dataset) -> list[str]:
    """Give the files that a dataset's rows are mapped from."""
    return [str(file["filename"]) for file in dataset.cache_files]


def let_go(files: Collection[str]) -> None:
    """Take the pages of mapped files out of this process's memory; who reads them again finds what was there.

    Only mappings of these very files that nobody here may write to are touched. Other systems than Linux do nothing.
    """
    if sys.platform != "linux" or not files:
        return
    wanted = {os.path.realpath(file) for file in files}
    library = ctypes.CDLL(None, use_errno=True)
    for line in MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and parts[5] in wanted and "w" not in parts[1]:
            start, stop = (int(bound, 16) for bound in parts[0].split("-"))
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), DONTNEED)


class Pages:
    """The pages that a dataset's rows are mapped from: they leave this process's memory as rows are passed.

    Parameters
    ----------
    dataset
        The rows.
    more
        Other files that are mapped.
    """

    def __init__(self, dataset: Dataset, more: Collection[str] = ()) -> None:
        self.files = [*mapped_by(dataset), *more]
        sizes = [Path(file).stat().st_size for file in self.files if Path(file).exists()]
        self._a_row = sum(sizes) / max(len(dataset.data), 1)
        self._passed = 0.0

    def cross(self, rows: int) -> None:
        """Let go of what was passed, once it is much, before so many rows are read; a row's neighbours come too."""
        if self._passed >= RELEASED:
            self.leave()
        self._passed += rows * self._a_row

    def leave(self) -> None:
        """Let go of what was passed."""
        if self._passed >= LITTLE:
            let_go(self.files)
            self._passed = 0.0


def blocks(dataset: Dataset, step: int, rows: range | Ints | None = None) -> Iterator[tuple[int, pa.Table]]:
    """Read rows a block at a time, as Arrow, and let go of their pages.

    Parameters
    ----------
    dataset
        The rows, with the columns that are read.
    step
        Rows of a block.
    rows
        The rows to read, in this order; all of them by default.

    Yields
    ------
    int, pyarrow.Table
        How many rows were read before, and a block.
    """
    source, pages = dataset.with_format("arrow"), Pages(dataset)
    rows = range(len(dataset)) if rows is None else rows
    try:
        for start in range(0, len(rows), step):
            numbers = rows[start : start + step]
            pages.cross(len(numbers) if isinstance(numbers, range) else int(np.ptp(numbers)) + 1)
            yield start, source[numbers]
    finally:
        pages.leave()
