"""JSON values as Arrow columns without loss: what a struct would pad or a type would bend is kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

LOW, HIGH = -(2**63), 2**64
"""The integers that `datasets` reads back from JSON."""
DEEP = 12
"""Lists and structs inside each other; what is deeper is JSON, since `datasets` and others walk types by recursion."""


def exact_array(
    values: Sequence[Any],
    *,
    booleans: Callable[[], bool] = lambda: True,
    padded: Callable[[], None] = lambda: None,
) -> pa.Array:
    """Turn a column's values into Arrow so that :func:`decoded` gives equal values.

    Objects that all have the same keys are structs. Objects of differing keys or without keys, and values of
    several kinds inside a list or an object, are JSON, the type that `datasets` gives to such columns of a file of
    JSON lines: a struct would give each object the keys of the others.

    Parameters
    ----------
    values
        A column's values; None is null.
    booleans
        Tells whether there may be a true or false at all, which Arrow reads as 1 or 0 among floats; looking at
        every number of a vector takes time.
    padded
        Called where values that JSON does not know (bytes, dates) are padded after all.

    Raises
    ------
    TypeError, ValueError, OverflowError, pyarrow.ArrowException
        There is no such column: the values are of several kinds, or a number is too large.
    """
    return _built(values, 0, booleans, padded)


def _built(
    values: Sequence[Any], depth: int, booleans: Callable[[], bool], padded: Callable[[], None]
) -> pa.Array:
    import pyarrow as pa

    array: pa.Array | None = None
    reason: Exception | None = None
    try:
        array = pa.array(values, from_pandas=False)
    except UnicodeEncodeError:
        raise
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = error
    if depth > DEEP or (array is not None and depth + _depth(array.type) > DEEP):
        return json_array(values)
    if (
        array is not None
        and (is_whole(array) or _one_shape(values, array.type))
        and not _hides_boolean(values, array.type, booleans)
    ):
        return array
    present = [value for value in values if value is not None]
    kinds = {_kind(value) for value in present}
    if kinds == {list}:
        inner = [item for value in present for item in value]
        return _lists(values, _built(inner, depth + 1, booleans, padded))
    if kinds == {dict} and _same_keys(present):
        names = list(present[0])
        children = [_built([value[name] for value in present], depth + 1, booleans, padded) for name in names]
        return _structs(values, children, names)
    if kinds == {int} and min(present) >= 0:
        return pa.array(values, pa.uint64())
    if not kinds & {list, dict} and not depth:
        raise reason or TypeError("numbers and true or false")
    try:
        return json_array(values)
    except TypeError:
        # Something that JSON does not know (dates, bytes), which is in memory: padded rather than refused.
        if array is None:
            raise
        padded()
        return array


def _kind(value: Any) -> type:
    for kind in (dict, list, bool):
        if isinstance(value, kind):
            return kind
    return list if isinstance(value, tuple) else type(value)


def _depth(kind: pa.DataType) -> int:
    """Count the lists and structs inside each other, a little beyond what counts as deep at most."""
    import pyarrow.types as t

    level, kinds = 0, [kind]
    while level <= DEEP and (kinds := [one for one in kinds if t.is_nested(one)]):
        kinds = [one.field(place).type for one in kinds for place in range(one.num_fields)]
        level += 1
    return level


def is_whole(array: pa.Array) -> bool:
    """Whether no null stands inside a struct, where it may be padding, and no struct is without fields."""
    import pyarrow.types as t

    kind = array.type
    if t.is_struct(kind):
        if not kind.num_fields or _cut_names(kind.names):
            return False
        children = (array.drop_null() if array.null_count else array).flatten()
        return all(not child.null_count and is_whole(child) for child in children)
    return is_whole(array.flatten()) if is_list(kind) else True


def _one_shape(values: Iterable[Any], kind: pa.DataType) -> bool:
    """Whether the objects at each place all have the same keys, so that no null of a struct is padding."""
    import pyarrow.types as t

    held = [value for value in values if value is not None]
    if is_list(kind):
        return not t.is_nested(kind.value_type) or _one_shape(
            [item for value in held for item in value], kind.value_type
        )
    if not t.is_struct(kind):
        return True
    return _same_keys(held) and all(
        not t.is_nested(field.type) or _one_shape([value[field.name] for value in held], field.type)
        for field in kind
    )


def _same_keys(objects: Sequence[Any]) -> bool:
    """Whether objects have the same keys, at least one, each of which may name a field."""
    if not objects:
        return False
    keys = objects[0].keys()
    return bool(keys) and not _cut_names(keys) and all(one.keys() == keys for one in objects)


def _cut_names(names: Iterable[str]) -> bool:
    """Whether a name has a NUL character, where Arrow cuts it as soon as another library is handed it."""
    return any("\0" in name for name in names)


def _hides_boolean(values: Sequence[Any], kind: pa.DataType, booleans: Callable[[], bool]) -> bool:
    """Whether Arrow read a true or false as a number."""
    import pyarrow.types as t

    return _has_floats(kind) and (t.is_floating(kind) or booleans()) and _holds_boolean(values, kind)


def _holds_boolean(values: Iterable[Any], kind: pa.DataType) -> bool:
    import pyarrow.types as t

    if t.is_floating(kind):
        return bool in set(map(type, values))
    held = [value for value in values if value is not None]
    if t.is_struct(kind):
        inner = [([value[field.name] for value in held], field.type) for field in kind]
        return any(_has_floats(found) and _holds_boolean(items, found) for items, found in inner)
    return any(_holds_boolean(value, kind.value_type) for value in held)


def _has_floats(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    if t.is_floating(kind):
        return True
    return t.is_nested(kind) and any(_has_floats(kind.field(i).type) for i in range(kind.num_fields))


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of items."""
    import pyarrow.types as t

    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def is_json(kind: pa.DataType) -> bool:
    """Whether a type is JSON text."""
    import pyarrow as pa

    return isinstance(kind, pa.JsonType)


