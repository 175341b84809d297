"""Cleaning steps of a plug-in: by name, with parameters and as objects, from both ways in, and told without it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import datapruner as dp
from datapruner.cleaning.step import CleaningStep
from datapruner.cleaning.vetoes import drops
from datapruner.parts import CLEANING, available
from datapruner.reasons import Reason
from tests.conftest import command
from tests.plugin import install

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.reasons import Reason
from datapruner.cleaning.step import CleaningStep
from datapruner.cleaning.vetoes import drops

SHORT = Reason("too_short", "says {measure:.0f} characters, {least} are needed", "short row", way_out="lower `least`")
FAR = Reason("far_away", "lies {measure:.2f} from row {other}", "outlying row", label="dropped for lying far away")


@dataclass(frozen=True)
class Short(CleaningStep):
    """Rows of few characters."""

    name: ClassVar[str] = "short"
    reasons: ClassVar[tuple[Reason, ...]] = (SHORT,)

    least: int = 10

    def clean(self, left):
        sizes = np.array([len(text) for text in left.texts("response", left.free)])
        few = sizes < self.least
        return drops(SHORT.filled(least=self.least), left.free[few], measures=sizes[few])


@dataclass(frozen=True)
class Far(CleaningStep):
    """The row that lies farthest from the first."""

    name: ClassVar[str] = "far"
    reasons: ClassVar[tuple[Reason, ...]] = (FAR,)
    needs: ClassVar[tuple[str, ...]] = ("embedding",)

    def clean(self, left):
        vectors = left.signals["embedding"][np.arange(len(left.rows))]
        away = np.linalg.norm(vectors - vectors[0], axis=1)
        away[left.protected[left.rows]] = 0
        worst = int(away.argmax())
        return [drops(FAR, left.rows[[worst]], left.rows[[0]], away[[worst]])]


@dataclass(frozen=True)
class Alone(CleaningStep):
    """Rows that nobody's neighbours name."""

    name: ClassVar[str] = "alone"
    reasons: ClassVar[tuple[Reason, ...]] = (Reason("alone", "no row is near"),)
    needs: ClassVar[tuple[str, ...]] = ("neighbours",)

    def clean(self, left):
        table = left.signals["neighbours"]
        named = np.bincount(table[:, 1], minlength=len(left.rows))
        return drops(self.reasons[0], left.rows[(named == 0) & ~left.protected[left.rows]])
