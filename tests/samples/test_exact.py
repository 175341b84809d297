"""Whatever JSON lines hold comes back: read, written, and read again by `datasets`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from datasets import Dataset, Features, load_dataset
from datasets.table import InMemoryTable
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.outputs.data_files import write_split
from datapruner.samples import load_samples
from datapruner.samples.exact import as_type, decoded, exact_array, merged
from datapruner.samples.portable import check_format
from datapruner.samples.rows import count_keys
from datapruner.samples.sample import Layout
from datapruner.samples.samples import Samples
from tests.conftest import examples

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    [
        ":",
        " :",
        "\0",
        "2021-03-04",
        "null",
        "12",
        '{"a": 1}',
        "[]",
        '"',
        "\\",
        'a\\": 1',
        "\u2028",
        "",
        "true",
        "😀",
    ]
)
KEYS = st.sampled_from(["a", "b", 'c"', "d\\", "e:", "ключ"]) | TEXTS
WHOLE = st.integers(-(2**63), 2**64 - 1)
# Decimals that survive a decimal of ten digits, which is what `datasets` leaves of numbers beside JSON columns.
FRACTION = st.integers(-(10**6), 10**6).map(lambda number: number / 64)
SCALAR = st.none() | st.booleans() | WHOLE | FRACTION | TEXTS
INNER = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
NESTED = st.lists(INNER, max_size=3) | st.dictionaries(KEYS, INNER, max_size=3)
COLUMNS = {
    "text": TEXTS,
    "nested": NESTED,
    "other": st.none() | NESTED,
    "whole": st.none() | st.integers(0, 2**64 - 1),
    "signed": st.none() | st.integers(-(2**63), 2**63 - 1),
    "fraction": st.none() | FRACTION,
    "flag": st.none() | st.booleans(),
    "name": st.none() | TEXTS,
}
ROW = st.fixed_dictionaries(
    {"text": COLUMNS["text"]}, optional={name: kind for name, kind in COLUMNS.items() if name != "text"}
)


def same(left, right, *, close: bool = False) -> bool:
    """Whether two JSON values are equal, true not being 1; numbers that are equal are, or, if ``close``, nearly."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key], close=close) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(
            same(one, other, close=close) for one, other in zip(left, right, strict=True)
        )
    if close and isinstance(left, float) and isinstance(right, float):
        return left == pytest.approx(right, rel=1e-12)
    return (isinstance(left, bool) is isinstance(right, bool)) and left == right


def written(samples, folder: Path, format: str) -> tuple[Path, dict]:
    check_format(samples, format)
    file = folder / f"train.{format}"
    said = write_split(
        samples.dataset, file, format, samples.given_nulls.get("train"), np.arange(len(samples))
    )
    return file, said


def loaded(folder: Path, file: Path, said: dict) -> list[dict]:
    """Read a file as `load_dataset` reads a result, in a cache of its own."""
    config = {"config_name": "default", "data_files": [{"split": "train", "path": file.name}]}
    front = {"configs": [config | {key: value for key, value in said.items() if key != "features"}]}
    if "features" in said:
        front["dataset_info"] = [{"config_name": "default", "features": said["features"]}]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n", encoding="utf-8")
    return load_dataset(str(folder), split="train", cache_dir=str(folder / "cache")).to_list()


def padded(rows: list[dict]) -> list[dict]:
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


@given(rows=st.lists(ROW, min_size=1, max_size=6), block=st.integers(1, 3), spilled=st.booleans())
@settings(max_examples=examples(60), deadline=None)
def test_json_lines_come_back_line_by_line(tmp_path_factory, rows, block, spilled):
    folder = tmp_path_factory.mktemp("exact")
    source = folder / "in.jsonl"
    source.write_text(
        "".join(json.dumps(row, ensure_ascii=len(rows) % 2 == 0) + "\n" for row in rows), "utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datapruner.samples.readers.BLOCK_ROWS", block)
        if spilled:
            patch.setattr("datapruner.samples.tables.IN_MEMORY_BYTES", 0)
        for given_rows in (source, rows):
            samples = load_samples(given_rows)
            file, _ = written(samples, folder, "jsonl")
            again = [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]
            assert same(again, rows)
            table = samples.dataset.with_format("arrow")[:]
            cells = zip(*map(decoded, table.columns), strict=True)
            assert same([dict(zip(table.column_names, row, strict=True)) for row in cells], padded(rows))


