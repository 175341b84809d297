"""A plug-in that is installed beside the package: its parts work everywhere without an edit here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import datapruner as dp
from tests.conftest import command
from tests.plugin import install

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner import Ranking, Scorer
from datapruner.reasons import Reason
from datapruner.cleaning.step import CleaningStep
from datapruner.cleaning.vetoes import drops
from datapruner.selection.selector import Choice, Selector, take
from datapruner.signals.by_rows import RowMeasurement
from datapruner.signals.measurement import Given


class Questions(RowMeasurement):
    """The number of a question."""

    name: ClassVar[str] = "questions"
    gives: ClassVar[tuple[Given, ...]] = (Given("number_in_prompt", "the number that a prompt ends in"),)

    def measure_rows(self, block):
        return np.array([float(sample.part("prompt").split()[-1]) for sample in block.samples])


DULL = Reason("dull", "theirs: {measure:.0f} dull words", one="dull row", label="dropped as dull")


@dataclass(frozen=True)
class NoDull(CleaningStep):
    """Rows of dull words.

    Parameters
    ----------
    word : str
        The word that is dull.
    """

    word: str = "dull"
    name: ClassVar[str] = "no_dull"
    reasons: ClassVar[tuple[Reason, ...]] = (DULL,)

    def clean(self, left):
        counts = np.array([text.split().count(self.word) for text in left.texts("response", left.free)])
        return drops(DULL, left.free[counts > 0], measures=counts[counts > 0])


@dataclass(frozen=True)
class Backwards(Scorer):
    """The source's last rows first.

    Parameters
    ----------
    step : int
        What a row is worth.
    """

    step: int = 1
    name: ClassVar[str] = "backwards"
    needs: ClassVar[frozenset[str]] = frozenset({"number_in_prompt"})
    paper: ClassVar[str] = "a story told backwards"
    provenance: ClassVar[str] = "theirs"

    @property
    def promises(self):
        return frozenset()

    def _score(self, signals):
        number = signals.column("number_in_prompt")
        return Ranking(self.step * number, columns={"place_from_start": number.astype(np.int64)})


@dataclass(frozen=True)
class Alternate(Selector):
    """Every other row of the ranking first."""

    name: ClassVar[str] = "alternate"

    def _select(self, ranking, portion, rng):
        order = np.argsort(-ranking.values[portion.rows], kind="stable")
        order = np.concatenate([order[::2], order[1::2]])
        kept = take(order, portion.costs, np.array([portion.budget]))
        return Choice(kept, kept.astype(np.int64), ["dropped: theirs, between", "kept: theirs, alternately"])
'''
POINTS = {
    "datapruner.cleaning": {"no_dull": "their_parts:NoDull"},
    "datapruner.measurements": {"questions": "their_parts:Questions"},
    "datapruner.scorers": {"backwards": "their_parts:Backwards"},
    "datapruner.selectors": {"alternate": "their_parts:Alternate"},
}
ROWS = [{"instruction": f"question {row}", "output": f"answer {row} " * (1 + row % 3)} for row in range(10)]
ROWS += [{"instruction": f"question {row}", "output": "dull and duller"} for row in (10, 11)]
KEPT = [5, 7, 9]


@pytest.fixture
def place(tmp_path, monkeypatch):
    install(tmp_path / "site", monkeypatch, "their_parts", MODULE, POINTS)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_python(place):
    selection = dp.prune(ROWS, cleaning=["no_dull"], scorer="backwards", selector="alternate", keep=3)
    assert selection.indices.tolist() == KEPT
    assert selection.explain(5).reason.startswith("kept: theirs, alternately;")
    assert selection.explain(8).reason.startswith("dropped: theirs, between;")
    assert selection.explain(10).reason == "dropped: theirs: 1 dull words"
    duller = dp.prune(ROWS, cleaning=[{"no_dull": {"word": "duller"}}], scorer="backwards", keep=3)
    assert duller.explain(11).reason == "dropped: theirs: 1 dull words"
    with pytest.raises(dp.DataPrunerError, match=r"no cleaning step 'no_dul'\. Did you mean 'no_dull'"):
        dp.prune(ROWS, cleaning=["no_dul"], keep=3)
    with pytest.raises(dp.DataPrunerError, match=r"no selector 'alternte'\. Did you mean 'alternate'"):
        dp.prune(ROWS, scorer="backwards", selector="alternte", keep=3)


def test_from_the_command_line(place, monkeypatch, capsys):
    words = ["prune", "rows.jsonl", "--cleaning", "no_dull", "--cleaning-set", "word=duller"]
    words += ["--scorer", "backwards", "--set", "step=2", "--selector", "alternate"]
    assert command(monkeypatch, *words, "--keep", "3", "-o", "out", "--report") == 0
    recipe = yaml.safe_load((place / "out" / "recipe.yaml").read_text())
    assert recipe["scorers"] == [{"name": "backwards", "parameters": {"step": 2}}]
    assert recipe["selector"]["name"] == "alternate"
    assert recipe["cleaning"] == [{"name": "no_dull", "parameters": {"word": "duller"}}]
    assert "in_memory" not in recipe
    assert "dropped as dull" in capsys.readouterr().out
    assert "dropped as dull" in (place / "out" / "README.md").read_text()
    page = (place / "out" / "report.html").read_text()
    assert "backwards" in page
    assert "alternately" in page
    assert "dropped as dull" in page
    capsys.readouterr()
    assert command(monkeypatch, "explain", "out", "--row", "5") == 0
    said = capsys.readouterr().out
    assert "kept: theirs, alternately" in said
    assert "place_from_start" in said
    assert command(monkeypatch, "explain", "out", "--row", "11") == 0
    assert "dropped: theirs: 1 dull words" in capsys.readouterr().out
    before = (place / "out" / "selection.parquet").read_bytes()
    assert command(monkeypatch, "run", "out/recipe.yaml", "-o", "again") == 0
    assert (place / "again" / "selection.parquet").read_bytes() == before


def test_in_a_comparison(place, monkeypatch, capsys):
    found = dp.compare(
        ROWS, cleaning=["no_dull"], scorers=["backwards", "length"], selector="alternate", keep=3
    )
    assert found.selections["backwards"].indices.tolist() == KEPT
    words = [
        "compare",
        "rows.jsonl",
        "--scorer",
        "backwards",
        "--cleaning",
        "no_dull",
        "--keep",
        "3",
        "-o",
        "compared",
        "--report",
    ]
    assert command(monkeypatch, *words) == 0
    assert "backwards" in capsys.readouterr().out
    assert "backwards" in (place / "compared" / "report.html").read_text()
    np.save("vectors.npy", np.eye(len(ROWS), dtype=np.float32))
    words = [
        "compare",
        "rows.jsonl",
        "--scorer",
        "all",
        "--embeddings",
        "vectors.npy",
        "--keep",
        "3",
        "-o",
        "every",
        "--n-clusters",
        "2",
    ]
    assert command(monkeypatch, *words, "--set", "backwards.step=-1") == 0
    scores = pd.read_csv(place / "every" / "scores.csv")
    assert {"backwards", "length", "prototypes"} <= {*scores.columns, *scores.iloc[:, 0].astype(str)}


def test_the_real_command_finds_them(place):
    """A child of its own: nothing is there but what is installed."""
    path = os.pathsep.join([str(place / "site"), os.environ.get("PYTHONPATH", "")])
    words = [
        "prune",
        "rows.jsonl",
        "--cleaning",
        "no_dull",
        "--scorer",
        "backwards",
        "--selector",
        "alternate",
        "--keep",
        "3",
        "-o",
        "out",
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "datapruner", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    kept = [json.loads(line)["instruction"] for line in _lines(place / "out")]
    assert kept == [f"question {row}" for row in KEPT]


def _lines(folder: Path) -> list[str]:
    import pyarrow.parquet as pq

    (file,) = (folder / "data").glob("*.parquet")
    return [json.dumps(row) for row in pq.read_table(file).to_pylist()]


def test_the_parts_are_listed(place, monkeypatch, capsys):
    assert command(monkeypatch, "parts") == 0
    said = capsys.readouterr().out
    assert re.search(
        r"^  backwards +The source's last rows first\. \(plug-in: their_parts:Backwards\)$", said, re.M
    )
    assert re.search(
        r"^  questions +The number of a question\. \(plug-in: their_parts:Questions\)$", said, re.M
    )
    assert re.search(r"^  alternate +Every other row of the ranking first\. \(plug-in: ", said, re.M)
    assert command(monkeypatch, "parts", "scorers") == 0
    said = capsys.readouterr().out
    assert "backwards\n  The source's last rows first.\n  needs   number_in_prompt\n" in said
    assert "  --set   step=1\n" in said
    assert command(monkeypatch, "parts", "measurements") == 0
    assert "  gives   number_in_prompt: the number that a prompt ends in\n" in capsys.readouterr().out
    assert command(monkeypatch, "parts", "scorer") == 2
    assert "no kind of part 'scorer'. Did you mean 'scorers'?" in capsys.readouterr().err


def test_a_broken_plug_in_is_listed_with_what_is_wrong(tmp_path, monkeypatch, capsys):
    points = {"datapruner.scorers": {"odd": "theirs:Missing"}}
    install(tmp_path / "site", monkeypatch, "theirs", "", points)
    for words in (["parts"], ["scorers"]):
        assert command(monkeypatch, *words) == 0
        assert (
            "cannot be used: the scorer 'odd' cannot be imported from theirs:Missing"
            in capsys.readouterr().out
        )
    found = dp.compare(ROWS, scorers="all", keep=3, embeddings=np.eye(len(ROWS), dtype=np.float32))
    assert "cannot be imported" in found.left_out["odd"]


def test_a_broken_measurement_is_in_nobody_elses_way(place, tmp_path, monkeypatch, caplog):
    install(
        tmp_path / "more", monkeypatch, "theirs", "", {"datapruner.measurements": {"odd": "theirs:Missing"}}
    )
    selection = dp.prune(ROWS, scorer="backwards", keep=3, progress=False)
    assert selection.indices.tolist() == [9, 10, 11]
    assert "the measurement 'odd' cannot be imported from theirs:Missing" in caplog.text
