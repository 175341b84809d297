"""Even steps along a walk: against counting, and against what they are for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.scorers.base import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selectors.ccs import CCS
from datapruner.selection.selectors.coverage import WALK, Coverage, evenly


def portion(n, budget, costs=None):
    return Portion(np.arange(n), np.ones(n, np.int64) if costs is None else costs, budget)


def ranking(values, walk):
    return Ranking(np.asarray(values, np.float64), columns={WALK: np.asarray(walk)})


@given(st.integers(1, 300), st.integers(0, 400), st.floats(0, 0.999))
def test_marks_as_many_as_the_budget_at_even_steps(m, budget, start):
    marked = np.flatnonzero(evenly(np.ones(m, np.int64), budget, start))
    assert len(marked) == min(m, budget)
    if len(marked) > 1:
        steps = np.diff(marked)
        assert steps.max() - steps.min() <= 1
        # And around the end: the walk is closed.
        assert abs(marked[0] + m - marked[-1] - m / len(marked)) < 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=100), st.integers(0, 3000))
def test_of_unequal_costs_the_average_buys_the_number(costs, budget):
    array = np.array(costs, dtype=np.int64)
    count = int(evenly(array, budget, 0.5).sum())
    assert count == min(len(array), budget * len(array) // int(array.sum()))


def test_every_stretch_of_the_walk_is_met_in_proportion():
    rng = np.random.default_rng(0)
    n = 10_000
    walk = rng.permutation(n)
    held = ranking(np.zeros(n), walk)
    kept = Coverage(beta=0, strata=1).select(held, portion(n, 1000), np.random.default_rng(1)).kept
    stretch = np.bincount(walk[kept] // 100)
    assert stretch.tolist() == [10] * 100
    drawn = CCS(beta=0, strata=1).select(held, portion(n, 1000), np.random.default_rng(1)).kept
    assert np.bincount(walk[drawn] // 100).std() > 2


def test_strata_share_the_budget_as_in_ccs():
    rng = np.random.default_rng(2)
    values = rng.exponential(size=3000)
    held = ranking(values, rng.permutation(3000))
    both = [
        selector.select(held, portion(3000, 400), np.random.default_rng(3)).kept
        for selector in (Coverage(beta=0.1, strata=7), CCS(beta=0.1, strata=7))
    ]
    edges = np.linspace(values.min(), np.sort(values)[2699], 8)
    counts = [np.histogram(values[kept], edges)[0] for kept in both]
    np.testing.assert_array_equal(*counts)
    assert values[both[0]].max() < np.sort(values)[2700]


def test_the_seed_moves_the_start_alone():
    held = ranking(np.zeros(1000), np.arange(1000))
    starts = set()
    for seed in range(20):
        kept = Coverage(beta=0, strata=1).select(held, portion(1000, 50), np.random.default_rng(seed)).kept
        marked = np.flatnonzero(kept)
        assert (np.diff(marked) == 20).all()
        starts.add(int(marked[0]))
    assert len(starts) > 8


def test_reasons_name_the_stratum():
    held = ranking(np.arange(100.0), np.arange(100))
    choice = Coverage().select(held, portion(100, 45), np.random.default_rng(0))
    said = {choice.texts[code] for code in choice.codes.tolist()}
    assert "kept: taken on the walk through score stratum 1 of 3" in said
    assert "dropped: passed over on the walk through score stratum 3 of 3" in said
    assert "dropped: among the 0.1 highest scores" in said


def test_a_ranking_without_a_walk_is_refused():
    with pytest.raises(
        DataPrunerError, match="use the scorer entanglement or topoprune, or the selector ccs"
    ):
        Coverage().select(Ranking(np.zeros(5)), portion(5, 2), np.random.default_rng(0))


@pytest.mark.parametrize("selector", [Coverage(), CCS()])
def test_rows_that_tie_with_the_cut_are_not_the_hardest(selector):
    walk = np.random.default_rng(0).permutation(200)
    choice = selector.select(ranking(np.zeros(200), walk), portion(200, 50), np.random.default_rng(1))
    assert not any("highest scores" in choice.texts[code] for code in choice.codes.tolist())
    values = np.r_[np.zeros(190), np.full(10, 1.0)]
    choice = selector.select(ranking(values, walk), portion(200, 50), np.random.default_rng(1))
    hardest = ["highest scores" in choice.texts[code] for code in choice.codes.tolist()]
    assert hardest == [False] * 190 + [True] * 10


@pytest.mark.parametrize("selector", [Coverage(beta=0, strata=1), CCS(beta=0, strata=1)])
@pytest.mark.parametrize("seed", range(6))
def test_a_row_that_does_not_fit_is_told_so(selector, seed):
    costs = np.array([1, 1, 50, 1, 1, 1, 50, 1, 1, 1])
    tokens = Portion(np.arange(10), costs, 40, unit="tokens")
    choice = selector.select(ranking(np.zeros(10), np.arange(10)), tokens, np.random.default_rng(seed))
    assert choice.kept.sum() == 8
    said = [choice.texts[code] for code in choice.codes.tolist()]
    for row, text in enumerate(said):
        assert text.startswith("kept" if costs[row] == 1 else "dropped")
    assert any("too long" in said[row] for row in (2, 6)) or selector.name == "ccs"
