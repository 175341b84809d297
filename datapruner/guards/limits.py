"""How much of a source is taken before it is refused; the sentence that refuses names the option that allows more.

A source of somebody else's may be made to fill memory or to take for ever; what is larger than a limit is refused with
its place and the limit's name. Limits are given as ``--limit row_bytes=100MB`` or ``limits={"row_bytes": "100MB"}``,
else as environment variables (``DATAPRUNER_MAX_ROW_BYTES``). They belong to a machine, so that no recipe holds them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from datapruner.errors import DataPrunerError
from datapruner.text import did_you_mean, safe_repr, safe_text

Limits = Mapping[str, int | str]
"""Limits by name: a whole number, or for bytes a text such as ``"100MB"``."""

DEFAULTS = {
    "row_bytes": 32 << 20,
    "empty_lines": 1_000_000,
    "json_bytes": 1 << 30,
    "unpacked_ratio": 200,
    "shared_ratio": 30,
    "columns": 10_000,
    "rows_per_byte": 20,
    "files": 100_000,
    "searched": 10_000_000,
    "search_seconds": 60,
}
"""
row_bytes
    Bytes of one line of JSON lines, of one cell or line of CSV, of one text in Parquet or Arrow.
empty_lines
    Empty lines of JSON lines or CSV, one after another.
json_bytes
    Bytes of a JSON file that is one list or one object, which is in memory as a whole.
unpacked_ratio
    How many times larger than itself a Parquet file, or any in ``.gz`` or ``.zst``, may become, beyond 1 GB.
shared_ratio
    How many times larger a table may become whose rows share values (dictionaries, views, run lengths), beyond 1 GB.
columns
    Columns of a source.
rows_per_byte
    Rows of a Parquet file for each of its bytes, beyond 10 million rows: rows of nulls take no room.
files, searched, search_seconds
    Files that a pattern matches; entries looked at for a pattern or in a folder, and seconds spent on it.
"""
_SIZE = re.compile(r"(\d[\d_]{0,24})(?:\s?([kmgt])(i?)b)?", re.ASCII | re.IGNORECASE)
_MOST = 10**18
_given: ContextVar[Mapping[str, int]] = ContextVar("limits", default={})  # noqa: B039 - never changed in place

MANY_ROWS = 10_000_000
"""Rows that any Parquet file may have."""
UNPACKED = 1 << 30
"""Bytes that anything may become, whatever its ratio."""


def variable(name: str) -> str:
    """Return the environment variable of a limit: ``DATAPRUNER_MAX_FILES``."""
    return f"DATAPRUNER_MAX_{name.upper()}"


def limit(name: str) -> int:
    """Return a limit as it is now.

    Raises
    ------
    DataPrunerError
        The environment variable holds no whole number above 0, and no size.
    """
    if (given := _given.get().get(name)) is not None:
        return given
    said = os.environ.get(variable(name))
    return _number(name, said, variable(name)) if said else DEFAULTS[name]


@contextmanager
def limited(given: Limits | None) -> Iterator[None]:
    """Let these limits hold for as long as this lasts; those that it does not name stay as they are.

    Raises
    ------
    DataPrunerError
        There is no limit of that name, or it is no whole number above 0, and no size.
    """
    if given is None:
        yield
        return
    if not isinstance(given, Mapping):
        raise DataPrunerError(
            f"limits are a mapping such as {{'row_bytes': '100MB'}}, not {safe_repr(given, 60)}"
        )
    read = {str(name): _number(str(name), value, f"--limit {name}") for name, value in given.items()}
    before = _given.set({**_given.get(), **read})
    try:
        yield
    finally:
        _given.reset(before)


def parse_limits(given: Iterable[str] | None) -> dict[str, str] | None:
    """Take limits as the command line has them: ``row_bytes=100MB``, once for each."""
    out: dict[str, str] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals:
            raise DataPrunerError(
                f"--limit takes name=value such as row_bytes=100MB, not '{safe_text(one, 60)}'; --keep says how many "
                "rows stay"
            )
        out[name.strip()] = value.strip()
    return out or None


def _number(name: str, value: object, where: str) -> int:
    if name not in DEFAULTS:
        raise DataPrunerError(
            f"there is no limit '{safe_text(name, 60)}'.{did_you_mean(name, DEFAULTS)} The limits are "
            f"{', '.join(DEFAULTS)}"
        )
    sizes = name.endswith("_bytes")
    number = _read(value, sizes=sizes)
    if not 0 < number <= _MOST:
        size = ", or a size such as 100MB" if sizes else ""
        raise DataPrunerError(
            f"{safe_text(where)} is a whole number above 0{size}, not {safe_repr(value, 40)}"
        )
    return number


def size_of(value: str, where: str) -> int:
    """Read a number of bytes such as 100MB or 2GiB.

    Raises
    ------
    DataPrunerError
        It is none; the sentence names ``where`` it was written.
    """
    number = _read(value, sizes=True)
    if not 0 < number <= _MOST:
        raise DataPrunerError(f"{where} is a size such as 20GB, not {safe_repr(value, 40)}")
    return number


def _read(value: object, *, sizes: bool) -> int:
    """Read a whole number, or a size; 0 where it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or (found[2] and not sizes):
        return 0
    unit: int = (1024 if found[3] else 1000) ** (" kmgt".index(found[2].lower()) if found[2] else 0)
    return int(found[1].replace("_", "")) * unit


def over(where: str, what: str, name: str) -> DataPrunerError:
    """Make the error of what is larger than a limit: its place, the limit, and the option that doubles it."""
    most = limit(name)
    twice = f"{-(-2 * most // 10**6)}MB" if name.endswith("_bytes") and most >= 10**6 else str(2 * most)
    return DataPrunerError(f"{where} {what} than {most:,}; --limit={name}={twice} allows more.")


def check_columns(count: int, label: str) -> None:
    """Refuse a source with more columns than the limit."""
    if count > limit("columns"):
        raise over(label, f"has {count:,} columns, more", "columns")


def check_rows(count: int, size: int, label: str) -> None:
    """Refuse a file of ``size`` bytes with more rows than such a file holds."""
    if count > max(MANY_ROWS, limit("rows_per_byte") * size):
        raise over(label, f"has {count:,} rows in {size:,} bytes, more for a byte", "rows_per_byte")
