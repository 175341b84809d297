"""How large Arrow data becomes whose rows share what is stored once: dictionaries, views, run lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Flags, Floats

if TYPE_CHECKING:
    import pyarrow as pa

DEEPEST = 50
"""Levels of an Arrow type; libraries walk through them by recursion."""


def shares(kind: pa.DataType) -> bool:
    """Whether rows of a type may share what is stored, at any depth."""
    import pyarrow.types as t

    alone = t.is_dictionary(kind) or t.is_run_end_encoded(kind) or t.is_string_view(kind)
    alone |= t.is_binary_view(kind) or t.is_list_view(kind) or t.is_large_list_view(kind)
    return bool(alone) or any(map(shares, _inside(kind)))


def depth(kind: pa.DataType) -> int:
    """Return the levels of a type, counted no further than what is refused; 1 for a text."""
    levels, here = 0, [kind]
    while here and levels <= DEEPEST:
        levels, here = levels + 1, [inner for each in here for inner in _inside(each)]
    return levels


def _inside(kind: pa.DataType) -> list[pa.DataType]:
    import pyarrow as pa
    import pyarrow.types as t

    if isinstance(kind, pa.BaseExtensionType):
        return [kind.storage_type]
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        return [kind.value_type]
    return [kind.field(place).type for place in range(kind.num_fields)]


def unshared(array: pa.Array) -> Floats:
    """Return the bytes of each value once nothing is shared, about; the array has been validated in full."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind, n = array.type, len(array)
    if isinstance(array, pa.ExtensionArray):
        return unshared(array.storage)
    if t.is_dictionary(kind):
        return _of_dictionary(array)
    if t.is_run_end_encoded(kind):
        return _of_runs(array)
    if t.is_string_view(kind) or t.is_binary_view(kind):
        return _of_views(array)
    if t.is_struct(kind):
        return np.asarray(np.sum([np.zeros(n), *map(unshared, array.flatten())], axis=0))
    if t.is_fixed_size_list(kind):
        inner = unshared(array.values[array.offset * kind.list_size :][: n * kind.list_size])
        return np.asarray(inner.reshape(n, kind.list_size).sum(axis=1))
    if t.is_string(kind) or t.is_large_string(kind) or t.is_binary(kind) or t.is_large_binary(kind):
        return np.asarray(pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False), np.float64)
    if t.is_map(kind):
        return _of_lists(array, pa.StructArray.from_arrays([array.keys, array.items], ["k", "v"]))
    if t.is_nested(kind) and not t.is_union(kind):
        return _of_lists(array, array.values)
    try:
        width = kind.bit_width / 8
    except ValueError:  # unions, which no dataset holds
        width = 0.0
    return np.full(n, width)


def _of_dictionary(array: pa.Array) -> Floats:
    """Look sizes up: each value is as large as the entry that it points to; a null points nowhere."""
    import pyarrow as pa
    import pyarrow.compute as pc

    held = np.append(unshared(array.dictionary), 0.0)
    places = pc.fill_null(array.indices.cast(pa.int64()), len(held) - 1)
    return np.asarray(held[places.to_numpy(zero_copy_only=False)])


def _of_runs(array: pa.Array) -> Floats:
    """Look sizes up: each value is as large as that of the run in which it lies."""
    ends = np.asarray(array.run_ends.to_numpy(zero_copy_only=False))
    runs = np.searchsorted(ends, array.offset + np.arange(len(array)), side="right")
    return np.asarray(unshared(array.values)[runs])


def _of_views(array: pa.Array) -> Floats:
    """Take the first of the four numbers that tell where a text or bytes lie: its length."""
    views = np.frombuffer(array.buffers()[1] or b"", dtype=np.int32).reshape(-1, 4)
    return np.asarray(
        np.where(_valid(array), views[array.offset : array.offset + len(array), 0], 0), np.float64
    )


def _of_lists(array: pa.Array, values: pa.Array) -> Floats:
    """Add up the values of each list, wherever they lie."""
    import pyarrow.types as t

    n, valid = len(array), _valid(array)
    before = np.concatenate([[0.0], np.cumsum(unshared(values))])
    offsets = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    if t.is_list_view(array.type) or t.is_large_list_view(array.type):
        starts, ends = offsets[:n], offsets[:n] + array.sizes.to_numpy(zero_copy_only=False)
    else:
        starts, ends = offsets[:-1], offsets[1:]
    return np.asarray(before[np.where(valid, ends, 0)] - before[np.where(valid, starts, 0)])


def _valid(array: pa.Array) -> Flags:
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
