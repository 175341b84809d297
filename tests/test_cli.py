"""What the command line says of a result, and of one row."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import datapruner as dp
from datapruner import parts
from datapruner.scorers.base import Ranking, Scorer
from tests.conftest import command, without_progress


@pytest.fixture
def place(tmp_path, cache, monkeypatch):
    """Three skills, one after the other; one row has no answer."""
    rng = np.random.default_rng(0)
    skills = np.repeat(["math", "code\x1b[31m", "rare"], [60, 40, 8])
    rows = [
        {"question": f"question {number}?", "answer": f"answer {rng.integers(1000)}", "skill": str(skill)}
        for number, skill in enumerate(skills)
    ]
    rows[3]["answer"] = " "
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


PRUNE = ["prune", "rows.jsonl", "--scorer", "test_cli_first", "--keep", "0.3", "-o", "out", "--overwrite"]


@dataclass(frozen=True)
class First(Scorer):
    """Keeps the first rows."""

    name: ClassVar[str] = "test_cli_first"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals):
        return Ranking(-np.arange(signals.num_rows, dtype=np.float64) - 0.123456789)


@pytest.fixture
def first(monkeypatch):
    find = parts.find
    monkeypatch.setattr(parts, "find", lambda kind, name: First if name == First.name else find(kind, name))


def test_a_label_that_is_all_but_lost_is_told_with_what_helps(place, first, monkeypatch, capsys):
    assert command(monkeypatch, *PRUNE) == 0
    said = capsys.readouterr()
    assert "        32   29.6 %  kept\n" in said.out
    # The third has too few rows to be missed, and what is printed is harmless.
    assert re.search(
        r"By skill, little or nothing is kept of “code\\x1b\[31m” \(0 of 40 rows, 0\s%\)", said.out
    )
    assert "--per-group skill gives every group its share." in said.out
    assert "\x1b" not in said.out
    assert "rare" not in said.out
    assert without_progress(said.err) == ""

    assert command(monkeypatch, *PRUNE, "--per-group", "skill") == 0
    assert "little or nothing" not in capsys.readouterr().out


def test_explain_prints_what_there_is(place, first, monkeypatch, capsys):
    assert command(monkeypatch, *PRUNE, "--on-empty", "drop") == 0
    capsys.readouterr()
    assert command(monkeypatch, "explain", "out", "--row", "3") == 0
    told = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert told == {
        "row": "3",
        "kept": "no",
        "reason": "dropped: no answer",
        "scorer": "test_cli_first",
    }
    assert command(monkeypatch, "explain", "out", "--row", "5") == 0
    assert " score  -4.12346\n" in capsys.readouterr().out


def test_explain_shows_the_row_too(place, first, monkeypatch, capsys):
    assert command(monkeypatch, *PRUNE) == 0
    rows = (place / "rows.jsonl").read_text().splitlines()
    capsys.readouterr()
    assert command(monkeypatch, "explain", "out", "--row", "70", "--text") == 0
    said = capsys.readouterr().out
    assert re.search(r"reason  dropped: .*\n", said)
    assert "\n\n  user       question 70?\n  assistant  " + json.loads(rows[70])["answer"] + "\n" in said
    (place / "rows.jsonl").write_text("\n".join(rows[:-1]))
    assert command(monkeypatch, "explain", "out", "--row", "70", "--text") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "rows.jsonl has other rows than when this was made" in said.err
    dp.prune([json.loads(row) for row in rows], scorer="length", keep=3, progress=False).save("memory")
    assert command(monkeypatch, "explain", "memory", "--row", "70", "--text") == 2
    assert "memory was made of rows in memory" in capsys.readouterr().err


def test_explain_finds_rows_by_text_and_by_columns(place, first, monkeypatch, capsys):
    assert command(monkeypatch, *PRUNE) == 0
    capsys.readouterr()

    def told(*words):
        assert command(monkeypatch, "explain", "out", *words) == 0
        return capsys.readouterr().out

    assert told("--match", "QUESTION 70?") == told("--row", "70")
    assert "rank  70 of 107; 32 were kept\n" in told("--row", "70")
    assert told("--row", "70").count("70 of 107") == 1
    assert "its score is -69.1235, and -31.1235 or more was needed" in " ".join(told("--row", "70").split())
    assert told("--where", "skill=rare", "--match", "question 104") == told("--row", "104")
    listed = told("--where", "skill=code\x1b[31m")
    assert listed.startswith("40 rows:\n\nrow 60  dropped: below the best")
    assert "\n  question 60?\n  answer " in listed
    assert listed.count("\nrow ") == 10
    assert "\nand 30 more\n" in listed
    assert "datapruner explain out --row 60" in listed
    for words, said in (
        (["--match", "nowhere \x1b[31m"], "no row of "),
        (["--match", "a", "--row", "1"], "not both"),
        ([], "say which row"),
        (["--where", "skil=rare"], "Did you mean 'skill'"),
        (["--where", "skill"], "name=value"),
    ):
        assert command(monkeypatch, "explain", "out", *words) == 2
        held = capsys.readouterr()
        assert said in held.err
        assert "\x1b" not in held.out + held.err


def test_explain_tells_a_row_of_scores_too(place, monkeypatch, capsys):
    line = ["score", "rows.jsonl", "--scorer", "length", "--scorer", "random", "-o", "scores"]
    assert command(monkeypatch, *line) == 0
    assert command(monkeypatch, "explain", "scores", "--row", "70", "--scorer", "length", "--text") == 0
    said = capsys.readouterr().out
    assert re.search(r"reason  not chosen yet\n +rank  \d+ of 10[78]\n", said)
    assert "user       question 70?" in said
    assert command(monkeypatch, "explain", "scores", "--row", "70") == 2
    assert "say which scorer" in capsys.readouterr().err


def test_explain_shows_hostile_text_harmless(place, monkeypatch, capsys):
    rows = [{"question": "\x1b[31mred", "answer": "\u202eright to left"}, {"question": "q", "answer": "a"}]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command(monkeypatch, "prune", "rows.jsonl", "--scorer", "length", "--keep", "1", "-o", "out") == 0
    assert command(monkeypatch, "explain", "out", "--row", "0", "--text") == 0
    said = capsys.readouterr().out
    assert "\\x1b[31mred" in said
    assert "\\u202eright to left" in said
    assert not set("\x1b\u202e") & set(said)


def test_explain_shows_hostile_column_names_harmless(place, first, monkeypatch, capsys):
    import pyarrow.parquet as pq

    assert command(monkeypatch, *PRUNE) == 0
    file = place / "out" / "selection.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column("\x1b]0;pwned\x07", table["score"]), file)
    assert command(monkeypatch, "explain", "out", "--row", "70") == 2
    assert "is not as it was written" in capsys.readouterr().err
    (place / "out" / "checksums.txt").unlink()
    capsys.readouterr()
    assert command(monkeypatch, "explain", "out", "--row", "70") == 0
    said = capsys.readouterr().out
    assert "\\x1b]0;pwned\\x07" in said
    assert not set("\x1b\x07") & set(said)


def test_a_summary_lists_forty_groups_and_counts_the_others(place, first, monkeypatch, capsys):
    rows = [
        {"question": "q", "answer": "a" * (number + 1), "user": f"u{number // 2}"} for number in range(100)
    ]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command(
        monkeypatch, "prune", "rows.jsonl", "--scorer", "length", "--keep", "0.5", "--per-group", "user", "-o", "out"
    ) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert len(re.findall(r"  of 2 rows  u\d", said)) == 40
    assert "and 10 more groups: README.md of the result has them\n" in said
    assert (place / "out" / "README.md").read_text().count("| 1 | 2 | rows |") == 50


def test_signals_are_kept_in_the_folder_that_is_named(place, cache, monkeypatch):
    line = ["score", "rows.jsonl", "--scorer", "length", "-o", "scores", "--cache", "signals", "--quiet"]
    assert command(monkeypatch, *line) == 0
    assert any(file.is_file() for file in (place / "signals").rglob("*"))
    assert not cache.exists()
