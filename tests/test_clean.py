"""`clean`: copies, leaks and rows without an answer go, each told with a pair; nothing is ranked or spent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import datapruner as dp
from tests.conftest import command, without_progress

TEXT = (
    "The library by the river is open every day except Monday from nine in the morning until six "
    "and has {} seats for readers"
)
ROWS = [
    {"question": "Of the library?", "answer": TEXT.format("two hundred")},
    {"question": "Name a tree.", "answer": "Oak."},
    {"question": "Of the library?", "answer": TEXT.format("three hundred")},
    {"question": "Name a tree.", "answer": "Oak."},
    {"question": "Name a river.", "answer": " "},
    {"question": "How many seats has the old library beside the river?", "answer": "Two hundred."},
]


@pytest.fixture(autouse=True)
def place(tmp_path, cache, monkeypatch):
    for name, rows in (("rows.jsonl", ROWS), ("test.jsonl", ROWS[-1:])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)


def test_what_is_left_and_why_the_rest_is_not():
    cleaned = dp.clean("rows.jsonl", decontaminate="test.jsonl", progress=False)
    assert cleaned.indices.tolist() == [0, 1]
    assert [row["question"] for row in cleaned] == [ROWS[0]["question"], ROWS[1]["question"]]
    causes = {row["row"]: row["cause"] for row in cleaned.dropped}
    assert causes == {2: "near_duplicate", 3: "exact_duplicate", 4: "no_answer", 5: "contaminated"}
    assert cleaned.reason(0) == "kept: as are all rows that cleaning left"


def test_pairs_are_the_least_alike_first():
    rows = [{"text": TEXT.format(seats)} for seats in ("two hundred", "three hundred", "two hundred or more")]
    found = dp.clean(rows, dedup=["near"], near_threshold=0.5, progress=False).pairs()
    assert {(pair.row, pair.other) for pair in found} == {(1, 0), (2, 0)}
    assert found[0].measure <= found[1].measure
    assert found[0].text == rows[found[0].row]["text"]
    assert found[0].other_text == rows[0]["text"]
    assert len(dp.clean(rows, dedup=["near"], near_threshold=0.5, progress=False).pairs(1)) == 1


def test_nothing_to_clean_keeps_everything():
    assert len(dp.clean(ROWS[:2], progress=False)) == 2
    assert len(dp.clean("rows.jsonl", dedup=False, on_empty="keep", progress=False)) == len(ROWS)


def test_the_command_says_what_went_with_a_pair_and_its_recipe_repeats(monkeypatch, capsys):
    assert command(monkeypatch, "clean", "rows.jsonl", "--decontaminate", "test.jsonl", "-o", "out") == 0
    out, err = capsys.readouterr()
    assert "         2   33.3 %  kept\n" in out
    for words in ("exact duplicates", "near duplicates", "no answer"):
        assert (
            f"         1   16.7 %  dropped {'for having ' if words == 'no answer' else 'as '}{words}\n" in out
        )
    assert "\nnear duplicate, 0." in out
    assert "three hundred seats" in out
    assert "\ncontaminated, 1.00\n  row 5: How many seats" in out
    assert "  test row 0: " in out
    assert without_progress(err) == ""
    assert command(monkeypatch, "run", "out/recipe.yaml", "-o", "again", "-q") == 0
    files = sorted(path.relative_to("out") for path in Path("out").rglob("*") if path.is_file())
    assert len(files) == 5
    for name in files:
        assert Path("out", name).read_bytes() == Path("again", name).read_bytes(), name


def test_another_threshold_and_no_pairs(monkeypatch, capsys):
    assert (
        command(monkeypatch, "clean", "rows.jsonl", "--near-threshold", "0.99", "--pairs", "0", "-o", "out")
        == 0
    )
    out, _ = capsys.readouterr()
    assert "near duplicate" not in out
    assert "row 3:" not in out
    assert len(dp.load_selection("out")) == 4


@pytest.mark.parametrize("argument", [{"keep": 0.3}, {"scorer": "random"}])
def test_a_budget_or_a_scorer_is_prunes(argument):
    with pytest.raises(dp.DataPrunerError, match="prune"):
        dp.clean("rows.jsonl", **argument)
