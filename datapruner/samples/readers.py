"""Readers of one data file each; every one yields Arrow tables and says which line is bad."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from datapruner.errors import DataPrunerError
from datapruner.samples.tables import spilling, table_of_rows
from datapruner.temporary import private_folder
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".arrow")
PACKED = (".gz", ".zst")

BLOCK_ROWS = 10_000
BLOCK_BYTES = 32 << 20

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def file_format(path: Path) -> str | None:
    """Return the data format that a file's name ends in (``.jsonl`` for ``a.jsonl.gz``), if any."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return next((ending for ending in FORMATS if name.endswith(ending)), None)


def read_tables(path: Path, label: str) -> Iterator[pa.Table]:
    """Yield a data file's rows as tables; ``label`` is the file's name in errors."""
    kind = file_format(path)
    if kind in (".jsonl", ".ndjson"):
        return _tables(_json_lines(path, label), label)
    if kind == ".json":
        return _tables(_json(path, label), label)
    if kind in (".csv", ".tsv"):
        return _tables(_csv(path, label, "\t" if kind == ".tsv" else ","), label)
    return _arrow(path, label) if kind == ".arrow" else _parquet(path, label)


@contextmanager
def opened(path: Path, label: str) -> Iterator[IO[bytes]]:
    """Open a file, unpacked on the way; a damaged or missing one is a sentence."""
    import pyarrow as pa

    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                yield cast("IO[bytes]", stream)
        elif path.suffix.lower() == ".zst":
            with pa.input_stream(str(path), compression="zstd") as packed:
                yield io.BufferedReader(packed, 1 << 20)
        else:
            with path.open("rb") as plain:
                yield plain
    except (OSError, EOFError, zlib.error) as error:
        reason = safe_text(" ".join(str(error).split()), 120)
        raise DataPrunerError(
            f"{label} cannot be read ({reason}); it may be damaged or cut short."
        ) from error


Row = tuple[int, int, dict[str, Any]]
"""A row's line, its size in bytes, and its values."""


def _tables(rows: Iterator[Row], label: str) -> Iterator[pa.Table]:
    """Turn rows into tables, bounded in rows and in bytes."""
    block: list[dict[str, Any]] = []
    lines: list[int] = []
    room = BLOCK_BYTES
    for line, size, row in rows:
        block.append(row)
        lines.append(line)
        room -= size
        if room <= 0 or len(block) == BLOCK_ROWS:
            yield table_of_rows(block, lambda place, at=lines: f"{label}, line {at[place]}")  # type: ignore[misc]
            block, lines, room = [], [], BLOCK_BYTES
    if block:
        yield table_of_rows(block, lambda place: f"{label}, line {lines[place]}")


def _json_lines(path: Path, label: str) -> Iterator[Row]:
    """Read one object a line; blank lines are skipped."""
    with opened(path, label) as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            if line.strip():
                yield number, len(line), _row(_parse(line, label, number), label, number)


def _parse(line: bytes, label: str, number: int) -> Any:
    """Parse one JSON text strictly: UTF-8, whole, without half characters."""
    where = f"{label}, line {number}"
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise DataPrunerError(f"{where} is not valid UTF-8; convert the file to UTF-8.") from None
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataPrunerError(
            f"{where} is not valid JSON ({safe_text(reason, 80)}); mend or remove the line."
        ) from None
    if _SURROGATE.search(line):
        _check_surrogates(value, where)
    return value


