"""An error that names a row of several sources says in which it lies, and where; that of another set does not."""

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
