"""Readers of one data file each; every one yields blocks of rows and says which line is bad."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from datapruner.errors import DataPrunerError
from datapruner.files.mapped import let_go
from datapruner.files.temporary import private_folder
from datapruner.guards.limits import UNPACKED, check_columns, check_rows, limit, over
from datapruner.samples.json_rows import Row, json_lines, json_rows
from datapruner.samples.plain import say_converted
from datapruner.samples.rows import Rows
from datapruner.samples.shared import shares, unshared
from datapruner.samples.sound import check_table, longest_text
from datapruner.samples.tables import spilling
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FORMATS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".arrow")
PACKED = (".gz", ".zst")

BLOCK_ROWS = 10_000
BLOCK_BYTES = 32 << 20

_POINTER = b"version https://git-lfs.github.com/spec/"


def file_format(path: Path) -> str | None:
    """Return the data format that a file's name ends in (``.jsonl`` for ``a.jsonl.gz``), if any."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return next((ending for ending in FORMATS if name.endswith(ending)), None)


def read_blocks(path: Path, label: str) -> Iterator[pa.Table | Rows]:
    """Yield a data file's rows in blocks; ``label`` is the file's name in errors."""
    refuse_pointer(path, label)
    kind = file_format(path)
    if kind in (".jsonl", ".ndjson", ".json"):
        read = json_rows if kind == ".json" else json_lines
        return _tables(read(lambda: opened(path, label), label), label)
    if kind in (".csv", ".tsv"):
        return _tables(_csv(path, label, "\t" if kind == ".tsv" else ","), label)
    return _arrow(path, label) if kind == ".arrow" else _parquet(path, label)


def refuse_pointer(path: Path, label: str) -> None:
    """Refuse a file that git left in place of a large one."""
    with opened(path, label, packed=False) as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise DataPrunerError(
                f"{label} is a Git LFS pointer, not the data; run 'git lfs install' and 'git lfs pull' in its"
                f" repository."
            )


@contextmanager
def opened(path: Path, label: str, *, packed: bool = True) -> Iterator[IO[bytes]]:
    """Open a file, unpacked on the way; a damaged or missing one is a sentence."""
    import pyarrow as pa

    try:
        if packed and path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                yield io.BufferedReader(_Unpacked(cast("IO[bytes]", stream), path, label), 1 << 20)
        elif packed and path.suffix.lower() == ".zst":
            with pa.input_stream(str(path), compression="zstd") as raw:
                yield io.BufferedReader(_Unpacked(raw, path, label), 1 << 20)
        else:
            with path.open("rb") as plain:
                yield plain
    except (OSError, EOFError, zlib.error) as error:
        reason = safe_text(" ".join(str(error).split()), 120)
        raise DataPrunerError(
            f"{label} cannot be read ({reason}); it may be damaged or cut short."
        ) from error


def _most(path: Path) -> int:
    """Bytes that a file may become, unpacked."""
    return max(UNPACKED, limit("unpacked_ratio") * path.stat().st_size)


def _larger(label: str) -> DataPrunerError:
    return over(label, "becomes larger, unpacked, by more times", "unpacked_ratio")


