"""Arrow data of somebody else's is looked at whole before it is read: offsets that point elsewhere, bad UTF-8."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.files.mapped import Pages, blocks
from datapruner.guards.limits import UNPACKED, check_columns, limit, over
from datapruner.samples.exact import holds_json, is_json
from datapruner.samples.shared import DEEPEST, depth, shares, unshared
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


def check_table(
    table: pa.Table, label: str, kind: str = "Arrow", first: int = 0, pages: Pages | None = None
) -> None:
    """Refuse a table whose buffers do not hold what they say.

    Reading such a table reads whatever else lies in memory, or ends the process. A pass over all offsets, indices and
    characters takes about 0.05 s a GB.

    Parameters
    ----------
    table : pyarrow.Table
    label : str
        The file.
    kind : str
        Its format.
    first : int
        The number of the table's first row in the file.
    pages : Pages, optional
        What the table is mapped from.

    Raises
    ------
    DataPrunerError
        A column is damaged, nested too deeply, larger than a limit, or holds text that is not UTF-8.
    """
    import pyarrow as pa

    check_columns(table.num_columns, label)
    for field in table.schema:
        if depth(field.type) > DEEPEST:
            name = safe_text(field.name, 60)
            raise DataPrunerError(
                f"{label}: column '{name}' is nested more than {DEEPEST} levels deep; store it as JSON text."
            )
    sharing = [place for place, field in enumerate(table.schema) if shares(field.type)]
    most = max(UNPACKED, limit("shared_ratio") * table.get_total_buffer_size()) if sharing else 0
    made = 0.0
    for batch in table.to_batches():
        if pages is not None:
            pages.cross(len(batch))
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid as error:
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                _check_column(column, safe_text(name, 60), label, kind, first)
            raise _damaged(label, kind, str(error)) from None
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if longest_text(column) > limit("row_bytes"):
                low, high = 0, len(column)
                while high - low > 1:
                    middle = (low + high) // 2
                    short = longest_text(column.slice(low, middle - low)) <= limit("row_bytes")
                    low, high = (middle, high) if short else (low, middle)
                where = f"{label}: row {first + low}, column '{safe_text(name, 60)}',"
                raise over(where, "holds a text of more bytes", "row_bytes")
            _check_json(column, safe_text(name, 60), label, first)
        for place in sharing:
            sizes = unshared(batch.column(place))
            name = safe_text(batch.schema.names[place], 60)
            if sizes.size and sizes.max() > limit("row_bytes"):
                where = f"{label}: row {first + int(sizes.argmax())}, column '{name}',"
                raise over(where, "holds a value of more bytes", "row_bytes")
            made += sizes.sum()
        if sharing and made > most:
            raise over(label, "becomes larger, once its rows share nothing, by more times", "shared_ratio")
        first += len(batch)


def _check_json(array: pa.Array, name: str, label: str, first: int | None) -> None:
    """Refuse what is declared as JSON and is none, at any depth; the row is named where there is one a value."""
    import pyarrow.types as t

    kind = array.type
    if is_json(kind):
        for row, text in enumerate(array.storage.to_pylist()):
            try:
                # Half a character is none, as in JSON files.
                if text is not None:
                    json.dumps(json.loads(text), ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                where = "a row" if first is None else f"row {first + row}"
                raise DataPrunerError(
                    f"{label}: {where} holds no valid JSON in column '{name}', which is declared as JSON "
                    f"({safe_text(str(error), 80)}); mend it, or declare the column as text."
                ) from None
    elif t.is_struct(kind):
        for place in range(kind.num_fields):
            _check_json(array.field(place), name, label, first)
    elif holds_json(kind) and (t.is_list(kind) or t.is_large_list(kind)):
        _check_json(array.flatten(), name, label, None)


def _named(array: pa.Array) -> pa.Array:
    """Which of a list view's values any of its rows names."""
    import pyarrow as pa

    there = array.is_valid().to_numpy(zero_copy_only=False)
    starts, sizes = (part.to_numpy()[there] for part in (array.offsets, array.sizes))
    begun = np.zeros(len(array.values) + 1, dtype=np.int64)
    np.add.at(begun, starts, 1)
    np.subtract.at(begun, starts + sizes, 1)
    return pa.array(np.cumsum(begun)[:-1] > 0)