def holds_json(kind: pa.DataType) -> bool:
    """Whether a type is JSON text, or has JSON text inside."""
    import pyarrow.types as t

    if is_json(kind):
        return True
    return t.is_nested(kind) and any(holds_json(kind.field(i).type) for i in range(kind.num_fields))


def json_array(values: Iterable[Any]) -> pa.Array:
    """Write values as JSON text; None is null."""
    import pyarrow as pa

    texts = []
    for value in values:
        _check(value)
        texts.append(None if value is None else _ENCODER.encode(value))
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


def _listed(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy and torch
        return value.tolist()
    raise TypeError(f"JSON has no {type(value).__name__}")


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False, default=_listed
)


def _check(value: Any) -> None:
    """Refuse what JSON or its readers would change: keys that are no texts, integers beyond 64 bits."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a text")
            _check(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check(item)
    elif type(value) is int and not LOW <= value < HIGH:
        raise OverflowError("an integer beyond 64 bits")


def _lists(values: Sequence[Any], inner: pa.Array) -> pa.Array:
    """Cut an array of items into lists as long as ``values`` are."""
    import pyarrow as pa

    offsets, end = [], 0
    for value in values:
        offsets.append(end)
        end += 0 if value is None else len(value)
    mask = pa.array([value is None for value in values], pa.bool_())
    wide = end >= 2**31
    kind = pa.LargeListArray if wide else pa.ListArray
    return kind.from_arrays(
        pa.array([*offsets, end], pa.int64() if wide else pa.int32()),
        inner,
        mask=mask if mask.true_count else None,
    )


def _structs(values: Sequence[Any], children: list[pa.Array], names: list[str]) -> pa.Array:
    """Join the columns of the objects among ``values``; the other values are null."""
    import pyarrow as pa

    held = pa.StructArray.from_arrays(children, names)
    if len(held) == len(values):
        return held
    places = iter(range(len(held)))
    return held.take(pa.array([None if value is None else next(places) for value in values], pa.int64()))


def typed(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Turn values into an array of a type that may hold JSON."""
    import pyarrow as pa
    import pyarrow.types as t

    if is_json(kind):
        return json_array(values)
    if not holds_json(kind) and not t.is_struct(kind):
        return pa.array(values, kind)
    present = [value for value in values if value is not None]
    if t.is_struct(kind):
        children = [typed([value[field.name] for value in present], field.type) for field in kind]
        return _structs(values, children, kind.names)
    return _lists(values, typed([item for value in present for item in value], kind.value_type))


def as_type(array: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Bring an array to a type that :func:`merged` gave."""
    import pyarrow as pa

    if array.type == kind:
        return array
    try:
        if not holds_json(kind):
            return array.cast(kind)
    except pa.ArrowException:
        if not pa.types.is_nested(kind):
            raise
    return typed(decoded(array), kind)


def merged(first: pa.DataType, second: pa.DataType, *, top: bool = True) -> pa.DataType:
    """Return the type that holds the values of two exact arrays.

    Raises
    ------
    TypeError
        They are columns of different kinds, such as numbers and texts.
    """
    import pyarrow as pa
    import pyarrow.types as t

    if first == second or t.is_null(second):
        return first
    if t.is_null(first):
        return second
    if is_list(first) and is_list(second):
        inner = merged(first.value_type, second.value_type, top=False)
        return pa.large_list(inner) if t.is_large_list(first) or t.is_large_list(second) else pa.list_(inner)
    if t.is_struct(first) and t.is_struct(second) and {*first.names} == {*second.names}:
        return pa.struct(
            [(field.name, merged(field.type, second.field(field.name).type, top=False)) for field in first]
        )
    if any(t.is_nested(kind) or is_json(kind) for kind in (first, second)):
        return pa.json_()
    if {first, second} == {pa.int64(), pa.uint64()}:
        # Together they would be floats to Arrow.
        return pa.uint64()
    try:
        schemas = [pa.schema([("", first)]), pa.schema([("", second)])]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        if top:
            raise TypeError(f"{first} and {second}") from None
        return pa.json_()


def decoded(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return a column as Python objects; JSON text, wherever it stands, is what it says."""
    values: list[Any] = column.to_pylist()
    decode = decoder(column.type)
    return values if decode is None else [decode(value) for value in values]


def decoder(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """Return a function that decodes a value's JSON text; None where the type holds none."""
    import pyarrow.types as t

    if not holds_json(kind):
        return None
    if is_json(kind):
        return lambda value: None if value is None else json.loads(value)
    if t.is_struct(kind):
        inner = {field.name: found for field in kind if (found := decoder(field.type)) is not None}

        def of_struct(value: Any) -> Any:
            if value is not None:
                for name, found in inner.items():
                    value[name] = found(value[name])
            return value

        return of_struct
    item = decoder(kind.value_type)
    assert item is not None
    return lambda value: None if value is None else [item(one) for one in value]
