"""Arrow data whose buffers do not hold what they say is refused before any of it is read."""

from __future__ import annotations

import datetime
import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

import datapruner as dp
from datapruner.samples import load_samples
from datapruner.samples.shared import unshared
from datapruner.samples.sound import check_table

FAR = 1_900_000_000
N = 8


def offsets(place: int, value: int, kind: type = np.int32) -> pa.Buffer:
    held = np.arange(N + 1, dtype=kind) * 10
    held[place] = value
    return pa.py_buffer(held.tobytes())


def damaged(what: str) -> pa.Array:
    data = pa.py_buffer(b"x" * 10 * N)
    if what == "text far away":
        return pa.StringArray.from_buffers(N, offsets(5, FAR), data)
    if what == "text backwards":
        return pa.StringArray.from_buffers(N, offsets(5, 10), data)
    if what == "text before the start":
        return pa.StringArray.from_buffers(N, offsets(1, -FAR), data)
    if what == "large text":
        return pa.LargeStringArray.from_buffers(N, offsets(3, 1 << 60, np.int64), data)
    if what == "bytes":
        return pa.Array.from_buffers(pa.binary(), N, [None, offsets(N - 1, FAR), data])
    inner = pa.array(list(range(10 * N)), pa.int64())
    if what == "list":
        return pa.Array.from_buffers(pa.list_(pa.int64()), N, [None, offsets(4, FAR)], children=[inner])
    if what == "text in a list":
        texts = pa.StringArray.from_buffers(N, offsets(5, FAR), data)
        return pa.ListArray.from_arrays(pa.array(range(N + 1), pa.int32()), texts)
    if what == "text in an object":
        return pa.StructArray.from_arrays([pa.StringArray.from_buffers(N, offsets(5, FAR), data)], ["x"])
    if what == "dictionary":
        codes = pa.array([0, 1, FAR, 0, 1, 0, 1, 0], pa.int32())
        return pa.DictionaryArray.from_arrays(codes, pa.array(["a", "b"]), safe=False)
    views = np.zeros((N, 4), dtype=np.int32)
    views[:, 0] = 3
    views[2] = (100, 0, 7, FAR)  # length, prefix, number of its buffer, offset
    return pa.Array.from_buffers(pa.string_view(), N, [None, pa.py_buffer(views.tobytes()), data])


KINDS = (
    "text far away", "text backwards", "text before the start", "large text", "bytes", "list", "text in a list",
    "text in an object", "dictionary", "view",
)  # fmt: skip


def write(array: pa.Array, file: Path) -> Path:
    table = pa.table({"id": [f"row {i}" for i in range(len(array))], "text": array})
    opened = pa.ipc.new_file if "file" in file.name else pa.ipc.new_stream
    held = pa.BufferOutputStream()
    with opened(held, table.schema) as writer:
        writer.write_table(table)
    raw = held.getvalue().to_pybytes()
    file.write_bytes(gzip.compress(raw) if file.suffix == ".gz" else raw)
    return file


@pytest.mark.parametrize("name", ["file.arrow", "stream.arrow", "stream.arrow.gz"])
@pytest.mark.parametrize("what", KINDS)
def test_a_damaged_column_is_named_with_its_file(tmp_path, what, name):
    file = write(damaged(what), tmp_path / name)
    with pytest.raises(
        dp.DataPrunerError, match=rf"{name} is not a whole Arrow file \((column 'text': )?.+\)"
    ):
        load_samples(str(file))


def test_only_a_later_block_is_damaged(tmp_path):
    sound = pa.RecordBatch.from_arrays([pa.array(["a" * 10] * N)], ["text"])
    bad = pa.RecordBatch.from_arrays([damaged("text far away")], ["text"])
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), sound.schema) as writer:
        for batch in (sound, sound, bad):
            writer.write_batch(batch)
    with pytest.raises(dp.DataPrunerError, match="column 'text'"):
        load_samples(str(tmp_path / "a.arrow"))


def test_a_saved_folder(tmp_path):
    Dataset.from_dict({"text": ["a"] * N}).save_to_disk(tmp_path / "held")
    write(damaged("text far away"), next((tmp_path / "held").glob("*.arrow")))
    told = tmp_path / "held" / "dataset_info.json"
    value = {"dtype": "string", "_type": "Value"}
    told.write_text(json.dumps({**json.loads(told.read_text()), "features": {"id": value, "text": value}}))
    with pytest.raises(dp.DataPrunerError, match="held is not a whole Arrow file"):
        load_samples(str(tmp_path / "held"))


