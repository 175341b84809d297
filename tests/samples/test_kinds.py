"""What people hand in: every kind gives its rows, or one sentence that says what it is and the way out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from datasets.table import InMemoryTable

from datapruner.errors import DataPrunerError
from datapruner.samples import load_samples

ROWS = [{"text": "one", "n": 1}, {"text": "two", "n": 2}]
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


class Frame:
    """A frame of another library, which hands out Arrow's batches (as polars does, with views of strings)."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


class Numbered:
    """A dataset of torch: a length, and rows by number."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> dict[str, object]:
        return ROWS[place] | {"ids": torch.tensor([place, 1])}


def table() -> pa.Table:
    return pa.table({"text": pa.array(["one", "two"], pa.string_view()), "n": [1, 2]})


MEMORY = {
    "table": table,
    "batch": lambda: pa.record_batch({"text": ["one", "two"], "n": [1, 2]}),
    "reader": lambda: pa.RecordBatchReader.from_batches(table().schema, table().to_batches()),
    "frame": lambda: Frame(table()),
    "pandas": lambda: pd.DataFrame(ROWS),
    "columns": lambda: {"text": ["one", "two"], "n": np.array([1, 2])},
    "generator": lambda: (row for row in ROWS),
    "tuple": lambda: tuple(ROWS),
    "views in a dataset": lambda: Dataset(InMemoryTable(table())),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_rows_in_memory(kind):
    assert load_samples(MEMORY[kind]()).dataset.to_list() == ROWS


def test_rows_by_number_and_their_tensors():
    assert load_samples(Numbered()).dataset.to_list() == [row | {"ids": [i, 1]} for i, row in enumerate(ROWS)]
    assert load_samples(torch.utils.data.Subset(Numbered(), [1])).texts() == ["two"]


@pytest.mark.parametrize(
    "texts", [["one", "two.jsonl"], ("one", "two"), np.array(["one", "two"]), pd.Series(["one", "two"])]
)
def test_texts_in_memory(texts):
    assert load_samples(texts).dataset.to_list() == [{"text": text} for text in list(texts)]


def test_splits_in_memory():
    other = Dataset.from_list(ROWS[:1])
    for splits in ({"train": ROWS, "test": ROWS[:1]}, {"train": Dataset.from_list(ROWS), "test": other}):
        samples = load_samples(splits)
        assert (samples.dataset.to_list(), samples.others["test"].to_list()) == (ROWS, ROWS[:1])


def test_files_by_a_list(tmp_path):
    paths = []
    for place, row in enumerate(ROWS):
        paths.append(tmp_path / f"{place}.jsonl")
        paths[-1].write_text(json.dumps(row))
    assert load_samples(paths).dataset.to_list() == ROWS
    assert load_samples([str(path) for path in reversed(paths)]).dataset.to_list() == ROWS[::-1]
    with pytest.raises(DataPrunerError, match=r"missing\.jsonl' is not a file"):
        load_samples([str(paths[0]), str(tmp_path / "missing.jsonl")])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"text": ["a", "b"], "n": [1]}, "not of one length .*text: 2, n: 1"),
        ({"text": "a"}, "column 'text' is a str, not a list"),
        ({1: ["a"]}, "key 1 is no name"),
        ({"a", "b"}, "no order"),
        (["a", {"text": "b"}], "row 1: dict is not a row; give a text"),
        ([{"text": "a"}, {}], "row 1: an empty dictionary is not a row"),
        ([["a"]], "row 0: list is not a row"),
        (lambda: ROWS, "call it"),
        (b"abc", "A bytes is not a source"),
        (iter(()), "has no rows"),
        (pd.DataFrame({"text": ["a", 1]}), "column 'text' holds values that make no column"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "more than one column called 'text'"),
        (pa.table([["a"], ["b"]], names=["text", "text"]), "more than one column called 'text'"),
    ],
)
def test_what_has_no_rows_is_told(source, message):
    with pytest.raises(DataPrunerError, match=message) as caught:
        load_samples(source)
    assert "\n" not in str(caught.value)


def test_a_frame_that_is_not_there_yet():
    class Lazy:
        def collect(self) -> None: ...

    with pytest.raises(DataPrunerError, match=r"\.collect\(\)"):
        load_samples(Lazy())


def test_a_generator_is_read_once_and_in_pieces(monkeypatch):
    monkeypatch.setattr("datapruner.samples.memory.BLOCK_ROWS", 10)
    monkeypatch.setattr("datapruner.samples.tables.IN_MEMORY_BYTES", 100)

    def rows() -> Iterator[dict[str, object]]:
        for place in range(95):
            yield {"text": str(place)} if place < 90 else {"text": str(place), "m": {"x": {}}}

    samples = load_samples(rows())
    assert samples.dataset.cache_files
    assert samples.texts() == [str(place) for place in range(95)]
    assert samples.dataset[94]["m"] == {"x": {}}


def test_objects_in_a_frame_of_pandas():
    frame = pd.DataFrame({"text": ["a", "b"], "m": [{}, {"x": None}], "turns": [TURNS, np.nan]})
    assert load_samples(frame, columns={"text": "text"}).dataset.to_list() == [
        {"text": "a", "m": {}, "turns": TURNS},
        {"text": "b", "m": {"x": None}, "turns": None},
    ]


JSON = {
    "under a key": {"version": 1, "data": ROWS},
    "under the only key": {"whatever": ROWS},
    "under rows, with features": {"features": [{"name": "text"}], "rows": ROWS, "num_rows_total": 2},
    "of the dataset viewer": {
        "rows": [{"row_idx": i, "row": row, "truncated_cells": []} for i, row in enumerate(ROWS)]
    },
    "by columns": {"text": ["one", "two"], "n": [1, 2]},
    "of pandas": json.loads(pd.DataFrame(ROWS).to_json()),
    "of pandas, split": json.loads(pd.DataFrame(ROWS).to_json(orient="split")),
    "of pandas, by row": json.loads(pd.DataFrame(ROWS).to_json(orient="index")),
}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("kind", JSON)
def test_rows_inside_one_object(tmp_path, name, kind):
    path = tmp_path / name
    path.write_text(json.dumps(JSON[kind], indent=1 if name == "a.json" else None))
    assert load_samples(path).dataset.to_list() == ROWS


def test_texts_in_a_list(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('["one",\n "two"]')
    assert load_samples(path).texts() == ["one", "two"]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TURNS},
        {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": TURNS[1:]},
        {"question": "q", "answer": "a", "sources": [{"title": "t"}]},
        {"text": "a", "tags": ["x"]},
        {"embedding": [0.5, 1.5]},
    ],
)
def test_one_row_is_a_row(tmp_path, row):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(row))
    assert load_samples(path).dataset.to_list() == [row]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", json.dumps({"train": ROWS, "test": ROWS}), "lists of rows under 'train', 'test'"),
        ("a.json", json.dumps({"data": ROWS, "notes": ROWS, "v": 1}), "lists of rows under 'data', 'notes'"),
        ("a.json", '{"data": [{"text": "a", "text": "b"}]}', "key 'text' twice"),
        ("a.json", '{"data": [{"text": "a"}, {"text": 1}]}', r"row 1 under 'data': column 'text' holds int"),
        ("a.jsonl", "{'text': 'a'}\n", r"line 1 is a Python dictionary \(its quotes are single\)"),
        ("a.json", "[{'text': 'a'},\n {'text': 'b'}]", "line 1 is a Python dictionary"),
        ("a.jsonl", '{"text": "a"}\n{"text": None}\n', "line 2 is not valid JSON"),
        (
            "a.parquet",
            "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
            "Git LFS pointer",
        ),
        (
            "a.jsonl.gz",
            "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
            "Git LFS pointer",
        ),
        ("a.arrow", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "Git LFS pointer"),
        ("a.jsonl", '{"text": "a", "b\\u0000c": 1}\n', "NUL character in its name"),
    ],
)
def test_the_real_reason_is_said(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataPrunerError, match=message) as caught:
        load_samples(tmp_path / name)
    assert name in str(caught.value)


def odd_types() -> pa.Table:
    """Two rows of every Arrow type that `datasets` or Parquet does not hold, nested and with nulls."""
    maps = pa.array([[("a", "1")], None], pa.map_(pa.string(), pa.string()))
    views = pa.array(["one", None], pa.string_view())
    codes = pa.DictionaryArray.from_arrays(
        pa.array([0, None], pa.uint32()), pa.array(["x"], pa.string_view())
    )
    return pa.table(
        {
            "text": pa.array(["one", "two"], pa.string_view()),
            "bytes": pa.array([b"1", None], pa.binary_view()),
            "map": maps,
            "code": codes,
            "runs": pa.RunEndEncodedArray.from_arrays([2], pa.array([7])),
            "view": pa.array([[1, 2], None], pa.list_view(pa.int64())),
            "inside": pa.StructArray.from_arrays([views, codes, maps], ["s", "c", "m"]),
            "listed": pa.ListArray.from_arrays([0, 2, 2], views),
            "fixed": pa.FixedSizeListArray.from_arrays(views, 1),
            "empty": pa.array([{}, None], pa.struct([])),
        }
    )


def test_odd_types_are_read_as_plain_ones(tmp_path, caplog):
    expected = [
        {
            "text": "one", "bytes": b"1", "map": [{"key": "a", "value": "1"}], "code": "x", "runs": 7, "view": [1, 2],
            "inside": {"s": "one", "c": "x", "m": [{"key": "a", "value": "1"}]}, "listed": ["one", None],
            "fixed": ["one"], "empty": {},
        },
        {
            "text": "two", "bytes": None, "map": None, "code": None, "runs": 7, "view": None,
            "inside": {"s": None, "c": None, "m": None}, "listed": [], "fixed": [None], "empty": None,
        },
    ]  # fmt: skip
    assert load_samples(odd_types()).dataset.to_list() == expected
    assert "column 'map' is a map<string, string>" in caplog.text
    sliced = pa.concat_tables([odd_types()] * 3).slice(1, 4)
    assert load_samples(sliced).dataset.to_list() == [expected[place % 2] for place in (1, 2, 3, 4)]
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), odd_types().schema) as out:
        out.write_table(odd_types())
    assert load_samples(tmp_path / "a.arrow").dataset.to_list() == expected
    stored = odd_types().drop_columns(["runs", "view", "empty", "code", "inside"])
    pq.write_table(stored, tmp_path / "a.parquet")
    names = stored.column_names
    assert load_samples(tmp_path / "a.parquet").dataset.to_list() == [
        {name: row[name] for name in names} for row in expected
    ]


def test_a_type_without_a_counterpart_is_named():
    table = pa.table({"text": ["a"], "span": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(DataPrunerError, match=r"column 'span' has the Arrow type month_day_nano_interval"):
        load_samples(table)


def test_features_stay_beside_a_column_that_is_converted():
    features = Features(text=Value("string"), label=ClassLabel(names=["no", "yes"]), m={})
    dataset = Dataset.from_dict({"text": ["a"], "label": [1], "m": [{}]}, features=features)
    samples = load_samples(dataset)
    assert samples.dataset.features["label"] == features["label"]
    assert samples.dataset.to_list() == [{"text": "a", "label": 1, "m": {}}]


def folder(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"text": name}) + "\n")
    return root


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["data/train/a.jsonl", "data/train/b.jsonl", "data/test/a.jsonl"], {"train": 2, "test": 1}),
        (["train/a.jsonl", "validation/a.jsonl"], {"train": 1, "validation": 1}),
        (["one/two/a.jsonl"], {"train": 1}),
        (["one/two/test.jsonl", "one/two/train.jsonl"], {"train": 1, "test": 1}),
        (["data/2024/a.jsonl"], {"train": 1}),
        (["a.jsonl", "other/b.jsonl"], {"train": 1}),
        (["data/train/x/y/a.jsonl", ".git/b.jsonl", "_cache/b.jsonl"], {"train": 1}),
    ],
)
def test_folders_are_searched(tmp_path, names, splits):
    samples = load_samples(folder(tmp_path, *names))
    assert {samples.split: len(samples), **{k: len(v) for k, v in samples.others.items()}} == splits


def test_folders_that_may_be_other_datasets_are_not_mixed(tmp_path):
    folder(tmp_path, "main/train.jsonl", "socratic/train.jsonl")
    with pytest.raises(DataPrunerError, match=r"several folders \(main, socratic\).* e\.g\. .*/main"):
        load_samples(tmp_path)
    (tmp_path / "x" / "images").mkdir(parents=True)
    with pytest.raises(DataPrunerError, match=r"no data files .* Its folders: images"):
        load_samples(tmp_path / "x")


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([{"text": b"a"}], "binary"),
        ([{"text": {"a": 1}}], "struct<a: int64>"),
        ([{"text": ["a"]}], "list<item: string>"),
        ([{"text": 7}], "int64"),
    ],
)
def test_a_text_that_is_none_is_told_by_its_type(rows, kind):
    with pytest.raises(
        DataPrunerError, match=f"its columns are text; 'text' holds {kind} where a text is needed"
    ):
        load_samples(rows)
