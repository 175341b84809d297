"""Rows that an earlier result or another set holds: copies and near duplicates, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datapruner as dp
from datapruner.cleaning.steps.near import near_held
from datapruner.errors import DataPrunerError
from datapruner.words import words_of
from tests.conftest import command

LIKE = {"scorer": "random", "progress": False}
LONG = "the quick brown fox jumps over the lazy dog while number {0} of the {1} waits at the gate near the river {0}"


def write(name: str, texts) -> str:
    Path(name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return name


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("old.jsonl", [f"old row {i} of things like {i * i}" for i in range(8)] + [LONG.format(7, "cats")])
    write(
        "new.jsonl",
        [
            "a row of its own",
            "old  row 3 of things like 9",  # but for white space
            LONG.format(7, "cats") + " again",
            "a row of its own",  # a copy among the new ones
            "another row of its own",
        ],
    )
    return tmp_path


def test_what_an_earlier_result_kept_does_not_come_again(folder, monkeypatch, capsys):
    dp.prune("old.jsonl", keep=9, **LIKE).save("earlier")
    chosen = dp.prune("new.jsonl", keep=1.0, against="earlier", **LIKE)
    assert chosen.kept.tolist() == [True, False, False, True, True]
    assert chosen.reason(1) == "dropped: already held: says what row 3 of earlier says"
    assert chosen.reason(2).startswith(
        "dropped: already held: near-duplicate of row 8 of earlier (Jaccard 0.9"
    )
    chosen.save("out")
    table = pd.read_parquet("out/selection.parquet")
    assert table.cause.tolist()[1:3] == ["already_held"] * 2
    assert "dropped as held by an earlier set | 2" in Path("out/README.md").read_text()
    assert str(folder) not in "".join(
        Path(f"out/{name}").read_text() for name in ("README.md", "recipe.yaml")
    )
    assert command(monkeypatch, "run", "out/recipe.yaml", "-o", "again", "-q") == 0
    assert Path("again/selection.parquet").read_bytes() == Path("out/selection.parquet").read_bytes()
    saved = dp.load_selection("out")
    assert saved.counts()["already_held"] == 2
    assert [(pair.row, pair.other, pair.refers_to) for pair in chosen.pairs()] == [
        (1, 3, "held row"), (2, 8, "held row")
    ]  # fmt: skip


def test_rows_that_the_earlier_result_dropped_may_come(folder):
    dp.prune("old.jsonl", keep=3, never_keep=[3], **LIKE).save("earlier")
    assert dp.prune("new.jsonl", keep=1.0, against="earlier", **LIKE).kept[1]


def test_several_sets_and_rows_that_are_always_kept(folder, monkeypatch):
    write("more.jsonl", ["another row of its own", "old row 3 of things like 9"])
    words = ["--against", "old.jsonl", "--against", "more.jsonl", "--keep", "1.0", "--scorer", "random"]
    assert command(monkeypatch, "prune", "new.jsonl", *words, "-o", "out") == 0
    reasons = pd.read_parquet("out/selection.parquet").reason.tolist()
    assert "row 3 of old.jsonl" in reasons[1]  # the first set that holds it
    assert "row 0 of more.jsonl" in reasons[4]
    chosen = dp.prune("new.jsonl", keep=1.0, against=["old.jsonl"], always_keep=[1], **LIKE)
    assert chosen.kept.tolist() == [True, True, False, True, True]


def test_a_changed_set_is_told(folder):
    dp.prune("new.jsonl", keep=1.0, against="old.jsonl", **LIKE).save("out")
    write("old.jsonl", ["other rows by now"])
    with pytest.raises(DataPrunerError, match=r"against: .*old\.jsonl is another than when this was made"):
        dp.run("out/recipe.yaml", progress=False)


@pytest.mark.parametrize(
    ("set_", "said"),
    [
        ("gone.jsonl", "--against: There is no such file or folder: 'gone.jsonl'"),
        ("empty.jsonl", "--against: empty.jsonl has no rows"),
        ("new.jsonl", "no row is left"),
    ],
)
def test_bad_input_is_a_sentence(folder, monkeypatch, capfd, set_, said):
    Path("empty.jsonl").touch()
    words = ["--against", set_, "--keep", 1, "--scorer", "random", "-o", "out"]
    assert command(monkeypatch, "prune", "new.jsonl", *words) == 2
    assert said in capfd.readouterr().err.replace("\n", " ")


def jaccard(first: str, second: str, ngram: int) -> float:
    def grams(text: str) -> set:
        words = words_of(text)
        return (
            {tuple(words[i : i + ngram]) for i in range(max(len(words) - ngram + 1, 1))} if words else set()
        )

    one, two = grams(first), grams(second)
    return len(one & two) / len(one | two) if one and two else 0.0


@settings(max_examples=15)
@given(
    st.lists(
        st.lists(st.sampled_from("abcdef"), min_size=4, max_size=9).map(" ".join), min_size=2, max_size=14
    )
)
def test_near_duplicates_of_another_set_are_those_of_brute_force(texts):
    held = np.arange(len(texts)) < len(texts) // 2
    found, others, measures = near_held(texts, held, threshold=0.6, ngram=2)
    wanted = {}
    for i in np.flatnonzero(~held):
        best = max((jaccard(texts[i], texts[j], 2) for j in np.flatnonzero(held)), default=0)
        if best >= 0.6:
            wanted[int(i)] = best
    # Candidates are found with a probability of 0.995 at the threshold.
    assert set(found.tolist()) <= set(wanted)
    assert len(found) >= len(wanted) - 1
    for i, j, measure in zip(found.tolist(), others.tolist(), measures.tolist(), strict=True):
        assert held[j]
        assert measure == pytest.approx(jaccard(texts[i], texts[j], 2))
