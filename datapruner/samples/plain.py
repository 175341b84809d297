"""Arrow types that are ways to store, turned into those that `datasets` and Parquet hold."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.samples.exact import is_json, json_array
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


def plain(table: pa.Table, source: str) -> pa.Table:
    """Decode dictionaries, views and run lengths; maps become lists of keys and values, empty structs JSON.

    Raises
    ------
    DataPrunerError
        Two columns have one name, or a type has no counterpart.
    """
    import pyarrow as pa

    doubles = sorted(name for name, times in Counter(table.column_names).items() if times > 1)
    if doubles:
        raise DataPrunerError(
            f"{source} has more than one column called '{safe_text(doubles[0], 60)}'; rename one."
        )
    for place, field in enumerate(table.schema):
        name = safe_text(field.name, 60)
        try:
            kind = plain_type(field.type)
            if kind == field.type:
                continue
            column = pa.chunked_array([_as_plain(chunk) for chunk in table.column(place).chunks], kind)
        except (pa.ArrowException, TypeError, ValueError) as error:
            shown = safe_text(str(field.type), 80)
            raise DataPrunerError(
                f"{source}: column '{name}' has the Arrow type {shown}, which a dataset cannot hold; convert or drop"
                " the column."
            ) from error
        table = table.set_column(place, pa.field(field.name, kind), column)
    return table


def say_converted(schema: pa.Schema, source: str) -> None:
    """Say which columns are read as another type than they have, where that shows."""
    import pyarrow as pa

    for field in schema:
        if pa.types.is_map(field.type):
            logger.warning(
                "%s: column '%s' is a %s, which datasets cannot hold: it is read as a list of keys and values",
                safe_text(str(source)),
                safe_text(field.name, 60),
                safe_text(str(field.type), 80),
            )


def is_plain(kind: pa.DataType) -> bool:
    """Whether a column of this type is held as it is."""
    try:
        return bool(plain_type(kind) == kind)
    except TypeError:
        return False


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that a column of this type is read as.

    Raises
    ------
    TypeError
        There is none: unions, intervals, and decimals that count in tens, which Parquet does not have.
    """
    import pyarrow as pa
    import pyarrow.types as t

    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if t.is_string_view(kind):
        return pa.string()
    if t.is_binary_view(kind):
        return pa.binary()
    if t.is_map(kind):
        pair = [("key", plain_type(kind.key_type)), ("value", plain_type(kind.item_type))]
        return pa.list_(pa.struct(pair))
    if t.is_struct(kind):
        if not kind.num_fields:
            return pa.json_()
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    if t.is_list(kind) or t.is_list_view(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)))
    if t.is_large_list(kind) or t.is_large_list_view(kind):
        return pa.large_list(kind.value_field.with_type(plain_type(kind.value_type)))
    if t.is_fixed_size_list(kind):
        # A list of no length at all is one that `datasets` and Parquet do not read back.
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)), kind.list_size or -1)
    if t.is_fixed_size_binary(kind) and not kind.byte_width:
        return pa.binary()
    if t.is_union(kind) or t.is_interval(kind) or (t.is_decimal(kind) and kind.scale < 0):
        raise TypeError(f"{kind} has no counterpart")
    if (
        isinstance(kind, pa.BaseExtensionType)
        and not is_json(kind)
        and type(kind).__module__.startswith("pyarrow")
    ):
        # A UUID, a tensor: what is stored. Arrays of several dimensions are `datasets`' own and stay.
        return plain_type(kind.storage_type)
    return kind


def _as_plain(array: pa.Array) -> pa.Array:
    """Turn an array into its plain type."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind, target = array.type, plain_type(array.type)
    if kind == target:
        return array
    if t.is_dictionary(kind):
        # Arrow decodes no dictionary of views, such as polars' categories.
        return _as_plain(array.dictionary).take(array.indices)
    if t.is_run_end_encoded(kind):
        return _as_plain(pc.run_end_decode(array))
    if isinstance(kind, pa.BaseExtensionType):
        return _as_plain(array.storage)
    if t.is_struct(kind):
        if not kind.num_fields:
            return json_array(array.to_pylist())
        # Flattened, a child has its parent's nulls.
        children = [_as_plain(child) for child in array.flatten()]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=list(target), mask=mask)
    if t.is_map(kind):
        pairs = pa.StructArray.from_arrays(
            [_as_plain(array.keys), _as_plain(array.items)], fields=list(target.value_type)
        )
        return _cut(array, pairs, target)
    if t.is_list_view(kind) or t.is_large_list_view(kind):
        # Views may overlap and lie in any order; flattened, each has its own items.
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        wide = t.is_large_list_view(kind)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64() if wide else pa.int32())
        make = pa.LargeListArray.from_arrays if wide else pa.ListArray.from_arrays
        mask = _copied(array.is_null()) if array.null_count else None
        return make(offsets, _as_plain(array.flatten()), type=target, mask=mask)
    if t.is_list(kind) or t.is_large_list(kind):
        return _cut(array, _as_plain(array.values), target)
    if t.is_fixed_size_list(kind) and not kind.list_size:
        return pa.array([None if missing else [] for missing in array.is_null().to_pylist()], target)
    if t.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(
            _as_plain(array.values[array.offset * kind.list_size :][: len(array) * kind.list_size]),
            type=target,
            mask=array.is_null() if array.null_count else None,
        )
    return array.cast(target)


def _cut(array: pa.Array, inner: pa.Array, target: pa.DataType) -> pa.Array:
    """Cut other values as an array of lists or maps is cut."""
    import pyarrow as pa
    import pyarrow.types as t

    wide = t.is_large_list(target)
    offsets = array.offsets.cast(pa.int64() if wide else pa.int32())
    if offsets.offset:
        offsets = pa.concat_arrays([offsets])
    make: Callable[..., Any] = pa.LargeListArray.from_arrays if wide else pa.ListArray.from_arrays
    if array.null_count:
        return make(_copied(offsets), inner, type=target, mask=_copied(array.is_null()))
    return make(offsets, inner, type=target)


def _copied(array: pa.Array) -> pa.Array:
    """Return an array that starts at its buffer's beginning."""
    import pyarrow as pa

    return pa.array(array.to_numpy(zero_copy_only=False), array.type)