'''
POINTS = {"datapruner.cleaning": {name.lower(): f"theirs:{name}" for name in ("Short", "Far", "Alone")}}
ROWS = [{"prompt": f"Question {n}?", "response": "yes" * (n + 1)} for n in range(12)]
VECTORS = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
FARTHEST = int(np.linalg.norm(VECTORS[3:] - VECTORS[3], axis=1).argmax()) + 3


@pytest.fixture(autouse=True)
def place(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    install(tmp_path / "site", monkeypatch, "theirs", MODULE, POINTS)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    np.save("vectors.npy", VECTORS)


def given(**more):
    return {"scorer": "random", "keep": 1.0, "embeddings": "vectors.npy", "progress": False, **more}


def test_a_step_is_found_named_and_told():
    assert {"short", "far", "alone"} < set(available(CLEANING))
    found = dp.prune("rows.jsonl", cleaning=["far", "short"], **given())
    assert found.counts() == {"kept": 8, "too_short": 3, "far_away": 1}
    # Texts go first: the row that lies farthest is one of those that are long enough.
    assert np.flatnonzero(~found.kept).tolist() == sorted([0, 1, 2, FARTHEST])
    assert found.reason(1) == "dropped: says 6 characters, 10 are needed"
    away = np.linalg.norm(VECTORS[FARTHEST] - VECTORS[3])
    assert found.reason(FARTHEST) == f"dropped: lies {away:.2f} from row 3"
    assert found.summary.words() == {"kept": 8, "dropped as short rows": 3, "dropped for lying far away": 1}
    assert dp.explain(found, 1).cause == "too_short"
    assert [(pair.row, pair.other) for pair in found.pairs()] == [(FARTHEST, 3)]
    assert found.recipe.model_dump()["cleaning"] == [
        {"name": "far", "parameters": {}},
        {"name": "short", "parameters": {}},
    ]


@pytest.mark.parametrize("step", [{"short": {"least": 4}}, "object"])
def test_parameters_and_objects(step):
    if step == "object":
        dp.prune("rows.jsonl", cleaning=["short"], **given())  # imports it
        step = sys.modules["theirs"].Short(least=4)
    found = dp.prune("rows.jsonl", cleaning=[step], **given())
    assert found.counts() == {"kept": 11, "too_short": 1}
    assert found.reason(0) == "dropped: says 3 characters, 4 are needed"
    assert found.recipe.cleaning[0].parameters == {"least": 4}
    assert not found.recipe.in_memory


def test_every_way_in_gives_the_same(monkeypatch, capsys):
    words = [
        "rows.jsonl",
        "--cleaning",
        "short",
        "--cleaning",
        "far",
        "--cleaning-set",
        "short.least=8",
        "-q",
    ]
    words += ["--embeddings", "vectors.npy"]
    assert (
        command(
            monkeypatch, "prune", *words, "--scorer", "random", "--keep", "1.0", "--out", "out", "--report"
        )
        == 0
    )
    assert command(monkeypatch, "run", "out/recipe.yaml", "--out", "again", "-q") == 0
    steps = [{"short": {"least": 8}}, "far"]
    dp.prune("rows.jsonl", cleaning=steps, **given()).save("python")
    for name in ("selection.parquet", "recipe.yaml"):
        assert len({Path(folder, name).read_bytes() for folder in ("out", "again", "python")}) == 1, name
    assert "| dropped for lying far away | 1 |" in Path("out", "README.md").read_text()
    page = Path("out", "report.html").read_text()
    assert "Before that, 3 rows were dropped: 2 short rows and 1 outlying row." in page
    scores = dp.score(
        "rows.jsonl", scorers="random", cleaning=steps, embeddings="vectors.npy", progress=False
    )
    assert scores.summary.causes == {"ranked": 9, "too_short": 2, "far_away": 1}
    compared = dp.compare(
        "rows.jsonl",
        scorers=["random", "length"],
        keep=1.0,
        cleaning=steps,
        progress=False,
        embeddings="vectors.npy",
    )
    assert {frozenset(one.counts().items()) for one in compared.selections.values()} == {
        frozenset({"kept": 9, "too_short": 2, "far_away": 1}.items())
    }
    assert dp.clean(
        "rows.jsonl", cleaning=steps, embeddings="vectors.npy", progress=False
    ).indices.tolist() == (dp.load_selection("out").indices.tolist())
    capsys.readouterr()
    assert command(monkeypatch, "explain", "out", "--row", "1") == 0
    assert "says 6 characters, 8 are needed" in capsys.readouterr().out


def test_what_was_saved_is_told_without_the_plug_in(monkeypatch):
    steps = ["short", "far"]
    dp.prune("rows.jsonl", cleaning=steps, **given()).save("out")
    dp.score("rows.jsonl", scorers="random", cleaning=steps, embeddings="vectors.npy", progress=False).save(
        "scored"
    )
    monkeypatch.setattr("datapruner.parts.entry_points", lambda **_: [])
    monkeypatch.delitem(sys.modules, "theirs")
    words = {"dropped as short rows": 3, "dropped for lying far away": 1}
    assert dp.load_selection("out").summary.words() == {"kept": 8, **words}
    assert dp.load_selection("out").reason(1) == "dropped: says 6 characters, 10 are needed"
    scores = dp.load_scores("scored")
    assert scores.summary.words() == {"ranked": 8, **words}
    chosen = scores.select(keep=4)
    assert dp.explain(chosen, FARTHEST).cause == "far_away"
    chosen.save("chosen")
    assert dp.load_selection("chosen").summary.words() == {"kept": 4, **words, "dropped by the budget": 4}
    with pytest.raises(dp.DataPrunerError, match="there is no cleaning step 'short'"):
        dp.run("out/recipe.yaml")


def test_what_lies_between_rows_is_measured_again_after_rows_were_dropped():
    signals = {}

    @dataclass(frozen=True)
    class Spy(dp.Scorer):
        name: ClassVar[str] = "spy"
        needs: ClassVar[frozenset[str]] = frozenset({"neighbours", "embedding"})

        def _score(self, found):
            signals.update(found.measured)
            return dp.Ranking(np.zeros(found.num_rows))

    scores = dp.score(
        "rows.jsonl", scorers=[Spy()], cleaning=["alone"], embeddings="vectors.npy", progress=False
    )
    left = np.flatnonzero(scores.rankings["spy"].values == 0)
    assert 0 < len(left) < 12
    held = VECTORS[left] / np.linalg.norm(VECTORS[left], axis=1, keepdims=True)
    squares = ((held[:, None] - held[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squares, np.inf)
    assert np.array_equal(signals["neighbours"][:, 1], squares.argmin(axis=1))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["shrot"], "there is no cleaning step 'shrot'. Did you mean 'short'"),
        ([{"short": {"most": 3}}], "'short' has no parameter 'most'"),
        ([{"short": {"least": "many"}}], "'short': least"),
        (["exact"], "the cleaning step 'exact' is switched on by dedup=True"),
        (["short", "short"], "the cleaning step 'short' is named twice"),
        ([3], "a cleaning step is a name or a CleaningStep object, not 3"),
    ],
)
def test_what_is_no_step_is_refused_before_anything_is_read(steps, said):
    with pytest.raises(dp.DataPrunerError) as error:
        dp.prune("nowhere.jsonl", cleaning=steps, scorer="random", keep=3)
    assert said in str(error.value)


@dataclass(frozen=True)
class Mine(CleaningStep):
    """Rows that it is told to drop, for whatever reason."""

    name: ClassVar[str] = "mine"
    reasons: ClassVar[tuple[Reason, ...]] = (Reason("mine", "mine"),)

    def clean(self, left):
        return self.told(left)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (lambda left: drops(Reason("mine", "mine"), [5]), "drops row 5, which is to be kept always"),
        (lambda left: drops(Reason("mine", "mine"), [12]), "drops row 12 of 12"),
        (lambda left: [drops(Reason("mine", "mine"), [1])] * 2, "drops row 1 twice"),
        (lambda left: drops(Reason("mine", "mine"), [1], [99]), "names row 99 of 12"),
        (lambda left: drops(Reason("other", "mine"), [1]), "gives the reason 'other', and names mine"),
        (lambda left: drops(Reason("mine", "mine"), [0]), "drops row 0, which it was not given"),
    ],
)
def test_a_step_that_does_what_none_may_is_named(monkeypatch, told, said):
    monkeypatch.setattr(Mine, "told", staticmethod(told), raising=False)
    with pytest.raises(
        dp.DataPrunerError, match=f"^the cleaning step 'mine' {said}; that is a fault of the step$"
    ):
        dp.prune("rows.jsonl", cleaning=[Mine()], never_keep=[0], always_keep=[5], **given())


def test_an_object_without_a_name_is_in_memory(monkeypatch):
    monkeypatch.setattr(
        Mine, "told", staticmethod(lambda left: drops(Reason("mine", "mine"), [1])), raising=False
    )
    found = dp.prune("rows.jsonl", cleaning=[Mine()], **given())
    assert found.counts() == {"kept": 11, "mine": 1}
    assert found.recipe.in_memory == ["cleaning mine"]
    with pytest.raises(dp.DataPrunerError, match="in memory \\(cleaning mine\\)"):
        dp.run(found.recipe)
    assert found.rebudget(keep=5).counts() == {"kept": 5, "mine": 1, "over_budget": 6}
