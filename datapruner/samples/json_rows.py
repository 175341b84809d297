"""Rows of a JSON file: one object a line, a list of objects, objects under one key, or columns of values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain, islice
from typing import IO, Any

from datapruner.errors import DataPrunerError
from datapruner.guards.limits import limit, over
from datapruner.samples.rows import check_keys
from datapruner.text import safe_text

Row = tuple[int | str, bytes | int, dict[str, Any]]
"""Where a row stands (its line, or words), its JSON or about how many bytes it has, and its values."""
Open = Callable[[], AbstractContextManager[IO[bytes]]]

ROWS_UNDER = ("data", "rows", "examples", "samples", "instances", "records", "items", "dataset")
"""Keys of an object under which its rows lie, beside keys that describe them."""
DESCRIBED = ("features", "schema", "fields", "columns")
"""Keys of an object whose objects describe its rows."""

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"
_BOM = b"\xef\xbb\xbf"


def json_lines(opened: Open, label: str) -> Iterator[Row]:
    """Read one object a line; blank lines are skipped."""
    return _unwrapped(_lines(opened, label), label)


def json_rows(opened: Open, label: str) -> Iterator[Row]:
    """Read a list of objects, or objects one after another, each on a line or over several."""
    return _unwrapped(_rows(opened, label), label)


def _lines(opened: Open, label: str) -> Iterator[Row]:
    with opened() as stream:
        most, empty, most_empty = limit("row_bytes"), 0, limit("empty_lines")
        for number, raw in enumerate(iter(lambda: stream.readline(most + 1), b""), 1):
            if len(raw) > most:
                raise over(f"{label}, line {number}", "has more bytes", "row_bytes")
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if line.strip():
                empty = 0
                yield number, line, _row(_parse(line, label, number), label, number)
            elif (empty := empty + 1) > most_empty:
                raise over(f"{label}, line {number}", "stands after more empty lines", "empty_lines")


def _parse(line: bytes, label: str, number: int) -> Any:
    """Parse one JSON text strictly: UTF-8, whole, without half characters."""
    where = f"{label}, line {number}"
    try:
        text = line.decode("utf-8").strip(_SPACE)
        value, end = _DECODER.raw_decode(text)
        if end < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except UnicodeDecodeError:
        raise DataPrunerError(f"{where} is not valid UTF-8; convert the file to UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise _invalid(error, line, where, "mend or remove the line") from None
    return value


def _invalid(error: Exception, text: bytes, where: str, way_out: str) -> DataPrunerError:
    """Say why a text is not JSON."""
    start = text.lstrip(_BOM + b" \t\r\n[")
    if re.match(rb"\{\s*u?'", start):
        return DataPrunerError(
            f"{where} is a Python dictionary (its quotes are single), not JSON; write the rows with json.dumps."
        )
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return DataPrunerError(f"{where} is not valid JSON ({safe_text(reason, 80)}); {way_out}.")


def _row(value: Any, label: str, number: int) -> dict[str, Any]:
    """Check that a JSON value is a row."""
    if isinstance(value, dict) and value:
        return value
    what = {list: "a list", dict: "an empty object", str: "a string", type(None): "null"}.get(
        type(value), "a number"
    )
    hint = " (a file that is one list is named .json)" if isinstance(value, list) else ""
    raise DataPrunerError(f"{label}, line {number} holds {what} where an object is needed{hint}.")


def _rows(opened: Open, label: str) -> Iterator[Row]:
    with opened() as stream:
        first, empty, most = b"", 0, limit("empty_lines")
        while not first.strip(_BOM + b" \t\r\n"):
            if (empty := empty + 1) > most:
                raise over(label, "begins with more empty lines", "empty_lines")
            first = stream.readline(limit("row_bytes") + 1)
            if not first:
                return
    try:
        # Whole objects on lines are read as such: nothing of the file but a line is in memory.
        is_lines = len(first) <= limit("row_bytes") and isinstance(
            json.loads(first.decode("utf-8-sig")), dict
        )
    except (ValueError, RecursionError):
        is_lines = False
    if is_lines:
        yield from _lines(opened, label)
        return
    most = limit("json_bytes")
    raw = bytearray()  # grows in place
    with opened() as stream:
        while block := stream.read(1 << 20):
            raw += block
            if len(raw) > most:
                raise over(label, "is one list or object of more bytes", "json_bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataPrunerError(
            f"{label}, line {line} is not valid UTF-8; convert the file to UTF-8."
        ) from None
    del raw
    yield from _text_rows(text, label)


def _text_rows(text: str, label: str) -> Iterator[Row]:
    """Read the objects of a text: one list of them, or one after another."""
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
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            at = error.lineno if isinstance(error, json.JSONDecodeError) else line
            start = text[position : position + 100].encode()
            raise _invalid(error, start, f"{label}, line {at}", "the file may be cut short") from None
        if in_list and isinstance(value, str):
            # A list of texts, as `datasets` reads it.
            yield line, end - position, {"text": value}
        else:
            yield line, text[position:end].encode(), _row(value, label, line)
        position, needs_comma = skip(end), True
    if in_list and (position >= len(text) or skip(position + 1) < len(text)):
        problem = "goes on after its list" if position < len(text) else "ends inside its list"
        raise DataPrunerError(f"{label} {problem}: it is not valid JSON; the file may be cut short.")


def _unwrapped(rows: Iterator[Row], label: str) -> Iterator[Row]:
    """Read the rows inside the one object of a file, where it is not a row itself."""
    first = list(islice(rows, 2))
    if len(first) == 1 and (found := rows_inside(first[0][2], label)) is not None:
        _, raw, _ = first[0]
        if isinstance(raw, bytes):
            check_keys(raw.decode(), label)
        where, inner = found
        size = (len(raw) if isinstance(raw, bytes) else raw) // len(inner)
        for number, row in enumerate(inner):
            yield f"row {number}{where}", size, row
        return
    yield from chain(first, rows)


def rows_inside(value: dict[str, Any], label: str) -> tuple[str, list[dict[str, Any]]] | None:
    """Return the rows that one object holds, and where; None where the object is a row itself.

    They are under a usual key beside others that describe them, or under its only key; or the object has a list
    of values for each column, as ``pandas`` and ``Dataset.to_dict`` write them. Messages are no rows.
    """
    lists = [key for key, held in value.items() if _is_rows(held) and key.lower() not in DESCRIBED]
    under = [key for key in lists if key.lower() in ROWS_UNDER]
    if len(lists) > 1 and (under or len(lists) == len(value)):
        names = ", ".join(f"'{safe_text(key, 40)}'" for key in lists)
        raise DataPrunerError(
            f"{label} holds lists of rows under {names}; write each list as a file of its own, such as"
            f" {safe_text(lists[0], 40)}.json."
        )
    under = under or (lists if len(value) == 1 else [])
    if len(under) == 1:
        key = under[0]
        rows = value[key]
        if all(
            set(row) == {"row_idx", "row", "truncated_cells"} and isinstance(row["row"], dict) for row in rows
        ):
            rows = [row["row"] for row in rows]  # the dataset viewer's
        return f" under '{safe_text(key, 40)}'", rows
    columns = value.get("columns")
    if (
        isinstance(columns, list)
        and isinstance(value.get("data"), list)
        and set(value) <= {"columns", "index", "data"}
    ):
        cells = value["data"]
        if all(isinstance(row, list) and len(row) == len(columns) for row in cells):
            return "", [dict(zip(map(str, columns), row, strict=True)) for row in cells]
    if all(isinstance(held, dict) and held for held in value.values()):
        if all(map(str.isdigit, value)):
            return "", list(value.values())  # rows by number
        index = list(next(iter(value.values())))
        if all(map(str.isdigit, index)) and all(list(held) == index for held in value.values()):
            return "", [{name: held[key] for name, held in value.items()} for key in index]
    return rows_of_columns(value)


def rows_of_columns(value: dict[str, Any]) -> tuple[str, list[dict[str, Any]]] | None:
    """Return the rows of an object that has one list of values for each column, all of one length."""
    columns = list(value.values())
    if not all(isinstance(column, list) and column for column in columns):
        return None
    if len({len(column) for column in columns}) > 1 or any(map(_is_turns, columns)):
        return None
    if not any(isinstance(cell, (str, list, dict)) for column in columns for cell in column):
        return None  # one row with a vector
    return "", [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _is_rows(held: Any) -> bool:
    """Whether a value is a list of objects, and not of messages."""
    return (
        isinstance(held, list)
        and bool(held)
        and all(isinstance(row, dict) and row for row in held)
        and not _is_turns(held)
    )


def _is_turns(held: list[Any]) -> bool:
    return all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in held)
