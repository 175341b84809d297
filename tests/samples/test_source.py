from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDataset, Value

from datapruner import prune
from datapruner.errors import DataPrunerError
from datapruner.samples import content_hash, load_samples
from datapruner.samples import hashing as hashing_module
from datapruner.samples import samples as samples_module
from datapruner.samples import tables as tables_module

ROWS = [
    {
        "question": f"What is {i} + {i}? 😀 \u2028 line",
        "answer": f"{2 * i}\n#### {2 * i}",
        "level": i,
        "tag": "007",
    }
    for i in range(25)
]


def write(path: Path, rows=ROWS) -> Path:
    name = path.name
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if name.endswith((".jsonl", ".ndjson")):
        path.write_bytes(lines)
    elif name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(lines))
    elif name.endswith(".jsonl.zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(lines)
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif name.endswith(".json.gz"):
        path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    elif name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
    elif name.endswith(".parquet.gz"):
        path.write_bytes(gzip.compress(pd.DataFrame(rows).to_parquet()))
    elif name.endswith(".file.arrow"):
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(str(path), table.schema) as out:
            out.write_table(table)
    elif name.endswith(".arrow"):
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(str(path), table.schema) as out:
            out.write_table(table)
    return path


NAMES = [
    "a.jsonl",
    "a.ndjson",
    "a.jsonl.gz",
    "a.jsonl.zst",
    "a.json",
    "a.json.gz",
    "a.parquet",
    "a.parquet.gz",
    "a.arrow",
    "a.file.arrow",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_the_same_rows(tmp_path, name):
    samples = load_samples(write(tmp_path / name))
    assert samples.dataset.to_list() == ROWS
    assert (samples.split, samples.layout.name, samples.others) == ("train", "question_answer", {})
    assert samples.source == str(tmp_path / name)
    assert content_hash(samples.dataset) == content_hash(Dataset.from_list(ROWS))


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_csv_keeps_strings_as_they_are(tmp_path, suffix, separator):
    rows = [
        {"question": 'a "quoted", one', "answer": "", "id": "007"},
        {"question": "two\nlines\r\nand 2020-01-01", "answer": "NA", "id": "1.50"},
        {"question": "\ttab", "answer": "null", "id": ""},
    ]
    path = tmp_path / f"a.{suffix}"
    pd.DataFrame(rows).to_csv(path, index=False, sep=separator)
    assert load_samples(path).dataset.to_list() == rows


def test_csv_errors_name_the_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,b\n1,2\n1,2,3\n")
    with pytest.raises(DataPrunerError, match="line 3 has 3 cells"):
        load_samples(path)
    path.write_text('text,b\n1,2\n"1,2\n')
    with pytest.raises(DataPrunerError, match=r"line \d is not valid CSV"):
        load_samples(path)
    path.write_bytes(b"text,b\n1,\xff\n")
    with pytest.raises(DataPrunerError, match="UTF-8"):
        load_samples(path)
    path.write_text("text,text\n1,2\n")
    with pytest.raises(DataPrunerError, match="more than one column called 'text'"):
        load_samples(path)


def test_json_objects_one_after_another(tmp_path):
    path = tmp_path / "a.json"
    for text in (
        '{"text": "a"}{"text": "b"}',
        '{"text": "a"}\n\n{"text": "b"}\n',
        '{\n"text":\n"a"}\n{"text":"b"}',
        ' [ {"text": "a"} , {"text": "b"} ]\n',
        '\ufeff[{"text": "a"},\n{"text": "b"}]',
    ):
        path.write_text(text, encoding="utf-8")
        assert load_samples(path).texts() == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"text": "a"},\n{"text": "b', "line 2 is not valid JSON"),
        ('[{"text": "a"},\n{"text": "b"}', "ends inside its list"),
        ('[{"text": "a"}\n{"text": "b"}]', "line 2 .*comma"),
        ('[{"text": "a"}] 1', "goes on after its list"),
        ("[1,\n2]", "line 1 holds a number"),
        ('[{"text": "a"},\n{"text": "\\udc00"}]', "line 2 holds a lone surrogate"),
        ("", "no rows"),
        ("[]", "no rows"),
        ("  \n", "no rows"),
    ],
)
def test_bad_json(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataPrunerError, match=message):
        load_samples(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "cut in ha', "not valid JSON"),
        (b'{"text": "\xff"}', "not valid UTF-8"),
        (b'{"text": "\\ud83d"}', "lone surrogate"),
        (b'{"a": {"\\uDC01": 1}}', "lone surrogate"),
        (b"[1]", "holds a list"),
        (b"{}", "an empty object"),
        (b"7", "holds a number"),
        (b'{"text": 5}', "column 'text' holds int where earlier rows hold str"),
        (b'{"text": "b", "n": 99999999999999999999}', "64 bits"),
        (b'{"text": ' + b"[" * 100_000, "not valid JSON"),
    ],
)
def test_bad_json_lines_name_file_and_line(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n\n' + line + b"\n" + b'{"text": "c"}\n')
    with pytest.raises(DataPrunerError, match=message) as caught:
        load_samples(path)
    assert "a.jsonl, line 3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_lines_keys_may_differ_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("datapruner.samples.readers.BLOCK_ROWS", 2)
    rows = [
        {"text": str(i), **({"x": i} if i < 3 else {"y": {"z": [i]}}), **({"w": 0.5} if i % 2 else {})}
        for i in range(7)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    expected = [{"text": r["text"], "x": r.get("x"), "w": r.get("w"), "y": r.get("y")} for r in rows]
    in_memory = load_samples(path).dataset
    assert in_memory.to_list() == expected
    # The same on disk: every block its own schema, hence its own segment, merged at the end.
    monkeypatch.setattr(tables_module, "IN_MEMORY_BYTES", 0)
    spilled = load_samples(path).dataset
    assert spilled.to_list() == expected
    assert spilled.cache_files
    assert content_hash(spilled) == content_hash(in_memory)
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": "q", "x": "seven"}])))
    with pytest.raises(DataPrunerError, match=r"Column 'x' mixes int64 and string in .*a\.jsonl"):
        load_samples(path)


def test_a_rewritten_file_is_read_anew(tmp_path):
    path = write(tmp_path / "a.parquet", [{"text": "old"}])
    assert load_samples(path).texts() == ["old"]
    write(path, [{"text": "new"}])
    assert load_samples(path).texts() == ["new"]


def test_a_long_row_and_every_plane(tmp_path):
    long = "x" * 10_000_000
    every = "".join(chr(plane << 16 | 0x1F600 & 0xFFFF) for plane in range(17)) + "\0\u2028\x85"
    path = write(tmp_path / "a.jsonl", [{"text": long}, {"text": every}])
    assert load_samples(path).texts() == [long, every]


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.arrow", "a.file.arrow", "a.jsonl.gz", "a.jsonl.zst", "a.parquet.gz"]
)
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_damaged_files(tmp_path, name, damage):
    path = write(tmp_path / name)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] if damage == "cut" else b"garbage " * 100)
    with pytest.raises(DataPrunerError, match=name):
        load_samples(path)


