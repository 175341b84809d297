"""The files that a dataset's rows are written to: Parquet or JSON lines, a split each."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import xxhash

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.files.mapped import let_go, mapped_by
from datapruner.outputs.json_lines import write_json_lines

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

GROUP_ROWS, GROUP_BYTES = 200_000, 100_000_000
"""Of a group of a Parquet file, at most; the bytes are those that `datasets` aims for."""
RELEASED = 16 << 20
"""Bytes written after which the pages of the rows that were read leave the process's memory."""
MEDIA = 100
"""Rows of images or sound in memory at a time, and in a group of a parquet file."""


def write_split(
    dataset: Dataset,
    file: Path,
    format: str,
    given_nulls: Mapping[str, Ints] | None = None,
    rows: Ints | None = None,
) -> dict[str, Any]:
    """Write one split as parquet or as JSON lines, and return what the card is to say of it."""
    if format == "jsonl":
        return write_json_lines(dataset, file, given_nulls, rows)
    if format != "parquet":
        raise DataPrunerError(f"the data can be written as parquet, jsonl or arrow, not '{format}'")
    with file.open("wb") as handle:
        patient = _Patient(handle, mapped_by(dataset))
        if any(map(_is_media, dataset.features.values())):
            _write_media(dataset, patient)
        else:
            dataset.to_parquet(patient, batch_size=_group_rows(dataset))
        let_go(patient.mapped)
        if patient.error is not None:
            raise patient.error
    return {}


def _group_rows(dataset: Dataset) -> int | None:
    """Give the rows of a Parquet file's group: as many as `datasets` takes, which are a Python object each."""
    if len(dataset) <= GROUP_ROWS:
        return None
    size = int(dataset._estimate_nbytes())
    return min(GROUP_ROWS, max(1, len(dataset) * GROUP_BYTES // max(size, 1)))


class _Patient(io.RawIOBase):
    """A file for `datasets` to write Parquet to, which keeps its error to itself until the writing is over.

    An error inside Arrow's content-defined chunking, which `datasets` asks for, aborts the process.
    """

    def __init__(self, file: BinaryIO, mapped: Sequence[str] = ()) -> None:
        self.file, self.mapped = file, mapped
        self.error: OSError | None = None
        self.written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.written

    def write(self, block: Any) -> int:
        if self.error is None:
            try:
                self.file.write(block)
            except OSError as error:
                self.error = error
        if self.written // RELEASED < (self.written + len(block)) // RELEASED:
            let_go(self.mapped)
        self.written += len(block)
        return len(block)


def _is_media(feature: Any) -> bool:
    from datasets import Audio, Image

    return isinstance(getattr(feature, "feature", feature), (Audio, Image))


def _write_media(dataset: Dataset, file: BinaryIO | io.RawIOBase) -> None:
    """Write images and sound into the table itself, few rows at a time, where they were but named."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets.table import embed_table_storage

    schema = dataset.features.arrow_schema
    with pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema) as writer:
        for table in dataset.with_format("arrow").iter(MEDIA):
            writer.write_table(embed_table_storage(table.cast(schema)))


def write_table(table: pa.Table, file: Path) -> None:
    """Write a table as parquet, compressed."""
    import pyarrow.parquet as pq

    pq.write_table(table, file, compression="zstd")


def digest_of(folder: Path) -> str:
    """Hash the data files, in the order of their names."""
    digest = xxhash.xxh3_64()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        with file.open("rb") as handle:
            while chunk := handle.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def quiet_writing() -> Iterator[None]:
    """Keep `datasets`' bars off the terminal for a while."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    if shown:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