@given(rows=st.lists(ROW, min_size=1, max_size=4))
@settings(max_examples=12, deadline=None)
@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_load_dataset_gives_the_rows(tmp_path_factory, format, rows):
    folder = tmp_path_factory.mktemp("loads")
    samples = load_samples(rows)
    file, said = written(samples, folder, format)
    # `datasets` reads numbers inside of JSON values to some 15 digits.
    assert same(loaded(folder, file, said), padded(rows), close=True)


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.parametrize("nested", [[[False, "0"]], [True, "true", "null"], {"a": [1, "1"]}])
def test_texts_that_are_json_stay_texts(tmp_path, format, nested):
    rows = [{"text": "a", "nested": nested}, {"text": "b", "nested": None}]
    file, said = written(load_samples(rows), tmp_path, format)
    assert same(loaded(tmp_path, file, said), rows)


@given(first=st.lists(st.none() | NESTED, max_size=4), second=st.lists(st.none() | NESTED, max_size=4))
@settings(max_examples=examples(150), deadline=None)
def test_blocks_of_other_types_are_merged_without_loss(first, second):
    arrays = [exact_array(first), exact_array(second)]
    kind = merged(arrays[0].type, arrays[1].type)
    assert same([*decoded(as_type(arrays[0], kind)), *decoded(as_type(arrays[1], kind))], [*first, *second])


def strings(held) -> list[str]:
    if isinstance(held, dict):
        return [*held, *(said for inner in held.values() for said in strings(inner))]
    if isinstance(held, list):
        return [said for inner in held for said in strings(inner)]
    return [held] if isinstance(held, str) else []


