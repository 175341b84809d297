"""How much of a source is taken before it is refused: each limit is an environment variable, told in the sentence.

A source of somebody else's may be made to fill memory or to take for ever; what is larger than a limit is refused with
its place and the limit's name. Limits belong to a machine, so that no recipe holds them.
"""

from __future__ import annotations

import os

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

DEFAULTS = {
    "row_bytes": 32 << 20,
    "json_bytes": 4 << 30,
    "unpacked_ratio": 200,
    "shared_ratio": 30,
    "files": 100_000,
    "searched": 10_000_000,
    "search_seconds": 60,
}
"""
row_bytes
    Bytes of one line of JSON lines, of one cell or line of CSV, of one text in Parquet or Arrow.
json_bytes
    Bytes of a JSON file that is one list or one object, which is in memory as a whole.
unpacked_ratio
    How many times larger than itself a Parquet or Arrow file in ``.gz`` or ``.zst`` may become, beyond 1 GB.
shared_ratio
    How many times larger a table may become whose rows share values (dictionaries, views, run lengths), beyond 1 GB.
files, searched, search_seconds
    Files that a pattern matches; entries looked at for a pattern or in a folder, and seconds spent on it.
"""

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
        The environment variable holds no whole number above 0.
    """
    given = os.environ.get(variable(name))
    if not given:
        return DEFAULTS[name]
    digits = given.replace("_", "")
    if not digits.isdecimal() or not digits.isascii() or len(digits) > 18 or int(digits) == 0:
        raise DataPrunerError(f"{variable(name)} is a whole number above 0, not '{safe_text(given, 40)}'")
    return int(digits)


def over(where: str, what: str, name: str) -> DataPrunerError:
    """Make the error of what is larger than a limit: its place, the limit, and how to raise it."""
    return DataPrunerError(f"{where} {what} than {limit(name):,}; {variable(name)} sets that limit.")
