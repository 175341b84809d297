"""Every built-in scorer and selector passes the contract suite, and the suite notices who does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from datapruner.parts import SCORERS, SELECTORS, built_in
from datapruner.scorers import make_scorer
from datapruner.scorers.base import Ranking, Scorer
from datapruner.selection.selector import Choice, Selector
from datapruner.selection.selectors import make_selector
from datapruner.selection.selectors.ccs import CCS
from datapruner.selection.selectors.group_quota import GroupQuota
from datapruner.selection.selectors.message_passing import MessagePassingSelector
from datapruner.selection.selectors.topk import TopK
from datapruner.testing import (
    SCORER_CHECKS,
    SELECTOR_CHECKS,
    check_scorer,
    check_selector,
    example_signals,
)

VARIANTS = [
    ("concept_complexity", {"keep": "easy", "n_clusters": 3}),
    ("concept_complexity", {"keep": "random", "temperature": 0.1, "n_clusters": 3}),
    ("prototypes", {"keep": "easy", "balance": 0.0, "n_clusters": 4}),
    ("length", {"shortest": True}),
    ("stratified", {"n_clusters": 3}),
    ("donod", {"step_size": 1e-3, "weights": [0.7, 0.3]}),
    ("donod", {"don": "grow"}),
    ("donod", {"step_size": 10.0, "normalization": "minmax", "length_correction": True}),
    ("perplexity", {"keep": "high"}),
    ("el2n", {"keep": "low"}),
    ("grad_norm", {"keep": "low"}),
    ("ifd", {"variant": "superfiltering", "drop_above_one": False}),
    ("ifd", {"keep": "low"}),
    ("response_noise", {"numbers": False, "n_clusters": 3}),
    ("combined", {"by": "mean_rank", "within": "kind", "min_group": 20}),
    ("combined", {"by": "topsis", "within": "column:kind", "scorers": ["donod", "ifd", "length"]}),
    ("combined", {"by": "topsis", "scorers": ["ifd", {"name": "ifd", "parameters": {"keep": "low"}}]}),
    ("combined", {"within": "cluster", "n_clusters": 3, "scorers": ["el2n", "prototypes"]}),
    ("combined", {"scorers": ["random", "perplexity", "combined"]}),
    (
        "d2",
        {"scorer": {"name": "el2n", "parameters": {"keep": "low"}}, "n_neighbors": 3, "gamma_reverse": 0.1},
    ),
    ("k_center", {"centres": 20}),
    ("feature_mapping", {"within": "cluster", "n_clusters": 3}),
    ("label_mapping", {"within": "kind", "train_rows": 50}),
    ("paser", {"n_clusters": 3, "target": True, "budget": "degradation_size"}),
    ("paser", {"within": "kind", "degradation": "gradient", "efficiency": "typical", "weights": {"1": 0.0}}),
    ("paser", {"within": "cluster", "degradation": "loss", "efficiency": "loss_per_cost", "concepts": 0}),
    ("paser", {"n_clusters": 4, "efficiency": "random", "budget": "uniform"}),
]


def signals_and_a_column():
    signals = example_signals()
    codes = np.random.default_rng(0).choice(4, size=signals.num_rows, p=[0.5, 0.3, 0.15, 0.05])
    return replace(signals, measured={**signals.measured, "column:kind": codes})


@pytest.mark.parametrize("check", SCORER_CHECKS.values(), ids=SCORER_CHECKS)
@pytest.mark.parametrize(("name", "parameters"), [(name, {}) for name in built_in(SCORERS)] + VARIANTS)
def test_built_in_scorers(name, parameters, check):
    check(make_scorer(name, parameters), signals_and_a_column())


@pytest.mark.parametrize("check", SELECTOR_CHECKS.values(), ids=SELECTOR_CHECKS)
@pytest.mark.parametrize(
    "selector",
    [
        *(make_selector(name) for name in built_in(SELECTORS)),
        GroupQuota("proportional"),
        GroupQuota("l2", 0.5),
        TopK(0.5),
        CCS(0.0, 7),
        CCS(0.9, 3),
        MessagePassingSelector(0.0),
    ],
    ids=repr,
)
def test_built_in_selectors(selector, check):
    check(selector)


@dataclass(frozen=True)
class Fair(Scorer):
    name: ClassVar[str] = "fair"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})

    def _score(self, signals):
        from datapruner.geometry.blocks import iter_blocks, require_finite

        norms = []
        for start, _, block in iter_blocks(signals["embedding"]):
            require_finite(block, start, matrix=signals["embedding"])
            norms.append(np.linalg.norm(block, axis=1).astype(np.float64))
        return Ranking(np.concatenate(norms))


def _broken(cls, score, **more):
    return dataclass(frozen=True)(type(cls, (Fair,), {"_score": score, **more}))()


def test_a_custom_scorer_passes():
    check_scorer(Fair())


def _counting(calls=[0]):  # noqa: B006 - the shared list is the defect under test
    def score(self, signals):
        calls[0] += 1
        return Ranking(np.full(signals.num_rows, float(calls[0])))

    return score


def _mutating(self, signals):
    signals["embedding"][0] = 1
    return Ranking(np.ones(signals.num_rows))


@pytest.mark.parametrize(
    ("scorer", "check"),
    [
        (_broken("Short", lambda self, s: Ranking(np.ones(3))), "scorer_ranks_every_row"),
        (
            _broken("Single", lambda self, s: Ranking(np.ones(s.num_rows, np.float32))),
            "scorer_ranks_every_row",
        ),
        (_broken("Counting", _counting()), "scorer_repeats"),
        (_broken("Mutating", _mutating), "scorer_leaves_signals_alone"),
        (_broken("Place", lambda self, s: Ranking(np.arange(float(s.num_rows)))), "scorer_follows_rows"),
        (
            _broken("Place", lambda self, s: Ranking(np.arange(float(s.num_rows)))),
            "scorer_treats_equals_equally",
        ),
        (_broken("Blind", lambda self, s: Ranking(np.ones(s.num_rows))), "scorer_refuses_nan"),
        (
            _broken(
                "Groups", lambda self, s: Ranking(np.ones(s.num_rows), np.arange(s.num_rows) - 1, np.ones(2))
            ),
            "scorer_ranks_every_row",
        ),
        (
            _broken(
                "Reserved",
                lambda self, s: Ranking(np.ones(s.num_rows), columns={"kept": np.ones(s.num_rows)}),
            ),
            "scorer_ranks_every_row",
        ),
        (_broken("Array", lambda self, s: np.ones(s.num_rows)), "scorer_ranks_every_row"),
        (_broken("Named", Fair._score, name="not a word"), "scorer_describes_itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_suite_notices(scorer, check):
    from datapruner.errors import DataPrunerError

    with pytest.raises((AssertionError, DataPrunerError)):
        SCORER_CHECKS[check](scorer, example_signals())


@dataclass(frozen=True)
class Lazy(Selector):
    """Keeps one row too few."""

    name: ClassVar[str] = "lazy"

    def _select(self, ranking, portion, rng):
        choice = TopK()._select(ranking, replace(portion, budget=portion.budget - 1), rng)
        return Choice(choice.kept, choice.codes, choice.texts)


def test_the_suite_notices_an_unspent_budget():
    from datapruner.errors import DataPrunerError

    with pytest.raises(DataPrunerError, match="spent"):
        check_selector(Lazy())


PLUGIN = """
from dataclasses import dataclass
import numpy as np
from datapruner.scorers.base import Ranking, Scorer

@dataclass(frozen=True)
class Backwards(Scorer):
    step: int = 1
    name = "backwards"
    needs = frozenset()

    def _score(self, signals):
        return Ranking(-self.step * np.arange(float(signals.num_rows)))
"""


def test_a_plug_in_is_found_by_its_entry_point(tmp_path, monkeypatch):
    import datapruner as dp
    from datapruner.scorers import available_scorers

    (tmp_path / "their_package.py").write_text(PLUGIN)
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[datapruner.scorers]\nbackwards = their_package:Backwards\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert available_scorers()["backwards"] == "their_package:Backwards"
    selection = dp.prune([{"text": str(row)} for row in range(10)], scorer="backwards", keep=3)
    assert selection.indices.tolist() == [0, 1, 2]
    (info / "entry_points.txt").write_text("[datapruner.scorers]\nbackwards = their_package:Missing\n")
    with pytest.raises(dp.DataPrunerError, match="cannot be imported"):
        dp.prune([{"text": "a"}], scorer="backwards", keep=1)
