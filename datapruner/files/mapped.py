"""Mapped files: their pages count as memory of the process until it lets go of them."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

DONTNEED = 4
"""MADV_DONTNEED of Linux: pages that are only read come back from the file, or the system's cache of it."""
MAPS = Path("/proc/self/maps")
LET_GO = 64
"""Blocks of rows that are read before their pages leave the process's memory."""


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
