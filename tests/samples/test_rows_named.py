"""Whatever names a row of several sources says in which it lies, and where; that of another set does not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import datapruner as dp
from datapruner.errors import DataPrunerError, RowError
from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.scorers.nearest_target import NearestTarget
from tests.conftest import command

LIKE = {"scorer": "random", "progress": False, "keep": 1.0}
A = [{"question": f"what is {i}", "answer": f"number {i}"} for i in range(12)]
B = [
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": f"ho {i}"}]}
    for i in range(3)
]
BAD = [*B, {"messages": []}]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("a.jsonl", A)
    write("b.jsonl", B)
    write("bad.jsonl", BAD)
    return tmp_path


def write(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True)
class Silent(Scorer):
    """Gives the last row no number."""

    name: ClassVar[str] = "silent"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals):
        return Ranking(np.where(np.arange(signals.num_rows) == signals.num_rows - 1, np.nan, 0.0))


def told(*sources, **options):
    with pytest.raises(DataPrunerError) as found:
        dp.prune(list(sources), **{**LIKE, **options})
    return str(found.value)


def test_a_row_that_cannot_be_read(folder, capfd, monkeypatch):
    said = "Row 15 (row 3 of bad.jsonl) has no messages in column 'messages'; mend or remove the row."
    assert told("a.jsonl", "bad.jsonl") == said
    assert told("bad.jsonl", "a.jsonl").startswith("Row 3 (row 3 of bad.jsonl) has no messages")
    assert command(monkeypatch, "inspect", "a.jsonl", "bad.jsonl") == 2
    assert said in capfd.readouterr().err.replace("\n", " ")
    # One source needs no name.
    with pytest.raises(DataPrunerError, match=r"^Row 3 has no messages"):
        dp.prune("bad.jsonl", **LIKE)


def test_rows_that_are_refused(folder):
    write("c.jsonl", [{"question": "q", "answer": ""}])
    assert told("a.jsonl", "c.jsonl", on_empty="error").startswith(
        "row 12 (row 0 of c.jsonl) has no answer (1 such"
    )
    both = told("a.jsonl", "b.jsonl", always_keep=[13], never_keep=[13])
    assert both == "row 13 (row 1 of b.jsonl) is to be kept always and never"
    wrong = told("b.jsonl", "a.jsonl", always_keep="question")
    assert wrong.startswith(
        "always_keep: column 'question', row 3 (row 0 of a.jsonl), holds 'what is 0', not true"
    )
    assert told("a.jsonl", "b.jsonl", scorer=Silent()) == (
        "the scorer 'silent' gave no finite value for row 14 (row 2 of b.jsonl)"
    )


def test_vectors(folder):
    vectors = np.ones((15, 4), np.float32)
    vectors[13, 2] = np.nan
    said = told("a.jsonl", "b.jsonl", scorer="k_center", embeddings=vectors)
    assert said.startswith("Row 13 (row 1 of b.jsonl) of the embeddings holds NaN")


def test_what_a_model_fails_on(folder, tiny_llama):
    write("t.jsonl", [{"text": "plain"}])
    said = told("a.jsonl", "t.jsonl", scorer="ifd", model=str(tiny_llama), device="cpu", cache="store")
    assert said.startswith("row 12 (row 0 of t.jsonl) is plain text without a prompt")


def test_what_is_said_of_rows_names_their_source(folder, caplog, capfd, monkeypatch):
    """Each warning that names a row, of rows of the second source alone."""
    leak = {"question": "who", "answer": "write to jane.doe@gmail.com about what we did on Tuesday"}
    odd = [
        {"question": "q", "answer": ""},
        *({"question": "copied", "answer": "just as it was"} for _ in range(12)),
        {"question": "said", "answer": "As an AI language model, I cannot help with that request."},
        leak,
        {
            "question": "n",
            "answer": "the train to the coast leaves at 10 from the second platform of the station",
        },
        {
            "question": "n",
            "answer": "the train to the coast leaves at 12 from the second platform of the station",
        },
    ]
    write("a.jsonl", A[:3])
    write("odd.jsonl", odd)
    write("t.jsonl", [leak])
    nearest = NearestTarget(representation="embedding")
    options = {**LIKE, "scorer": nearest, "target": "t.jsonl", "embedder": Blind()}
    dp.prune(["a.jsonl", "odd.jsonl"], cleaning=["rules"], dedup=True, near_threshold=0.4, **options)
    for said in (
        "have no answer, row 3 (row 0 of odd.jsonl) first",
        "rows are dropped, 11 of them for row 4 (row 1 of odd.jsonl)",
        "  row 5 (row 2 of odd.jsonl): copied",
        "  row 4 (row 1 of odd.jsonl): copied",
        "personal data or secrets, row 17 (row 14 of odd.jsonl) first",
        "in their numbers alone, row 19 (row 16 of odd.jsonl) first",
        "are among the data, row 17 (row 14 of odd.jsonl) first, and",
    ):
        assert said in caplog.text
    caplog.clear()
    dp.prune(["a.jsonl", "odd.jsonl"], cleaning=["refused"], **LIKE)
    assert "row 16 (row 13 of odd.jsonl) first: As an AI" in caplog.text
    caplog.clear()
    dp.prune(["odd.jsonl"], cleaning=["refused"], **LIKE)  # one source needs no name
    assert "row 13 first: As an AI" in caplog.text
    words = ["a.jsonl", "odd.jsonl", "--near-numbers", "-o", "out"]
    assert command(monkeypatch, "clean", *words) == 0
    assert "exact duplicate, 1.00\n  row 5 (row 2 of odd.jsonl): copied" in capfd.readouterr().out


def test_rows_that_a_model_fails_on_are_told_with_their_source(folder, caplog):
    dp.prune(
        ["a.jsonl", "b.jsonl"], **{**LIKE, "scorer": "k_center"}, embedder=Blind("ho 1"), on_error="drop"
    )
    assert "which were left out; row 13 (row 1 of b.jsonl) first: " in caplog.text


class Blind:
    """Embeds by length, and fails on texts that hold one."""

    def __init__(self, unseen: str = "nothing") -> None:
        self.unseen = unseen

    def encode(self, texts, **_):
        if any(self.unseen in text for text in texts):
            raise ValueError("cannot see")
        return np.array([[len(text), 1.0] for text in texts], np.float32)


def test_a_pair_without_an_answer_in_training_data(folder):
    write("p.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    write(
        "q.jsonl",
        [{"question": "d", "answer": "e", "rejected": "f"}, {"question": "d", "answer": "e", "rejected": []}],
    )
    mixed = dp.prune(["p.jsonl", "q.jsonl"], on_empty="keep", **LIKE)
    with pytest.raises(DataPrunerError, match=r"^[Rr]ow 2 \(row 1 of q\.jsonl\) "):
        mixed.preference()


def test_a_value_that_the_format_cannot_hold(folder):
    pq.write_table(
        pa.table({"question": ["q"], "answer": ["a"], "x": pa.array([b"\xff"]).view(pa.string())}),
        "f.parquet",
    )
    said = told("a.jsonl", "f.parquet", format="jsonl")
    assert "f.parquet" in said
    assert "row 0" in said


def test_a_row_of_another_set_is_not_told_as_one_of_the_sources(folder):
    said = told("a.jsonl", "b.jsonl", against=["bad.jsonl"])
    assert said == "against=: bad.jsonl: Row 3 has no messages in column 'messages'; mend or remove the row."
    said = told("a.jsonl", "b.jsonl", decontaminate="bad.jsonl")
    assert said == "the test set: Row 3 has no messages in column 'messages'; mend or remove the row."


def test_a_place_is_told_once_and_only_of_that_row():
    error = RowError("row 1 and row 12 of rows: row 12", 12)
    error.place("row 2 of b")
    error.place("row 3 of c")
    assert str(error) == "row 1 and row 12 (row 2 of b) of rows: row 12"
