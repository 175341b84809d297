"""What a table declares and does not hold is found before anything is measured, in whichever format it is written."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

import datapruner as dp
from datapruner.samples import load_samples

FORMATS = ("parquet", "jsonl", "arrow")


def written(tmp_path, column: pa.Array, ending: str = "arrow") -> str:
    table, file = pa.table({"text": ["a", "b", "c"], "other": column}), tmp_path / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_file(str(file), table.schema) as writer:
            writer.write_table(table)
    return str(file)


def as_json(texts: list[str]) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts))


@pytest.mark.parametrize("ending", ["arrow", "parquet"])
@pytest.mark.parametrize("bad", ["{", "[" * 5_000 + "]" * 5_000, "9" * 5_000, r'"\ud800"', "", "{'a': 1}"])
def test_json_that_is_none(tmp_path, ending, bad):
    source = written(tmp_path, as_json(["[1]", bad, "{}"]), ending)
    with pytest.raises(dp.DataPrunerError, match="row 1 holds no valid JSON in column 'other'"):
        load_samples(source)


def test_json_deep_inside_that_is_none(tmp_path):
    inner = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), as_json(["1", "{", "2"]))
    for column in (pa.StructArray.from_arrays([as_json(["1", "{", "2"])], ["x"]), inner):
        with pytest.raises(dp.DataPrunerError, match="holds no valid JSON in column 'other'"):
            load_samples(written(tmp_path, column))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "+25:99", "../../etc/passwd", "\x1b[31m"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_zone_that_is_not_known(tmp_path, zone, deep):
    column = pa.array([0, 1, None], pa.timestamp("us", zone))
    if deep:
        column = pa.StructArray.from_arrays([column], ["at"])
    with pytest.raises(dp.DataPrunerError, match=r"has times of the zone|cannot be held") as told:
        load_samples(written(tmp_path, column))
    assert "\x1b" not in str(told.value)


@pytest.mark.parametrize(
    ("seconds", "zone"), [(253_402_300_799, "Asia/Tokyo"), (-62_135_596_800, "America/New_York")]
)
def test_a_time_that_is_out_of_range_where_its_zone_is(tmp_path, seconds, zone):
    column = pa.array([0, 0, seconds], pa.timestamp("s", zone))
    with pytest.raises(dp.DataPrunerError, match="row 2 holds a time out of range in column 'other'"):
        load_samples(written(tmp_path, column))


@pytest.mark.parametrize("format", FORMATS)
def test_lists_of_no_length_are_lists(tmp_path, format):
    source = written(tmp_path, pa.array([[], None, []], pa.list_(pa.int8(), 0)))
    dp.prune(source, scorer="random", keep=3, format=format, progress=False).save(tmp_path / "out")
    read = (
        pa.ipc.open_stream(str(next((tmp_path / "out/data/train").glob("*.arrow"))))
        .read_all()["other"]
        .to_pylist()
        if format == "arrow"
        else load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "hf"))["other"]
    )
    assert list(read) == [[], None, []]