@pytest.mark.parametrize("row", [0, 1, 4_321, 9_999])
@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow"])
def test_text_that_is_not_utf8_names_its_row(tmp_path, row, name):
    texts = [b"good text %d" % i for i in range(10_000)]
    texts[row] = b"caf\xe9"
    array = pa.array(texts, pa.binary())
    array = pa.Array.from_buffers(pa.string(), len(array), array.buffers())
    table = pa.table({"text": ["x"] * len(array), "note": array})
    if name == "a.parquet":
        pq.write_table(table, tmp_path / name, row_group_size=1000)
    else:
        with pa.ipc.new_stream(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
    with pytest.raises(
        dp.DataPrunerError, match=rf"{name}: row {row} holds text that is not UTF-8 in column 'note'"
    ):
        load_samples(str(tmp_path / name))


def test_whole_tables_pass():
    table = pa.table({
        "a": ["x", None, "é"], "b": [[1], [], None], "c": [{"d": "e"}, None, {"d": None}],
        "f": pa.array(["x", "y", None]).dictionary_encode(), "g": pa.array(["x" * 20, None, ""], pa.string_view()),
        "h": [b"\xff", None, b""],
    })  # fmt: skip
    check_table(table, "it")
    check_table(table.slice(1), "it")
    check_table(table.slice(0, 0), "it")


INSIDE = {
    "timestamp": pa.timestamp("us"),
    "seconds": pa.timestamp("s"),
    "day": pa.date32(),
    "day64": pa.date64(),
    "duration": pa.duration("s"),
    "zone": pa.timestamp("ms", "UTC"),
}


def times(kind: pa.DataType, value: int | None, *, deep: bool, row: int = 700) -> pa.Array:
    held: list[int | None] = [None, *([0] * 999)]
    held[row] = value
    array = pa.array(held, pa.int32() if kind == pa.date32() else pa.int64()).view(kind)
    if not deep:
        return array
    inner = pa.StructArray.from_arrays([array], ["t"])
    return pa.ListArray.from_arrays(pa.array(range(1001), pa.int32()), inner)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("value", [2**60, -(2**60)])
@pytest.mark.parametrize("name", INSIDE)
def test_times_that_no_calendar_has_name_their_row(tmp_path, name, value, deep):
    kind = INSIDE[name]
    if kind == pa.date32():
        value = value >> 30
    if kind == pa.date64():
        value = value // 86_400_000 * 86_400_000
    array = times(kind, value, deep=deep)
    with pytest.raises((OverflowError, ValueError)):
        array.to_pylist()  # what the row's reader would meet
    file = tmp_path / "stream.arrow"
    table = pa.table({"text": [f"row {i}" for i in range(len(array))], "when": array})
    with pa.ipc.new_stream(str(file), table.schema) as writer:
        writer.write_table(table)
    wanted = "row 700 holds a time out of range in column 'when'"
    with pytest.raises(dp.DataPrunerError, match=wanted):
        load_samples(str(file))
    with pytest.raises(dp.DataPrunerError, match=wanted):
        load_samples(table)
    with pytest.raises(dp.DataPrunerError, match="row 0 holds a time"):
        load_samples(Dataset(table).select([700, 3]))
    assert len(load_samples(Dataset(table).select([3, 4]))) == 2


@pytest.mark.parametrize("deep", [False, True])
def test_the_first_and_the_last_moment_of_the_calendar_are_read(deep):
    kind = pa.timestamp("us")
    for moment in (datetime.datetime.min, datetime.datetime.max):
        value = pa.array([moment], kind).view(pa.int64())[0].as_py()
        table = pa.table({"text": ["x"] * 1000, "when": times(kind, value, deep=deep)})
        assert len(load_samples(table)) == 1000


# --- what is small and becomes large ------------------------------------------------------------------------


def sharing(kind: str, n: int, size: int) -> pa.Array:
    """n values of one size, of which one is stored."""
    text = "x" * size
    if kind == "dictionary":
        return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([text]))
    if kind == "run lengths":
        return pa.RunEndEncodedArray.from_arrays(pa.array([n], pa.int32()), pa.array([text]))
    if kind == "view":
        views = pa.py_buffer(struct.pack("<i4sii", size, b"xxxx", 0, 0) * n)
        return pa.Array.from_buffers(pa.string_view(), n, [None, views, pa.py_buffer(text.encode())])
    if kind == "list view":
        starts, sizes = (pa.py_buffer(np.full(n, each, np.int32)) for each in (0, size // 1024))
        inner = pa.array([bytes(1024)] * (size // 1024), pa.binary(1024))
        return pa.Array.from_buffers(pa.list_view(inner.type), n, [None, starts, sizes], children=[inner])
    return pa.StructArray.from_arrays([sharing("dictionary", n, size), pa.array([1] * n)], ["a", "b"])


@pytest.mark.parametrize("kind", ["dictionary", "run lengths", "view", "list view", "struct"])
def test_what_rows_share_is_counted_for_each(tmp_path, kind):
    table = pa.table({"text": ["x"] * 2000, "held": sharing(kind, 2000, 1 << 20)})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert (tmp_path / "a.arrow").stat().st_size < 3 << 20
    usual, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    try:
        with pytest.raises(dp.DataPrunerError, match="shared_ratio"):
            load_samples(str(tmp_path / "a.arrow"))
    finally:
        pa.set_memory_pool(usual)
    assert counted.max_memory() < 16 << 20  # of 2 GB
    table = pa.table({"text": ["x"] * 3, "held": sharing(kind, 3, 33 << 20)})
    with pytest.raises(dp.DataPrunerError, match=r"row 0, column 'held'.*row_bytes"):
        check_table(table, "it")


def test_of_a_list_view_what_no_row_names_is_not_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv("DATAPRUNER_MAX_ROW_BYTES", "1000000")
    inner = pa.array(["a", "x" * 2_000_000, "b", "c"])

    def made(*rows):
        starts, sizes = (pa.array(of, pa.int32()) for of in zip(*rows, strict=True))
        views = pa.ListViewArray.from_arrays(starts, sizes, inner)
        return pa.table({"text": ["x"] * len(rows), "held": views}).slice(1)

    check_table(made((1, 1), (2, 2), (0, 1), (3, 0)), "it")  # the first is cut away
    for rows in (((0, 1), (2, 2), (0, 2)), ((0, 1), (0, 4), (1, 1))):
        at = 1 if rows[1] == (2, 2) else 0
        with pytest.raises(dp.DataPrunerError, match=rf"row {at}, column 'held', holds a text of more bytes"):
            check_table(made(*rows), "it")


LOGICAL = {
    "texts": pa.array(["ab", None, "c", ""]),
    "dictionary": pa.array(["ab", None, "c", "ab"]).dictionary_encode(),
    "views": pa.array(["ab", None, "c" * 50, ""], pa.string_view()),
    "lists": pa.array([["ab", "c"], None, [], ["d"]]),
    "list views": pa.array([["ab", "c"], None, [], ["d"]], pa.list_view(pa.string())),
    "fixed lists": pa.array([["a", "bc"], ["", ""], ["d", "e"], ["f", "g"]], pa.list_(pa.string(), 2)),
    "structs": pa.array([{"a": "ab", "b": 1}, {"a": None, "b": 2}, {"a": "c", "b": 3}, {"a": "", "b": 4}]),
    "maps": pa.array([[("a", "bc")], None, [], [("d", ""), ("e", "f")]], pa.map_(pa.string(), pa.string())),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1, 4], pa.int32()), pa.array(["ab", "c"])),
}


@pytest.mark.parametrize("cut", [slice(0, 4), slice(1, 3)])
@pytest.mark.parametrize("kind", LOGICAL)
def test_the_size_of_values_is_that_of_what_python_reads(kind, cut):
    def size(value) -> int:
        if isinstance(value, str):
            return len(value)
        if isinstance(value, dict):
            return sum(map(size, value.values()))
        return sum(map(size, value)) if isinstance(value, list | tuple) else 8 * isinstance(value, int)

    array = LOGICAL[kind][cut]
    assert unshared(array).tolist() == [size(value) for value in array.to_pylist()]


def test_a_type_without_end_is_refused(tmp_path):
    kind, deep = pa.int64(), pa.int64()
    for _ in range(60):
        deep = pa.list_(deep)
    for _ in range(20):
        kind = pa.list_(kind)
    for each, refused in ((kind, False), (deep, True)):
        table = pa.table({"text": ["a", "b"], "held": pa.nulls(2, each)})
        with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
            writer.write_table(table)
        if refused:
            with pytest.raises(dp.DataPrunerError, match="'held' is nested more than 50 levels deep"):
                load_samples(str(tmp_path / "a.arrow"))
        else:
            assert len(load_samples(str(tmp_path / "a.arrow"))) == 2


@pytest.mark.parametrize("kind", [pa.decimal256(76, -70), pa.decimal128(3, -1)])
def test_what_parquet_cannot_write_is_said_before_anything_is_measured(kind):
    with pytest.raises(dp.DataPrunerError, match="'held' has the Arrow type decimal"):
        load_samples(pa.table({"text": ["a"], "held": pa.nulls(1, kind)}))
    assert len(load_samples(pa.table({"text": ["a"], "held": pa.nulls(1, pa.binary(0))}))) == 1


@pytest.mark.parametrize(
    "said",
    [
        b'{"info":' + b"[" * 100_000,
        b"[]",
        b"\xff",
        b'{"info": {"features": 3}}',
        b'{"info": {"features": {"text": []}}}',
        b'{"info": {"features": {"text": [[]]}}}',
        b'{"info": {"features": {"text": {}}}}',
        b'{"info": {"features": {"text": {"_type": "Value"}}}}',
    ],
)
def test_metadata_that_is_none_of_datasets_own(tmp_path, said):
    table = pa.table({"text": ["a", "b"]}).replace_schema_metadata({b"huggingface": said})
    pq.write_table(table, tmp_path / "a.parquet")
    try:
        assert load_samples(str(tmp_path / "a.parquet")).texts() == ["a", "b"]
    except dp.DataPrunerError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "said", ['{"splits": ["../other"]}', '{"splits": ["%s"]}', "[" * 100_000, '{"splits": 3}']
)
def test_a_saved_folder_whose_splits_lie_elsewhere(tmp_path, said):
    Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(tmp_path / "other")
    (tmp_path / "held").mkdir()
    (tmp_path / "held/dataset_dict.json").write_text(said.replace("%s", str(tmp_path / "other")))
    with pytest.raises(
        dp.DataPrunerError, match="outside of it" if "other" in said or "%s" in said else "cannot be"
    ):
        load_samples(str(tmp_path / "held"))
