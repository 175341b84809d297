"""Arrays that grow block by block: in memory as long as they are small, in a temporary file beyond.

What lies in the file is read piece by piece and not mapped: pages of a mapped file count as memory of the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError

IN_MEMORY_BYTES = 128 << 20
"""An array that is larger goes to a file."""
BLOCK = 1 << 21
"""Items of a block, where all are read in turn."""


class Spill:
    """A flat array that is written once, from its beginning to its end, and then read.

    Parameters
    ----------
    dtype : dtype
    most : int, optional
        Bytes that are held; :data:`IN_MEMORY_BYTES` by default.
    """

    def __init__(self, dtype: Any, most: int | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.most = IN_MEMORY_BYTES if most is None else most
        self.size = 0
        self._held: list[NDArray[Any]] = []
        self._file: IO[bytes] | None = None

    def append(self, block: NDArray[Any]) -> None:
        """Take the next items.

        Raises
        ------
        DataPrunerError
            The temporary folder has no room.
        """
        self.size += block.size
        self._held.append(np.ascontiguousarray(block, self.dtype))
        if self._file is None and self.size * self.dtype.itemsize <= self.most:
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="datapruner-")  # noqa: SIM115 - goes with the array
            for held in self._held:
                self._file.write(held.tobytes())
        except OSError as error:
            raise DataPrunerError(
                f"the rows do not fit into memory, and the temporary folder {tempfile.gettempdir()} cannot be written "
                f"({error.strerror}); make room there, or name another folder with TMPDIR"
            ) from error
        self._held = []

    def __len__(self) -> int:
        """Count the items."""
        return self.size

    def __getitem__(self, part: slice) -> NDArray[Any]:
        """Give items that follow each other."""
        start, stop, _ = part.indices(self.size)
        if self._file is None:
            return self._whole()[start:stop]
        width = self.dtype.itemsize
        self._file.seek(start * width)
        return np.frombuffer(self._file.read(max(stop - start, 0) * width), self.dtype)

    def _whole(self) -> NDArray[Any]:
        if len(self._held) != 1:
            self._held = [np.concatenate([np.empty(0, self.dtype), *self._held])]
        return self._held[0]

    def take(self, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[Any]:
        """Give several runs of items, one after the other."""
        if self._file is None:
            ends = np.cumsum(sizes)
            total = int(ends[-1]) if ends.size else 0
            return self._whole()[np.arange(total) + np.repeat(starts - ends + sizes, sizes)]
        runs = zip(starts.tolist(), sizes.tolist(), strict=True)
        return np.concatenate(
            [np.empty(0, self.dtype), *(self[start : start + size] for start, size in runs)]
        )

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Give all items, block by block."""
        for start in range(0, self.size, BLOCK):
            yield self[start : start + BLOCK]
