"""A hash of a dataset's logical content: the same rows give the same hash, however they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapruner.files.mapped import blocks

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

SLICE = 2_000
MEDIA = 50
"""Rows of images or sound in memory at a time."""


def content_hash(dataset: Dataset) -> str:
    """Return xxh3_128 (hex) of a dataset's columns, types and values in row order.

    Chunks, files, offsets, what lies under a null and the width of Arrow's offsets do not matter; an indices
    mapping is respected. Each column is a few streams (which values are null, lengths, bytes), each with its
    own hash, so that it does not matter either where a stream is cut.
    """
    import xxhash

    media = any(_is_media(feature) for feature in dataset.features.values())
    step = MEDIA if media else SLICE
    types = {field.name: _type_name(field.type) for field in dataset.features.arrow_schema}
    streams = _Streams()
    for _, rows in blocks(dataset, step):
        table = _with_bytes(rows, dataset) if media else rows
        for place, name in enumerate(table.column_names):
            types[name] = _type_name(table.column(name).type)
            column = table.column(name)
            # An indices mapping gives a chunk a row.
            for chunk in column.chunks if column.num_chunks < 100 else [column.combine_chunks()]:
                _feed(streams, str(place), chunk)
    whole = xxhash.xxh3_128(f"{len(dataset)} {len(types)}".encode())
    for header in [f"{name}\0{types[name]}".encode() for name in dataset.column_names]:
        whole.update(len(header).to_bytes(8, "little") + header)
    for path in sorted(streams):
        whole.update(path.encode() + b"\0" + streams[path].digest())
    return whole.hexdigest()


def _is_media(feature: Any) -> bool:
    from datasets import Audio, Image

    return isinstance(getattr(feature, "feature", feature), (Audio, Image))


def _with_bytes(table: pa.Table, dataset: Dataset) -> pa.Table:
    """Read images and sound that are but named: their content counts, and not where they lie."""
    from datasets.table import embed_table_storage

    return embed_table_storage(table.cast(dataset.features.arrow_schema))


class _Streams(dict[str, Any]):
    """One running hash for each stream of values."""

    def __missing__(self, path: str) -> Any:
        import xxhash

        self[path] = xxhash.xxh3_128()
        return self[path]


def _type_name(kind: pa.DataType) -> str:
    """Return a type's name without what storage decides: offset width, list item names, dictionaries."""
    import pyarrow as pa
    import pyarrow.types as t

    if isinstance(kind, pa.BaseExtensionType):
        return _type_name(kind.storage_type)
    if t.is_dictionary(kind):
        return _type_name(kind.value_type)
    if t.is_struct(kind):
        inner = ",".join(f"{field.name}:{_type_name(field.type)}" for field in kind)
        return f"struct<{inner}>"
    if t.is_fixed_size_list(kind):
        return f"list{kind.list_size}<{_type_name(kind.value_type)}>"
    if t.is_list(kind) or t.is_large_list(kind):
        return f"list<{_type_name(kind.value_type)}>"
    if t.is_large_string(kind):
        return "string"
    if t.is_large_binary(kind):
        return "binary"
    return str(kind)


def _feed(streams: _Streams, path: str, array: pa.Array) -> None:
    """Feed one array: which values are null, and the values that are not."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _feed(streams, path, array.storage)
    if t.is_dictionary(kind):
        return _feed(streams, path, array.dictionary_decode())
    streams[path + "?"].update(array.is_valid().to_numpy(zero_copy_only=False))
    if t.is_null(kind):
        return None
    if array.null_count:
        # Whatever bytes lie under a null are storage, not content.
        array = array.drop_null()
    if t.is_struct(kind):
        for place, child in enumerate(array.flatten()):
            _feed(streams, f"{path}.{place}", child)
    elif t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        streams[path + "#"].update(
            pc.list_value_length(array).cast(pa.int64()).to_numpy(zero_copy_only=False)
        )
        _feed(streams, path + "[]", array.flatten())
    elif t.is_string(kind) or t.is_large_string(kind) or t.is_binary(kind) or t.is_large_binary(kind):
        streams[path + "#"].update(pc.binary_length(array).cast(pa.int64()).to_numpy(zero_copy_only=False))
        streams[path].update(_payload(array))
    elif t.is_boolean(kind):
        streams[path].update(array.to_numpy(zero_copy_only=False))
    elif t.is_primitive(kind) and kind.bit_width in (8, 16, 32, 64):
        # Numbers and times alike: their bits, so that NaN and -0.0 are what they are.
        if len(array):
            values = np.frombuffer(array.buffers()[1], dtype=np.uint8)
            size = kind.bit_width // 8
            streams[path].update(values[array.offset * size : (array.offset + len(array)) * size])
    else:
        # Decimals, unions, maps and what is rarer still: slow, and as exact.
        for value in array.to_pylist():
            streams[path].update(repr(value).encode("utf-8", "surrogatepass") + b"\0")
    return None


def _payload(array: pa.Array) -> Any:
    """Return the bytes of a string or binary array without nulls."""
    import numpy as np
    import pyarrow.types as t

    _, offsets, data = array.buffers()
    if data is None or not len(array):
        return b""
    wide = t.is_large_string(array.type) or t.is_large_binary(array.type)
    ends = np.frombuffer(offsets, dtype=np.int64 if wide else np.int32)
    return memoryview(data)[int(ends[array.offset]) : int(ends[array.offset + len(array)])]
