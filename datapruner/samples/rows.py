"""A block of rows as Python objects, turned into a table without loss; the row that does not fit is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.guards.limits import check_columns
from datapruner.samples.exact import HIGH, LOW, exact_array, holds_json, is_list
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa


class Rows:
    """A block of rows as Python objects, with the places where they stand and the JSON that they were read from.

    Parameters
    ----------
    source
        The file, or what is in memory, for the errors.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.rows: list[dict[str, Any]] = []
        self.places: list[int | str] = []
        self.text = bytearray()
        self.ends: list[int] = []
        self.size = 0
        self.padded = False
        """Whether a struct of the table holds nulls that no row had."""

    def add(self, place: int | str, text: bytes | int, row: dict[str, Any]) -> None:
        """Take a row: its line, or words for its place; its JSON, or about how many bytes it has; its values."""
        self.rows.append(row)
        self.places.append(place)
        if isinstance(text, int):
            self.size += text
        else:
            self.text += text
            self.size = len(self.text)
            self.ends.append(self.size)

    def place(self, row: int) -> str:
        """Say where a row of the block stands, for the errors: ``"a.jsonl, line 17"``."""
        place = self.places[row]
        return f"{self.source}, line {place}" if isinstance(place, int) else f"{self.source}, {place}"

    def table(self) -> pa.Table:
        """Build a table of the rows; a key that a row lacks is null."""
        import pyarrow as pa

        self._refuse_surrogates()
        arrays = {}
        keys = sum(map(len, self.rows))
        names = dict.fromkeys(name for row in self.rows for name in row)
        check_columns(len(names), self.source)
        for name in names:
            if "\0" in name:
                raise DataPrunerError(
                    f"{self.source}: the column '{safe_text(name, 60)}' has a NUL character in its name; rename it."
                )
            values = [row.get(name) for row in self.rows]
            try:
                arrays[name] = exact_array(
                    values, booleans=self._may_hold_booleans, padded=self._note_padding
                )
            except (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError) as error:
                raise _bad_value(name, values, self.place, error) from None
            if self.ends:
                keys += sum(map(_keys, values)) if holds_json(arrays[name].type) else _keys_in(arrays[name])
        self._refuse_double_keys(keys)
        return pa.table(arrays)

    def _note_padding(self) -> None:
        self.padded = True

    def _may_hold_booleans(self) -> bool:
        return not self.ends or b"true" in self.text or b"false" in self.text

    def _refuse_surrogates(self) -> None:
        """Refuse half a character, which JSON can say and UTF-8 cannot."""
        if _SURROGATE.search(self.text):
            for row, value in enumerate(self.rows):
                try:
                    json.dumps(value, ensure_ascii=False).encode("utf-8")
                except UnicodeEncodeError:
                    raise DataPrunerError(
                        f"{self.place(row)} holds a lone surrogate (half a character, such as \\ud800), which is not"
                        " text; remove it."
                    ) from None

    def _refuse_double_keys(self, keys: int) -> None:
        """Refuse an object that has a key twice, of which Python keeps the last.

        Looking at each object takes four times as long as counting; the text has as many keys as the values, or a
        few that only seem to be keys, where no key was lost.
        """
        if count_keys(self.text) == keys:
            return
        start = 0
        for row, end in enumerate(self.ends):
            check_keys(self.text[start:end].decode(), self.place(row))
            start = end


def _bad_value(
    name: str, values: list[Any], place: Callable[[int], str], error: Exception
) -> DataPrunerError:
    """Find the first row that cannot join the rows before it, and say why."""
    import pyarrow as pa

    def fails(stop: int) -> bool:
        try:
            exact_array(values[:stop])
        except (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError):
            return True
        return False

    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    where = f"{place(high - 1)}: column '{safe_text(name, 60)}'"
    value = values[high - 1]
    before = next((item for item in values[: high - 1] if item is not None), None)
    if isinstance(error, UnicodeEncodeError):
        what = "holds a lone surrogate (half a character, such as \\ud800), which is not text; remove it."
    elif isinstance(error, OverflowError) and (before is None or type(before) is type(value)):
        signed = type(value) is int and LOW <= value < HIGH
        what = (
            "holds integers below 0 and from 2^63 on, which no 64-bit type holds together; store them as strings."
            if signed
            else "holds an integer that does not fit into 64 bits; store it as a string."
        )
    elif isinstance(error, RecursionError):
        what = "holds values inside each other beyond all measure; store them as a string."
    elif "Out of range float" in str(error):
        what = "holds NaN or an infinity inside an object, which JSON does not know; make it null."
    elif before is not None and type(before) is not type(value):
        what = (
            f"holds {type(value).__name__} where earlier rows hold {type(before).__name__};"
            f" make the column one type."
        )
    else:
        reason = safe_text(str(error).splitlines()[0], 120)
        what = f"holds values that make no column ({reason}); make them one type."
    return DataPrunerError(f"{where} {what}")


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BLANK = np.zeros(256, dtype=bool)
_BLANK[list(b" \t\n\r")] = True


def count_keys(text: bytes | bytearray) -> int:
    """Count the keys in JSON text: the quotes before a colon that no backslash makes part of a string.

    A string that begins with a colon counts too, so that there may be fewer keys, never more.
    """
    held = np.frombuffer(text, dtype=np.uint8)
    at = np.flatnonzero(held == ord(":")) - 1
    while (blank := _BLANK[held[at]]).any():
        at -= blank
    at = at[held[at] == ord('"')] - 1
    # A quote after an odd number of backslashes is a character of a string.
    within = np.zeros(len(at), dtype=bool)
    live = held[at] == ord("\\")
    while live.any():
        within ^= live
        at -= live
        live &= held[at] == ord("\\")
    return len(at) - int(within.sum())


def _keys_in(array: pa.Array) -> int:
    """Count the keys in the objects of an exact array without JSON."""
    import pyarrow.types as t

    if is_list(array.type):
        return _keys_in(array.flatten())
    if not t.is_struct(array.type):
        return 0
    array = array.drop_null() if array.null_count else array
    here: int = len(array) * array.type.num_fields
    return here + sum(map(_keys_in, array.flatten()))


def _keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if isinstance(value, list) else 0


def check_keys(text: str, where: str) -> None:
    """Refuse JSON text in which an object has a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> None:
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise DataPrunerError(
                    f"{where} has the key '{safe_text(key, 60)}' twice in one object; remove or rename one."
                )
            seen.add(key)

    json.loads(text, object_pairs_hook=once)