def test_empty_parquet_and_empty_list(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text("")
    for source in (tmp_path / "a.parquet", tmp_path / "b.jsonl", [], Dataset.from_dict({"text": []})):
        with pytest.raises(DataPrunerError, match="no rows"):
            load_samples(source)


def test_globs_and_folders(tmp_path):
    write(tmp_path / "b.jsonl", ROWS[10:])
    write(tmp_path / "a.jsonl", ROWS[:10])
    assert load_samples(f"{tmp_path}/*.jsonl").dataset.to_list() == ROWS
    assert load_samples(tmp_path).dataset.to_list() == ROWS
    with pytest.raises(DataPrunerError, match=r"nothing matches.*\.csv"):
        load_samples(f"{tmp_path}/*.csv")
    write(tmp_path / "a.parquet")
    with pytest.raises(DataPrunerError, match="several formats"):
        load_samples(tmp_path)


def test_folder_splits(tmp_path):
    write(tmp_path / "train-00000-of-00002.jsonl", ROWS[:3])
    write(tmp_path / "train-00001-of-00002.jsonl", ROWS[3:6])
    write(tmp_path / "test.jsonl", ROWS[6:])
    samples = load_samples(tmp_path)
    assert samples.dataset.to_list() == ROWS[:6]
    assert samples.others["test"].to_list() == ROWS[6:]
    assert load_samples(tmp_path, split="test").dataset.to_list() == ROWS[6:]
    with pytest.raises(DataPrunerError, match=r"no split 'tests'. Did you mean 'test'"):
        load_samples(tmp_path, split="tests")


def test_folder_that_datapruner_wrote(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train-00000-of-00001.parquet")
    write(tmp_path / "selection.parquet", [{"index": 1, "kept": True}])
    (tmp_path / "README.md").write_text("card")
    (tmp_path / "recipe.yaml").write_text("a: 1")
    assert load_samples(tmp_path).dataset.to_list() == ROWS


def test_saved_to_disk(tmp_path):
    dataset = Dataset.from_list(ROWS)
    dataset.save_to_disk(tmp_path / "one")
    DatasetDict(a=dataset, b=dataset.select([1])).save_to_disk(tmp_path / "two")
    assert load_samples(tmp_path / "one").dataset.to_list() == ROWS
    with pytest.raises(DataPrunerError, match="splits a, b; name one with split="):
        load_samples(tmp_path / "two")
    samples = load_samples(tmp_path / "two", split="b")
    assert samples.dataset.to_list() == [ROWS[1]]
    assert list(samples.others) == ["a"]
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DataPrunerError, match="cannot be loaded"):
        load_samples(tmp_path / "one")


def test_files_without_a_common_column_are_refused(tmp_path):
    write(tmp_path / "a.jsonl", [{"text": "x"}])
    write(tmp_path / "b.jsonl", [{"prompt": "x", "completion": "y"}])
    with pytest.raises(DataPrunerError, match="no column in common"):
        load_samples(f"{tmp_path}/*.jsonl")


def test_in_memory():
    for source in (ROWS, Dataset.from_list(ROWS), DatasetDict(x=Dataset.from_list(ROWS)), pd.DataFrame(ROWS)):
        assert load_samples(source).dataset.to_list() == ROWS
    frame = pd.DataFrame(ROWS)[lambda rows: rows["level"] % 2 == 0]
    assert load_samples(frame).dataset.to_list() == ROWS[::2]
    with pytest.raises(DataPrunerError, match="list in memory, row 1: column 'text' holds int"):
        load_samples([{"text": "a"}, {"text": 1}])
    with pytest.raises(DataPrunerError, match="row 1: int is not a row; give a text"):
        load_samples(["a", 1])
    with pytest.raises(DataPrunerError, match="lone surrogate"):
        load_samples([{"text": "a"}, {"text": "\ud800"}])
    with pytest.raises(DataPrunerError, match="A int is not a source"):
        load_samples(3)


def test_a_streaming_dataset_is_read_to_its_end_in_blocks(tmp_path, monkeypatch):
    rows = [{"text": f"row {number}", "tags": ["a"] * (number % 3), "n": number} for number in range(2500)]
    kinds = Features(text=Value("string"), tags=[Value("string")], n=Value("int32"))
    whole = Dataset.from_list(rows, features=kinds)
    monkeypatch.setattr(tables_module, "IN_MEMORY_BYTES", 10_000)  # most of it goes to a file
    samples = load_samples(whole.to_iterable_dataset(num_shards=3))
    assert samples.dataset.to_list() == rows
    assert samples.dataset.features == kinds
    assert samples.dataset.cache_files
    chosen = prune(whole.to_iterable_dataset(), scorer="random", keep=5, progress=False)
    assert chosen.kept.tolist() == prune(whole, scorer="random", keep=5, progress=False).kept.tolist()
    assert chosen.recipe.in_memory == ["source"]

    def some():
        yield from ({"text": "a"}, {"text": "b", "more": 1})

    assert load_samples(IterableDataset.from_generator(some)).dataset.to_list() == [
        {"text": "a", "more": None}, {"text": "b", "more": 1}
    ]  # fmt: skip

    def broken():
        yield {"text": "a"}
        raise ConnectionError("cut")

    with pytest.raises(DataPrunerError, match=r"streaming dataset ended in an error at row 1 \(cut\)"):
        load_samples(IterableDataset.from_generator(broken))
    declared = IterableDataset.from_generator(broken, features=Features(text=Value("string")))
    with pytest.raises(DataPrunerError, match=r"ended in an error at rows 0 to 999 \(cut\)"):
        load_samples(declared)
    with pytest.raises(DataPrunerError, match="has no rows"):
        load_samples(IterableDataset.from_generator(lambda: iter([])))


def test_features_stored_in_parquet_are_kept(tmp_path):
    features = Features(text=Value("string"), label=ClassLabel(names=["no", "yes"]))
    dataset = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    dataset.to_parquet(tmp_path / "a.parquet")
    assert load_samples(tmp_path / "a.parquet").dataset.features == features
    frame = pd.DataFrame({"text": ["a", "b"], "kind": pd.Categorical(["x", "y"])})
    frame.to_parquet(tmp_path / "b.parquet")
    assert load_samples(tmp_path / "b.parquet").column("kind") == ["x", "y"]


@pytest.mark.parametrize(
    "name", ["missing.jsonl", "./missing", "/no/such/folder", "~/no-such-thing", "a/b/c", "", "a b"]
)
def test_missing_paths_never_go_to_the_hub(name, monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(DataPrunerError, match="no such file"):
        load_samples(name)


def test_a_format_is_no_source(tmp_path, monkeypatch):
    """`load_dataset("text")` reads every text in the working folder, and with older versions pickles by "pandas"."""
    from datasets.packaged_modules import _MODULE_TO_EXTENSIONS

    class Planted:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "train.pkl").write_bytes(pickle.dumps(Planted()))
    monkeypatch.chdir(tmp_path)
    for name in {*_MODULE_TO_EXTENSIONS, "pandas", "text:default", "json@main"}:
        with pytest.raises(DataPrunerError, match="There is no such file or folder"):
            load_samples(name)
    with pytest.raises(DataPrunerError, match="There is no such file or folder"):
        prune([{"text": "a"}, {"text": "b"}], scorer="random", keep=1, decontaminate="text", progress=False)
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_was_loaded_once_is_no_source_when_it_is_gone(tmp_path, monkeypatch):
    """`datasets` keeps it under its last name alone, and without the hub gives it to whoever asks for that name."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "there" / "out").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["of another set"]}), tmp_path / "there" / "out" / "train.parquet")
    datasets.load_dataset(str(tmp_path / "there" / "out"))
    monkeypatch.chdir(tmp_path)
    assert datasets.load_dataset("out")["train"]["text"][:] == ["of another set"]  # so it does
    with pytest.raises(DataPrunerError, match="There is no such file or folder: 'out'"):
        load_samples("out")


def test_missing_file_suggests_a_neighbour(tmp_path):
    write(tmp_path / "mixture.jsonl")
    with pytest.raises(DataPrunerError, match=r"Did you mean 'mixture.jsonl'"):
        load_samples(tmp_path / "mixtures.jsonl")


def test_pickles_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataPrunerError, match="pickles are never loaded"):
        load_samples(tmp_path / "a.pkl")


def test_hub_names(monkeypatch):
    asked = []

    def fake(name, config=None, *, revision=None, **options):
        asked.append((name, config, revision))
        assert not options.get("trust_remote_code")
        return DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:2]))

    monkeypatch.setattr("datasets.load_dataset", fake)
    samples = load_samples("openai/gsm8k:main@abc123")
    assert (samples.revision, samples.source, len(samples)) == ("abc123", "openai/gsm8k:main@abc123", 25)
    assert load_samples("openai/gsm8k", split="test").dataset.to_list() == ROWS[:2]
    assert asked == [("openai/gsm8k", "main", "abc123"), ("openai/gsm8k", None, None)]

    def offline(*args, **options):
        raise ConnectionError("Couldn't reach 'org/name' on the Hub\nlong\nstory")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(DataPrunerError, match="hub cannot be reached") as caught:
        load_samples("org/name")
    assert "\n" not in str(caught.value)


def test_a_large_parquet_stays_on_disk(tmp_path):
    # Fewer rows here; the table is mapped, so Arrow's own memory hardly grows.
    path = tmp_path / "a.parquet"
    table = pa.table({"id": pa.array(np.arange(4_000_000)), "text": pa.array(["x" * 40] * 4_000_000)})
    pq.write_table(table, path)
    del table
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    samples = load_samples(path)
    assert len(samples) == 4_000_000
    assert samples.dataset.cache_files
    assert pa.total_allocated_bytes() - before < 16 << 20
    assert samples.dataset[3_999_999]["id"] == 3_999_999


def test_content_hash_is_of_the_content():
    assert hashing_module.SLICE == 2_000  # three of them
    table = pa.table(
        {
            "s": ["a", None, "", "😀"] * 1_500,
            "l": [[1, None], None, [], [3]] * 1_500,
            "t": [{"a": 1, "b": "x"}, None, {"a": None, "b": ""}, {"a": 4, "b": None}] * 1_500,
            "f": [0.5, float("nan"), None, -0.0] * 1_500,
            "b": [True, None, False, True] * 1_500,
        }
    )
    from datasets.table import InMemoryTable

    dataset = Dataset(InMemoryTable(table))
    expected = content_hash(dataset)
    pieces = pa.concat_tables([table.slice(0, 7), table.slice(7, 4_345), table.slice(4_352)])
    assert content_hash(Dataset(InMemoryTable(pieces))) == expected
    wide = table.cast(
        pa.schema([("s", pa.large_string()), ("l", pa.large_list(pa.int64())), *list(table.schema)[2:]])
    )
    assert content_hash(Dataset(InMemoryTable(wide))) == expected
    order = np.random.default_rng(0).permutation(len(dataset))
    shuffled = dataset.select(order)
    assert content_hash(shuffled) != expected
    assert content_hash(shuffled.select(np.argsort(order))) == expected
    assert content_hash(shuffled) == content_hash(shuffled.flatten_indices())
    assert content_hash(dataset.rename_column("s", "z")) != expected
    assert content_hash(dataset.select(range(5_999))) != expected
    # What lies under a null is not content.
    under = pa.Array.from_buffers(
        pa.int64(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(np.array([5, 99], dtype=np.int64).tobytes())]
    )
    hidden = Dataset(InMemoryTable(pa.table({"x": under})))
    assert content_hash(hidden) == content_hash(Dataset.from_dict({"x": [5, None]}))
    # Values may not run into one another.
    assert content_hash(Dataset.from_dict({"x": ["ab", "c"]})) != content_hash(
        Dataset.from_dict({"x": ["a", "bc"]})
    )


def test_strings_that_are_not_utf8_name_the_row(tmp_path):
    offsets = pa.py_buffer(np.array([0, 1, 3], dtype=np.int32).tobytes())
    array = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xff\xfe")])
    pq.write_table(pa.table({"text": array}), tmp_path / "a.parquet")
    with pytest.raises(DataPrunerError, match="row 1 holds text that is not UTF-8 in column 'text'"):
        load_samples(tmp_path / "a.parquet").texts()


def test_equal_texts_of_a_column_are_one_object(monkeypatch):
    monkeypatch.setattr(samples_module, "COLUMN_BLOCK", 7)
    kinds = [None if number % 5 == 0 else f"kind {number % 3}" for number in range(40)]
    dataset = Dataset.from_dict({"text": [f"text {number}" for number in range(40)], "kind": kinds})
    samples = load_samples(dataset.select(range(39, -1, -1)))
    found = samples.column("kind")
    assert found == kinds[::-1]
    assert len({id(value) for value in found}) == 4
    assert samples.column("text") == [f"text {number}" for number in range(39, -1, -1)]
    assert load_samples([{"text": "a", "kind": None}]).column("kind") == [None]


def test_rows_whose_pages_were_let_go_read_the_same(monkeypatch):
    rows = [{"text": f"row {number}"} for number in range(1500)]
    wanted = load_samples(rows)
    monkeypatch.setattr(tables_module, "IN_MEMORY_BYTES", 1000)
    for name in ("RELEASED", "LITTLE"):
        monkeypatch.setattr(f"datapruner.files.mapped.{name}", 1)
    monkeypatch.setattr(samples_module, "BLOCK", 100)
    monkeypatch.setattr(hashing_module, "SLICE", 100)
    mapped = load_samples(rows)
    assert mapped.dataset.cache_files
    assert mapped.texts() == wanted.texts() == [row["text"] for row in rows]
    assert mapped.content == wanted.content