def longest_text(array: pa.Array) -> int:
    """Return the bytes of the longest text of a column, at any depth."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if t.is_struct(kind):
        return max((longest_text(array.field(place)) for place in range(kind.num_fields)), default=0)
    if isinstance(array, pa.ExtensionArray):
        return longest_text(array.storage)
    if t.is_dictionary(kind):
        longest = longest_text(array.dictionary)
        small = longest <= limit("row_bytes")
        return longest if small else longest_text(array.dictionary.take(array.indices.unique().drop_null()))
    if t.is_run_end_encoded(kind):
        return longest_text(array.values)
    if t.is_map(kind):
        ends = array.offsets
        start, stop = ends[0].as_py(), ends[len(array)].as_py()
        return max(longest_text(part.slice(start, stop - start)) for part in (array.keys, array.items))
    if t.is_list_view(kind) or t.is_large_list_view(kind):
        longest = longest_text(array.values)
        # Of what rows share each value is looked at once.
        return longest if longest <= limit("row_bytes") else longest_text(array.values.filter(_named(array)))
    if t.is_list(kind) or t.is_large_list(kind):
        ends = array.offsets
        start, stop = ends[0].as_py(), ends[len(array)].as_py()
        return longest_text(array.values.slice(start, stop - start)) if stop > start else 0
    if t.is_fixed_size_list(kind):
        size = kind.list_size
        return longest_text(array.values.slice(array.offset * size, len(array) * size))
    if t.is_string_view(kind):
        # Arrow measures no views; each is 16 bytes, its length the first four.
        if not len(array):
            return 0
        views = np.frombuffer(array.buffers()[1], np.int32)[4 * array.offset :: 4][: len(array)]
        return int(views[array.is_valid().to_numpy(zero_copy_only=False)].max(initial=0))
    if t.is_string(kind) or t.is_large_string(kind):
        return pc.max(pc.binary_length(array)).as_py() or 0
    return 0


def _check_column(column: pa.Array, name: str, label: str, kind: str, first: int) -> None:
    import pyarrow as pa

    try:
        column.validate(full=True)
        return
    except pa.ArrowInvalid as error:
        reason = str(error)
    if "UTF8" not in reason:
        raise _damaged(label, kind, f"column '{name}': {reason}")
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            column.slice(low, middle - low).validate(full=True)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    raise DataPrunerError(
        f"{label}: row {first + low} holds text that is not UTF-8 in column '{name}'; convert it to UTF-8, or store "
        "it as binary."
    )


def _damaged(label: str, kind: str, reason: str) -> DataPrunerError:
    said = safe_text(" ".join(reason.split()), 160)
    return DataPrunerError(f"{label} is not a whole {kind} file ({said}); write it again.")


def check_dataset(dataset: Dataset, label: str) -> None:
    """Refuse a dataset of `datasets` that was saved by somebody else where its tables are damaged.

    Raises
    ------
    DataPrunerError
        A column is damaged, or the rows' order names a row that is not there.
    """
    import pyarrow.compute as pc

    pages = Pages(dataset)
    check_table(dataset.data.table, label, pages=pages)
    pages.leave()
    order = dataset._indices
    if order is not None and len(order):
        check_table(order.table, label)
        last = pc.max(order.column(0)).as_py()
        if last is None or last >= len(dataset.data) or order.column(0).null_count:
            raise DataPrunerError(
                f"{label} is not a whole saved dataset: its order names row {last} of {len(dataset.data):,}; save it "
                "again."
            )


SECONDS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
EARLIEST, LATEST = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999 in seconds from 1970, which is what Python's calendar has."""
LONGEST = 86_399_999_913_600
"""Seconds of the longest duration that Python has, a little less."""


def check_times(dataset: Dataset, label: str) -> None:
    """Refuse times that no calendar has, such as another tool's infinity: no row that holds one could be read.

    Raises
    ------
    DataPrunerError
        Names the row and the column.
    """
    names = [column.name for column in dataset.features.arrow_schema if _holds_times(column.type)]
    if not names:
        return
    for name in names:
        _check_zones(dataset.data.schema.field(name).type, safe_text(name, 60), label)
    for first, table in blocks(dataset.select_columns(names), 10_000):
        for name in names:
            column = table.column(name)
            if _all_in_range(column):
                continue
            low, high = 0, len(column)
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (
                    (middle, high) if _all_in_range(column.slice(low, middle - low)) else (low, middle)
                )
            raise DataPrunerError(
                f"{label}: row {first + low} holds a time out of range in column '{safe_text(name, 60)}', before "
                "the year 1 or after 9999; make it null, or store the column as integers."
            )


def _check_zones(kind: pa.DataType, name: str, label: str) -> None:
    import pyarrow as pa
    import pyarrow.types as t

    if t.is_nested(kind):
        for place in range(kind.num_fields):
            _check_zones(kind.field(place).type, name, label)
    elif t.is_timestamp(kind) and kind.tz:
        try:
            pa.scalar(0, kind).as_py()
        except (pa.ArrowException, LookupError, ValueError):
            raise DataPrunerError(
                f"{label}: column '{name}' has times of the zone '{safe_text(kind.tz, 60)}', which is not known here; "
                "convert them to UTC."
            ) from None


def _holds_times(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    if t.is_nested(kind):
        return any(_holds_times(kind.field(place).type) for place in range(kind.num_fields))
    return bool(t.is_timestamp(kind) or t.is_date(kind) or t.is_duration(kind))


def _is_readable(array: pa.Array) -> bool:
    try:
        array.to_pylist()
    except (OverflowError, ValueError):
        return False
    return True


def _all_in_range(array: pa.Array) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if isinstance(array, pa.ChunkedArray):
        return all(map(_all_in_range, array.chunks))
    if t.is_struct(kind):
        return all(map(_all_in_range, array.flatten()))
    if t.is_nested(kind):
        try:
            return _all_in_range(array.flatten())
        except (pa.ArrowNotImplementedError, AttributeError):  # maps, and lists of what Arrow cannot filter
            return _is_readable(array)
    if not _holds_times(kind):
        return True
    day = 86_400 if t.is_timestamp(kind) and kind.tz else 0  # a local time may be a day off
    a_second = {"date32[day]": 1 / 86_400, "date64[ms]": 1000}.get(str(kind)) or SECONDS[kind.unit]
    low, high = (-LONGEST, LONGEST) if t.is_duration(kind) else (EARLIEST, LATEST)
    low, high = low + day, high - day
    whole = array.view(pa.int32() if t.is_date32(kind) else pa.int64())
    ends = pc.min_max(whole).as_py()
    return ends["min"] is None or (ends["min"] >= low * a_second and ends["max"] < (high + 1) * a_second)