class _Unpacked(io.RawIOBase):
    """What a packed file unpacks to, as far as is allowed."""

    def __init__(self, stream: Any, path: Path, label: str) -> None:
        self.stream, self.label, self.left = stream, label, _most(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = int(self.stream.readinto(buffer))
        self.left -= read
        if self.left < 0:
            raise _larger(self.label)
        return read


def _tables(rows: Iterator[Row], label: str) -> Iterator[Rows]:
    """Cut rows into blocks, bounded in rows and in bytes."""
    block = Rows(label)
    for place, text, row in rows:
        block.add(place, text, row)
        if len(block.rows) == BLOCK_ROWS or block.size > BLOCK_BYTES:
            yield block
            block = Rows(label)
    if block.rows:
        yield block


def _csv(path: Path, label: str, delimiter: str) -> Iterator[Row]:
    """Read a table of strings: CSV has no types and no nulls, and none are guessed (``007`` stays)."""
    # The module's limit is one for the process, and 128 KB by default.
    most = limit("row_bytes")
    csv.field_size_limit(min(most, 2**31 - 1))
    with opened(path, label) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        reader = csv.reader(_bounded(text, label, most), delimiter=delimiter, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                return
            check_columns(len(header), label)
            if len(set(header)) < len(header):
                double = next(name for name in header if header.count(name) > 1)
                raise DataPrunerError(
                    f"{label} has more than one column called '{safe_text(double, 60)}'; rename one."
                )
            start = reader.line_num + 1
            for cells in reader:
                if cells:
                    if len(cells) != len(header):
                        raise DataPrunerError(
                            f"{label}, line {start} has {len(cells)} cells where the header has"
                            f" {len(header)};"
                            f" quote cells that hold the delimiter or a line break."
                        )
                    yield start, sum(map(len, cells)), dict(zip(header, cells, strict=True))
                start = reader.line_num + 1
        except csv.Error as error:
            if "field limit" in str(error):
                raise over(f"{label}, line {reader.line_num}", "has more bytes", "row_bytes") from None
            raise DataPrunerError(
                f"{label}, line {reader.line_num} is not valid CSV ({safe_text(str(error), 80)}); mend"
                f" its quotes."
            ) from None
        except UnicodeDecodeError:
            raise DataPrunerError(
                f"{label} is not valid UTF-8 near line {reader.line_num + 1}; convert the file to UTF-8."
            ) from None


def _bounded(text: IO[str], label: str, most: int) -> Iterator[str]:
    """Give a file's lines, none of which may be longer than a row."""
    empty, most_empty = 0, limit("empty_lines")
    for number, line in enumerate(iter(lambda: text.readline(most + 1), ""), 1):
        if len(line) > most:
            raise over(f"{label}, line {number}", "has more bytes", "row_bytes")
        empty = empty + 1 if line in ("\n", "\r\n") else 0
        if empty > most_empty:
            raise over(f"{label}, line {number}", "stands after more empty lines", "empty_lines")
        yield line


def unpacked(path: Path, label: str) -> Path:
    """Return a path to the plain file: Parquet and Arrow are not read through a stream."""
    if path.suffix.lower() not in PACKED:
        return path
    with spilling(label):
        target = private_folder() / path.stem
        out = target.open("wb")
    with out, opened(path, label) as stream:
        while block := stream.read(1 << 20):
            with spilling(label):
                out.write(block)
    return target


def _parquet(path: Path, label: str) -> Iterator[pa.Table | Rows]:
    """Read Parquet in batches that stay small when rows are large."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        plain = unpacked(path, label)
        with pq.ParquetFile(plain, memory_map=True) as file:
            say_converted(file.schema_arrow, label)
            check_columns(file.metadata.num_columns, label)
            check_rows(file.metadata.num_rows, plain.stat().st_size, label)
            rows = _batch_rows(file, plain)
            first, size = 0, 0
            for batch in file.iter_batches(batch_size=rows):
                # The file's schema, not the batch's: it has the features that `datasets` stored.
                table = pa.Table.from_batches([batch]).replace_schema_metadata(file.schema_arrow.metadata)
                check_table(table, label, "Parquet", first)
                size += max(
                    batch.nbytes,
                    sum(int(unshared(column).sum()) for column in batch.columns if shares(column.type)),
                )
                _check_grown(size, plain, label)
                first += len(table)
                yield table
                let_go([str(plain)])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(label, "Parquet", error) from error


def _batch_rows(file: pq.ParquetFile, path: Path) -> int:
    """Return how many rows are read at a time, so that they take about as much memory as a block.

    A file of a few kilobytes may refer to one long text from each of a million rows: what is in its dictionaries is
    looked at first.
    """
    import pyarrow.parquet as pq

    meta = file.metadata
    groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    rows = max(1, min(1 << 16, int(BLOCK_BYTES * max(meta.num_rows, 1) / max(size, 1))))
    suspects = [
        (number, part.path_in_schema)
        for number, group in enumerate(groups)
        for part in map(group.column, range(group.num_columns))
        if part.physical_type == "BYTE_ARRAY"
        and part.has_dictionary_page
        and part.total_uncompressed_size * min(rows, group.num_rows) > UNPACKED
    ]
    names = sorted({name for _, name in suspects})
    if not names:
        return rows
    with pq.ParquetFile(path, memory_map=True, read_dictionary=names) as coded:
        longest = max(
            longest_text(column)
            for number in sorted({number for number, _ in suspects})
            for batch in islice(coded.iter_batches(1, row_groups=[number], columns=names), 1)
            for column in batch.columns
        )
    return max(1, min(rows, 8 * BLOCK_BYTES // max(longest, 1)))


def _check_grown(size: int, path: Path, label: str) -> None:
    """Refuse a file that becomes too large once each row has values of its own."""
    if size > _most(path):
        raise _larger(label)


def arrow_table(path: Path, label: str) -> tuple[pa.Table, bool]:
    """Map an Arrow file; the second value says whether it has the stream format."""
    import pyarrow as pa

    try:
        mapped = pa.memory_map(str(path))
        is_file = bytes(mapped.read(6)) == b"ARROW1"
        mapped.seek(0)
        reader = pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)
        table = reader.read_all()
        table.validate()
        check_table(table, label)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(label, "Arrow", error) from error
    return table, not is_file


def _arrow(path: Path, label: str) -> Iterator[pa.Table | Rows]:
    import pyarrow as pa

    table, _ = arrow_table(unpacked(path, label), label)
    for batch in table.to_batches():
        yield pa.Table.from_batches([batch])


def _damaged(label: str, kind: str, error: Exception) -> DataPrunerError:
    reason = safe_text(" ".join(str(error).split()), 120)
    return DataPrunerError(f"{label} is not a whole {kind} file ({reason}); write it again.")
