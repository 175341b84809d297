"""Datasets of tables that are in memory, with fingerprints that cost no copy of them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


AT_A_TIME = 1 << 16
"""Rows whose bytes are on their way to the hash."""


class _Hashing(io.RawIOBase):
    """Where Arrow writes what is hashed and kept nowhere."""

    def __init__(self) -> None:
        import xxhash

        self.hash = xxhash.xxh3_64()

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self.hash.update(part)
        return len(part)


def dataset_of(table: pa.Table, *, content: str | None = None, **more: Any) -> Dataset:
    """Make a dataset of a table that is in memory, or mapped, with a fingerprint of its own.

    `datasets` would pickle the whole table for that, which takes five times the memory of what it holds. What
    ``content`` says stands for the content, where to read all of it would take long.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    hashing = _Hashing()
    if content is None:
        with pa.ipc.new_stream(pa.PythonFile(hashing, "w"), table.schema) as writer:
            writer.write_table(table, max_chunksize=AT_A_TIME)
    else:
        hashing.write(content.encode())
    return Dataset(InMemoryTable(table), fingerprint=hashing.hash.hexdigest(), **more)