@given(
    value=NESTED,
    indent=st.sampled_from([None, 1]),
    colon=st.sampled_from([":", ": ", " : ", "\t:", "\r\n :"]),
)
@settings(max_examples=examples(300), deadline=None)
def test_keys_are_counted_in_the_text(value, indent, colon):
    def keys(held) -> int:
        if isinstance(held, dict):
            return len(held) + sum(map(keys, held.values()))
        return sum(map(keys, held)) if isinstance(held, list) else 0

    text = json.dumps({"x": value}, indent=indent, separators=(",", colon), ensure_ascii=False)
    # A string that begins with a colon looks like a key: the count may be too high, never too low.
    assert count_keys(text.encode()) >= 1 + keys(value)
    if not any(said.lstrip(" ").startswith(":") for said in strings(value)):
        assert count_keys(text.encode()) == 1 + keys(value)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"text": "b", "text": "c"}', "text"),
        ('{"text": "b", "m": [{"x": 1, "y": {"z\\\\": 1, "z\\\\": 2}}]}', "z"),
        ('{"text" : "\\"q\\": ", "m": {"x": 1, "\\u0078": 2}}', "x"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_key_that_is_there_twice_is_named_with_its_line(tmp_path, name, line, key):
    path = tmp_path / name
    path.write_text('{"text": "says \\"a\\": 1"}\n\n' + line + '\n{"text": "d", "m": [{"x": {}}]}\n')
    with pytest.raises(DataPrunerError, match=rf"{name}, line 3 has the key '{key}.*' twice"):
        load_samples(path)


def test_what_a_struct_would_pad_is_json():
    rows = [
        {"text": "a", "same": {"x": 1}, "empty": {}, "calls": [{"name": "f", "arguments": {"x": 1}}]},
        {"text": "b", "same": {"x": 2}, "empty": {}, "calls": [{"name": "g", "arguments": {"y": None}}]},
    ]
    samples = load_samples(rows)
    assert {name: str(kind) for name, kind in samples.dataset.features.items()} == {
        "text": "Value('string')",
        "same": "{'x': Value('int64')}",
        "empty": "Json(decode=True)",
        "calls": "List({'name': Value('string'), 'arguments': Json(decode=True)})",
    }
    assert samples.dataset.to_list() == rows


def test_numbers_that_fit_no_column_are_told(tmp_path):
    path = tmp_path / "a.jsonl"
    for line, message in (
        ('{"text": "b", "n": -1}', "line 2: column 'n' holds integers below 0 and from 2\\^63 on"),
        ('{"text": "b", "m": {"x": 18446744073709551616, "y": null}}', "line 2: column 'm' .* 64 bits"),
        ('{"text": "b", "m": [{"x": NaN}, {"y": 1}]}', "line 2: column 'm' holds NaN"),
        ('{"text": "b", "n": "x"}', "line 2: column 'n' holds str where earlier rows hold int"),
    ):
        path.write_text('{"text": "a", "n": 18446744073709551615}\n' + line + "\n")
        with pytest.raises(DataPrunerError, match=message):
            load_samples(path)
    path.write_text('{"text": "a", "n": 18446744073709551615}\n{"text": "b", "n": 2}\n')
    assert load_samples(path).column("n") == [2**64 - 1, 2]


def test_values_that_json_does_not_know_stay_in_a_struct():
    rows = [{"text": "a", "m": {"x": b"1"}}, {"text": "b", "m": {"y": 2}}]
    assert load_samples(rows).dataset.to_list() == [
        {"text": "a", "m": {"x": b"1", "y": None}},
        {"text": "b", "m": {"x": None, "y": 2}},
    ]


def test_rounded_numbers_are_warned_of(tmp_path, caplog):
    rows = [{"text": "a", "score": 0.1 + 0.2, "day": "2021-03-04"}]
    with caplog.at_level(logging.WARNING):
        file, said = written(load_samples(rows), tmp_path, "jsonl")
    assert "load_dataset rounds numbers" in caplog.text
    assert json.loads(file.read_text()) == rows[0]
    assert loaded(tmp_path, file, said)[0]["day"] == "2021-03-04"
    caplog.clear()
    written(load_samples([{"text": "a", "score": 0.1 + 0.2}]), tmp_path, "jsonl")
    written(load_samples([{"text": "a", "score": 0.25, "day": "2021-03-04"}]), tmp_path, "jsonl")
    assert not caplog.text


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pa.array([b"a"]), "column 'x' holds binary"),
        (pa.array([1], pa.duration("s")), "column 'x' holds duration"),
        (pa.array([1], pa.time32("s")), "column 'x' holds time32"),
        (
            pa.array([[2**61]], pa.list_(pa.timestamp("s"))),
            "row 0 holds a time out of range in the column 'x'",
        ),
        (pa.array([b"\xff"]).view(pa.string()), "row 0 holds text that is not UTF-8 in the column 'x'"),
    ],
)
def test_what_json_lines_cannot_give_back_is_refused_before_any_work(array, message):
    dataset = Dataset(InMemoryTable(pa.table({"text": ["a"], "x": array})))
    with pytest.raises(DataPrunerError, match=message):
        check_format(Samples(dataset, Layout("text", {"text": "text"}), "it"), "jsonl")


def test_times_come_back_from_json_lines(tmp_path):
    moments = pa.array([86_400_000 * 17], pa.int64())
    table = pa.table(
        {
            "text": ["a"],
            "us": moments.cast(pa.timestamp("us")),
            "ns": moments.cast(pa.timestamp("ns", "UTC")),
            "s": moments.cast(pa.timestamp("s", "Europe/Berlin")),
            "day": pa.array([17], pa.date32()),
            "day64": moments.cast(pa.date64()),
        }
    )
    samples = load_samples(Dataset(InMemoryTable(table)))
    file, said = written(samples, tmp_path, "jsonl")
    assert loaded(tmp_path, file, said) == samples.dataset.to_list()
    assert Features._from_yaml_list(said["features"]) == samples.dataset.features


def test_nulls_of_ones_own_stay_in_a_struct():
    rows = [{"text": "a", "m": [{"x": 1, "y": {"z": None}}]}, {"text": "b", "m": [{"x": None, "y": None}]}]
    samples = load_samples(rows)
    assert str(samples.dataset.features["m"]) == "List({'x': Value('int64'), 'y': {'z': Value('null')}})"
    assert samples.dataset.to_list() == rows
    assert samples.exact
    assert not load_samples(Dataset.from_list(rows)).exact
    assert not load_samples([{"text": "a", "m": {"x": b"1"}}, {"text": "b", "m": {"y": 2}}]).exact