def _check_surrogates(value: Any, where: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise DataPrunerError(
            f"{where} holds a lone surrogate (half a character, such as \\ud800), which is not text;"
            f" remove it."
        ) from None


def _row(value: Any, label: str, number: int) -> dict[str, Any]:
    """Check that a JSON value is a row."""
    if isinstance(value, dict) and value:
        return value
    what = {list: "a list", dict: "an empty object", str: "a string", type(None): "null"}.get(
        type(value), "a number"
    )
    hint = " (a file that is one list is named .json)" if isinstance(value, list) else ""
    raise DataPrunerError(f"{label}, line {number} holds {what} where an object is needed{hint}.")


def _json(path: Path, label: str) -> Iterator[Row]:
    """Read a list of objects, or objects one after another, each on a line or over several."""
    with opened(path, label) as stream:
        first = b""
        while not first.strip(b"\xef\xbb\xbf \t\r\n"):
            first = stream.readline()
            if not first:
                return
    try:
        # Whole objects on lines are read as such: nothing of the file but a line is in memory.
        is_lines = isinstance(json.loads(first.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        is_lines = False
    if is_lines:
        yield from _json_lines(path, label)
        return
    with opened(path, label) as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataPrunerError(
            f"{label}, line {line} is not valid UTF-8; convert the file to UTF-8."
        ) from None
    suspicious = _SURROGATE.search(raw) is not None
    size = len(raw)
    del raw
    yield from _json_text(text, label, size, suspicious=suspicious)


def _json_text(text: str, label: str, size: int, *, suspicious: bool) -> Iterator[Row]:
    """Read the objects of a text: one list of them, or one after another."""
    decoder = json.JSONDecoder()
    blank = re.compile(r"[ \t\r\n]*")

    def skip(position: int) -> int:
        found = blank.match(text, position)
        return found.end() if found else position

    position = skip(0)
    in_list = text[position : position + 1] == "["
    position = skip(position + 1) if in_list else position
    line, counted = 1, 0
    needs_comma = False
    while position < len(text) and not (in_list and text[position] == "]"):
        if in_list and needs_comma:
            if text[position] != ",":
                line += text.count("\n", counted, position)
                raise DataPrunerError(
                    f"{label}, line {line} is not valid JSON (a comma is missing); mend the file."
                )
            position = skip(position + 1)
        # Lines are counted forwards only, so that a long list does not cost its square.
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            at = error.lineno if isinstance(error, json.JSONDecodeError) else line
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataPrunerError(
                f"{label}, line {at} is not valid JSON ({safe_text(reason, 80)}); the file may be cut short."
            ) from None
        if suspicious:
            _check_surrogates(value, f"{label}, line {line}")
        yield line, end - position, _row(value, label, line)
        position, needs_comma = skip(end), True
    if in_list and (position >= len(text) or skip(position + 1) < len(text)):
        problem = "goes on after its list" if position < len(text) else "ends inside its list"
        raise DataPrunerError(f"{label} {problem}: it is not valid JSON; the file may be cut short.")


def _csv(path: Path, label: str, delimiter: str) -> Iterator[Row]:
    """Read a table of strings: CSV has no types and no nulls, and none are guessed (``007`` stays)."""
    # The module's limit is one for the process, and 128 KB by default: a long cell is no error here.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with opened(path, label) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                return
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
            raise DataPrunerError(
                f"{label}, line {reader.line_num} is not valid CSV ({safe_text(str(error), 80)}); mend"
                f" its quotes."
            ) from None
        except UnicodeDecodeError:
            raise DataPrunerError(
                f"{label} is not valid UTF-8 near line {reader.line_num + 1}; convert the file to UTF-8."
            ) from None


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


def _parquet(path: Path, label: str) -> Iterator[pa.Table]:
    """Read Parquet in batches that stay small when rows are large."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(unpacked(path, label), memory_map=True) as file:
            meta = file.metadata
            size = sum(meta.row_group(group).total_byte_size for group in range(meta.num_row_groups))
            rows = max(1, min(1 << 16, int(BLOCK_BYTES * max(meta.num_rows, 1) / max(size, 1))))
            for batch in file.iter_batches(batch_size=rows):
                # The file's schema, not the batch's: it has the features that `datasets` stored.
                yield pa.Table.from_batches([batch]).replace_schema_metadata(file.schema_arrow.metadata)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(label, "Parquet", error) from error


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
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(label, "Arrow", error) from error
    return table, not is_file


def _arrow(path: Path, label: str) -> Iterator[pa.Table]:
    import pyarrow as pa

    table, _ = arrow_table(unpacked(path, label), label)
    for batch in table.to_batches():
        yield pa.Table.from_batches([batch])


def _damaged(label: str, kind: str, error: Exception) -> DataPrunerError:
    reason = safe_text(" ".join(str(error).split()), 120)
    return DataPrunerError(f"{label} is not a whole {kind} file ({reason}); write it again.")
