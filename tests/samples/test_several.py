"""Several sources at once: rows one after another, a column that names the source, a budget by it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_dataset

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.samples import load_samples
from datapruner.samples.origins import named_sources, stem
from tests.conftest import command

LIKE = {"scorer": "random", "progress": False}
A = [{"question": f"what is {i}", "answer": f"number {i}", "level": i} for i in range(6)]
B = [{"answer": f"tree {i}", "question": f"why {i}", "tag": None if i == 1 else "x"} for i in range(4)]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("a.jsonl", A)
    pq.write_table(pa.Table.from_pylist(B), "b.parquet")
    return tmp_path


def write(name: str, rows) -> str:
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_rows_follow_each_other_and_keep_what_they_hold(folder):
    samples = load_samples({"one": "a.jsonl", "two": "b.parquet"})
    wanted = [{**row, "tag": None, "source": "one"} for row in A]
    wanted += [{**row, "level": None, "source": "two"} for row in B]
    assert samples.dataset.to_list() == wanted
    assert samples.layout.columns == {"question": "question", "answer": "answer"}
    assert samples.unread == ["level", "tag"]
    assert [samples.origin_of(row) for row in (0, 5, 6, 9)] == [
        (samples.origins[0], 0), (samples.origins[0], 5), (samples.origins[1], 0), (samples.origins[1], 3)
    ]  # fmt: skip


def test_a_result_tells_source_and_row_and_its_recipe_makes_it_again(folder, capsys, monkeypatch):
    words = ["a.jsonl", "b.parquet", "--source-name", "one", "--source-name", "two", "--scorer", "random"]
    assert command(monkeypatch, "prune", *words, "--keep", 6, "--group-share", "two=0.5", "-o", "out") == 0
    table = pd.read_parquet("out/selection.parquet")
    assert table.source.tolist() == ["one"] * 6 + ["two"] * 4
    assert table.source_row.tolist() == [*range(6), *range(4)]
    assert table.groupby("source", observed=True).kept.sum().to_dict() == {"one": 3, "two": 3}
    kept = load_dataset("out", split="train").to_list()
    assert [row["source"] for row in kept] == ["one"] * 3 + ["two"] * 3
    card = Path("out/README.md").read_text()
    assert "of `one, two`" in card
    assert "| `two` | `b.parquet` | 3 | 4 |" in card
    assert str(folder) not in card
    assert command(monkeypatch, "run", "out/recipe.yaml", "-o", "again", "-q") == 0
    assert files(folder / "out") == files(folder / "again")
    by_call = dp.prune({"one": "a.jsonl", "two": "b.parquet"}, keep=6, group_share={"two": 0.5}, **LIKE)
    by_call.save("called")
    assert files(folder / "called") == files(folder / "out")
    held = dp.load_selection("out")
    assert held.explain(7).columns["source"] == "two"
    assert held.explain(7).columns["source_row"] == 1
    assert held.source.origins[1].name == "two"


def test_a_list_of_files_is_several_sources_and_a_list_of_texts_is_rows(folder):
    chosen = dp.prune(["a.jsonl", Path("b.parquet")], keep=5, per_group="source", **LIKE)
    assert chosen.shares() == {"a": (3, 6, "rows"), "b": (2, 4, "rows")}
    assert len(dp.prune(["a text", "another"], keep=1, **LIKE).kept) == 2
    assert dp.prune(["a.jsonl"], keep=1, **LIKE).recipe.source == "a.jsonl"


def test_scores_of_several_sources_are_chosen_from(folder):
    dp.score(["a.jsonl", "b.parquet"], scorers="random", progress=False, count_tokens=False).save("scores")
    scores = dp.load_scores("scores")
    chosen = scores.select(keep=4, group_share={"a": 0.25})
    assert chosen.shares() == {"a": (1, 6, "rows"), "b": (3, 4, "rows")}
    assert chosen.rebudget(8).shares() == {"a": (4, 6, "rows"), "b": (4, 4, "rows")}


def test_a_changed_source_is_noticed(folder):
    dp.prune(["a.jsonl", "b.parquet"], keep=4, **LIKE).save("out")
    dp.score(["a.jsonl", "b.parquet"], scorers="random", progress=False, count_tokens=False).save("scores")
    for name, changed in (
        ("a", lambda: write("a.jsonl", [*A[:-1], {**A[-1], "level": 7}])),
        ("b", lambda: pq.write_table(pa.Table.from_pylist(B[1:]), "b.parquet")),
        ("b", lambda: pq.write_table(pa.Table.from_pylist([{**B[0], "more": 1}, *B[1:]]), "b.parquet")),
    ):
        write("a.jsonl", A)
        pq.write_table(pa.Table.from_pylist(B), "b.parquet")
        dp.run("out/recipe.yaml", progress=False).save("again", overwrite=True)
        assert files("again") == files("out")
        changed()
        with pytest.raises(
            DataPrunerError,
            match=rf"the source '{name}' \(.*\W{name}\.\w+\) has other rows than when this was made",
        ):
            dp.run("out/recipe.yaml", progress=False)
        with pytest.raises(DataPrunerError, match=rf"the source '{name}' .* has changed since it was scored"):
            dp.load_scores("scores")
    # A recipe of an earlier version has one hash of all.
    said = [line for line in Path("out/recipe.yaml").read_text().splitlines() if "  source " not in line]
    Path("old").mkdir()
    Path("old/recipe.yaml").write_text("\n".join(line for line in said if line != "inputs_content:") + "\n")
    with pytest.raises(DataPrunerError, match=r"a\.jsonl, .*b\.parquet has other rows"):
        dp.run("old/recipe.yaml", progress=False)
    assert dp.run("out/recipe.yaml", changed_source=True, progress=False).kept.sum() == 4


def test_json_lines_go_out_as_they_came_in(folder):
    write("c.jsonl", [{"question": "q", "answer": "a", "tag": None}, {"question": "r", "answer": "b"}])
    dp.prune(["a.jsonl", "c.jsonl"], keep=1.0, on_empty="keep", **LIKE).save("out", format="jsonl")
    found = [json.loads(line) for line in next(Path("out/data").iterdir()).read_text().splitlines()]
    assert found[:6] == [{**row, "source": "a"} for row in A]
    assert found[6:] == [
        {"question": "q", "answer": "a", "tag": None, "source": "c"},
        {"question": "r", "answer": "b", "source": "c"},
    ]


def test_structs_in_another_order_are_the_same_and_labels_of_two_kinds_are_not(folder):
    one = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]]
    two = [[{"content": "du", "role": "user"}, {"content": "da", "role": "assistant"}]]
    pq.write_table(pa.table({"messages": one}), "m.parquet")
    pq.write_table(pa.table({"messages": two}), "n.parquet")
    samples = load_samples({"m": "m.parquet", "n": "n.parquet"})
    assert [sample.part("response") for sample in samples] == ["ho", "da"]
    for name, labels in (("l", ["no", "yes"]), ("k", ["yes", "no"])):
        kinds = Features({"text": Value("string"), "label": ClassLabel(names=labels)})
        Dataset.from_dict({"text": ["t", "u"], "label": [0, 1]}, features=kinds).save_to_disk(name)
    with pytest.raises(DataPrunerError, match="numbers its labels otherwise in l than in k"):
        load_samples({"l": "l", "k": "k"})


def test_other_splits_are_carried_over_together(folder):
    for name in ("x", "y"):
        write(f"{name}/train.jsonl", [{"text": f"{name} train"}])
    write("y/test.jsonl", [{"text": "y test"}])
    samples = load_samples({"x": "x", "y": "y"})
    assert samples.others["test"].to_list() == [{"text": "y test", "source": "y"}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.jsonl", "./a.jsonl"], "two sources are called 'a'"),
        (["a.jsonl", "./a.jsonl", "--source-name", "x", "--source-name", "y"], "the source ./a.jsonl is given twice"),
        (["a.jsonl", "gone.parquet"], "There is no such file or folder: 'gone.parquet'"),
        (["a.jsonl", "gone"], "'gone' is not on disk"),
        (["a.jsonl:0.5", "b.parquet:0.5"], "'a.jsonl:0.5'"),
        (["a.jsonl", "--source-column", "from"], "--source-column is for several sources"),
        (["a.jsonl", "b.parquet", "--group-share", "a=50%"], "takes a number beside a name, such as math=0.3"),
        (["a.jsonl", "empty.jsonl"], "empty.jsonl has no rows"),
        (["a.jsonl", "named.jsonl"], "named.jsonl has a column 'source' already"),
        (["a.jsonl", "typed.jsonl"], "Column 'level' mixes"),
        (["a.jsonl", "pairs.jsonl"], "pairs of answers cannot be chosen from together"),
        (["a.jsonl", "*.jsonl", "--source-name", "x", "--source-name", "y"], "both read"),
        (["a.jsonl", "b.parquet", "--source-name", "x"], "1 names are given with --source-name for 2 sources"),
        (["a.jsonl", "b.parquet", "--group-share", "c=0.1"], "a share is given for 'c', which column 'source'"),
        (["a.jsonl", "b.parquet", "--group-share", "a=0.9", "--group-share", "b=0.2"], "add up to 1.1, more than 1"),
        (["a.jsonl", "--group-share", "a=0.9"], "--group-share needs groups"),
        (["a.jsonl", "b.parquet", "--source-name", " ", "--source-name", "y"], "cannot be the name of a source"),
    ],
)  # fmt: skip
def test_bad_input_is_a_sentence(folder, capfd, monkeypatch, words, said):
    Path("empty.jsonl").touch()
    write("typed.jsonl", [{**A[0], "level": "high"}])
    write("pairs.jsonl", [{"chosen": "x", "rejected": "y"}])
    if "*.jsonl" not in words:
        write("named.jsonl", [{**A[0], "source": "web"}])
    else:
        for name in ("empty.jsonl", "typed.jsonl", "pairs.jsonl"):
            Path(name).unlink()
    assert command(monkeypatch, "prune", *words, "--keep", 2, "--scorer", "random", "-o", "out") == 2
    assert said in capfd.readouterr().err.replace("\n", " ")
    assert not Path("out").exists()


def test_another_column_may_name_the_source(folder):
    write("named.jsonl", [{**A[0], "source": "web"}])
    samples = load_samples({"a": "a.jsonl", "n": "named.jsonl"}, source_column="from")
    assert samples.dataset[6] == {**A[0], "source": "web", "from": "n"}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("x/code.train.jsonl.gz", "code.train"), ("x/code/", "code"), ("data/*.parquet", "*"),
        ("org/name:config@abc", "name"), ("s3://bucket/a/b.jsonl.zst", "b"), ("part=1.jsonl", "part=1"),
    ],
)  # fmt: skip
def test_sources_are_called_as_their_files(source, name):
    assert stem(source) == name


def test_names_that_all_exist_are_sources(folder):
    for name in ("x", "y"):
        write(f"{name}/train.jsonl", [{"text": f"{name} {i}"} for i in range(3)])
    assert named_sources(["x", "y"]) == {"x": "x", "y": "y"}
    assert named_sources(["x", "z"]) is None
    assert dp.prune(["x", "y"], keep=4, **LIKE).shares() == {}


def test_what_is_no_name_of_a_source_is_left():
    for given in (
        ["text", "other"],
        [{"text": "a"}],
        {"text": ["a", "b"]},
        {"train": [{"text": "a"}]},
        {},
        [],
        3,
    ):
        assert named_sources(given) is None
    with pytest.raises(DataPrunerError, match="names of splits"):
        named_sources({"train": "a.jsonl", "test": "b.jsonl"})
