"""Taking, quotas, strata and floors against brute force and hand-worked cases."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.scorers.base import Ranking
from datapruner.selection.allocation import allocate
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import best_first, take
from datapruner.selection.selectors import make_selector
from datapruner.selection.selectors.ccs import CCS
from datapruner.selection.selectors.group_quota import GroupQuota
from datapruner.selection.selectors.moderate import Moderate
from datapruner.selection.selectors.topk import TopK
from tests.conftest import examples


def portion(n, budget, costs=None):
    costs = np.ones(n, dtype=np.int64) if costs is None else np.asarray(costs)
    return Portion(np.arange(n), costs, budget, "", "rows" if (costs == 1).all() else "tokens")


def rng():
    return np.random.default_rng(0)


def take_by_loop(order, costs, budgets, groups):
    """The same rule, one row at a time."""
    kept = np.zeros(len(order), dtype=bool)
    left = list(budgets)
    for row in order:
        if costs[row] <= left[groups[row]]:
            kept[row] = True
            left[groups[row]] -= costs[row]
    rest = sum(left)
    if not (costs == 1).all():
        for row in order:
            if not kept[row] and costs[row] <= rest:
                kept[row] = True
                rest -= costs[row]
    return kept


@settings(max_examples=examples(300))
@given(st.data())
def test_take_equals_the_loop(data):
    m, k = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 5))
    order = np.array(data.draw(st.permutations(range(m))))
    costs = np.array(data.draw(st.lists(st.integers(1, 9), min_size=m, max_size=m)))
    if data.draw(st.booleans()):
        costs = np.ones(m, dtype=np.int64)
    groups = np.array(data.draw(st.lists(st.integers(0, k - 1), min_size=m, max_size=m)))
    budgets = np.array(data.draw(st.lists(st.integers(0, 60), min_size=k, max_size=k)))
    assert np.array_equal(take(order, costs, budgets, groups), take_by_loop(order, costs, budgets, groups))


def test_best_first_breaks_ties_by_position():
    assert best_first(np.array([1.0, 3.0, 1.0, 3.0])).tolist() == [1, 3, 0, 2]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.integers(0, 50))
def test_topk_equals_sorting(values, budget):
    values = np.array(values)
    budget = min(budget, len(values))
    kept = TopK().select(Ranking(values), portion(len(values), budget), rng()).kept
    expected = sorted(range(len(values)), key=lambda row: (-values[row], row))[:budget]
    assert np.flatnonzero(kept).tolist() == sorted(expected)


def test_the_floor_of_topk_is_each_groups_even_share():
    values = np.concatenate([np.arange(80.0) + 100, np.arange(20.0)])
    groups = np.repeat([0, 1], [80, 20])
    kept = TopK(balance=0.5).select(Ranking(values, groups), portion(100, 40), rng()).kept
    # floor(0.5 * 20 * 40 / 100) = 4 of the weak group; the rest by value.
    assert kept[80:].sum() == 4
    assert kept[96:].all()
    assert kept[44:80].all()
    assert TopK().select(Ranking(values, groups), portion(100, 40), rng()).kept[80:].sum() == 0


@settings(max_examples=examples(300))
@given(
    st.integers(1, 99), st.integers(1, 99), st.integers(1, 198), st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0])
)
def test_the_floor_is_exact(first, second, budget, balance):
    n = first + second
    budget = min(budget, n)
    values = np.arange(float(n), 0, -1)  # the second group is weaker throughout
    groups = np.repeat([0, 1], [first, second])
    kept = TopK(balance=balance).select(Ranking(values, groups), portion(n, budget), rng()).kept
    floor = int(Fraction(str(balance)) * second * budget / n)
    expected = max(floor, budget - first)
    assert kept[first:].sum() == expected


def test_shares_of_a_whole_are_what_their_decimals_say():
    # In floats 0.3 of 10 is below 3, 0.57 of 100 below 57, and half of 0.58 of 100 below 29.
    values, groups = np.arange(20.0), np.repeat([1, 0], 10)
    assert (
        TopK(balance=0.3).select(Ranking(values, groups), portion(20, 20), rng()).codes.tolist().count(2) == 6
    )
    spread = np.concatenate([np.full(57, 2.0), np.full(43, 1.0)]) + np.arange(100) * 1e-6
    kept = CCS(beta=0.57, strata=1).select(Ranking(spread), portion(100, 43), rng()).kept
    assert kept[57:].all()
    ranking = Ranking(np.arange(200.0), np.repeat([0, 1], 100), np.array([0.0, 1.0]))
    quota = GroupQuota("proportional", 0.58).select(ranking, portion(200, 100), rng())
    assert quota.kept[:100].sum() == 29


@pytest.mark.parametrize("seed", range(20))
def test_group_quota_equals_allocation_then_sorting(seed):
    random = np.random.default_rng(seed)
    n, k = 200, 6
    values, groups, weights = random.random(n), random.integers(0, k, n), random.random(k)
    choice = GroupQuota("l2", 0.5).select(Ranking(values, groups, weights), portion(n, 60), rng())
    sizes = np.bincount(groups, minlength=k)
    floors = np.minimum(sizes - 1, int(0.5 * 60 / k))
    counts = allocate(weights, sizes, 60, floors)
    for j in range(k):
        members = np.flatnonzero(groups == j)
        best = members[np.argsort(-values[members], kind="stable")][: counts[j]]
        assert np.array_equal(np.flatnonzero(choice.kept & (groups == j)), np.sort(best))


def test_group_quota_needs_groups():
    with pytest.raises(DataPrunerError, match="needs groups"):
        GroupQuota().select(Ranking(np.ones(3)), portion(3, 1), rng())


def test_ccs_follows_the_published_rule():
    random = np.random.default_rng(1)
    values = random.normal(size=1000)
    kept = CCS(beta=0.1, strata=50).select(Ranking(values), portion(1000, 300), rng()).kept
    order = np.argsort(-values, kind="stable")
    assert not kept[order[:100]].any()
    rest = order[100:]
    edges = np.linspace(values[rest].min(), values[rest].max(), 51)
    stratum = np.clip(np.searchsorted(edges, values[rest], side="right") - 1, 0, 49)
    sizes = np.bincount(stratum, minlength=50)
    left, budgets = 300, np.zeros(50, dtype=int)
    visit = [j for j in np.argsort(sizes, kind="stable") if sizes[j]]
    for number, j in enumerate(visit):
        budgets[j] = min(sizes[j], left // (len(visit) - number))
        left -= budgets[j]
    assert np.array_equal(np.bincount(stratum, kept[rest], 50).astype(int), budgets)


def test_ccs_draws_evenly_inside_a_stratum():
    hits = np.zeros(100)
    for seed in range(400):
        ranking = Ranking(np.zeros(100))
        hits += CCS(beta=0.0, strata=1).select(ranking, portion(100, 20), np.random.default_rng(seed)).kept
    # 400 draws with p = 0.2: mean 80, deviation 8.
    assert hits.min() > 40
    assert hits.max() < 120


def test_moderate_keeps_the_middle():
    values = np.random.default_rng(2).permutation(101).astype(float)
    kept = Moderate().select(Ranking(values), portion(101, 11), rng()).kept
    assert sorted(values[kept]) == list(range(45, 56))


def test_unknown_names_and_parameters_are_refused():
    with pytest.raises(DataPrunerError, match="Did you mean 'topk'"):
        make_selector("top_k")
    with pytest.raises(DataPrunerError, match="no parameter 'strat'"):
        make_selector("ccs", {"strat": 3})
    with pytest.raises(DataPrunerError, match="strata"):
        make_selector("ccs", {"strata": "many"})
    with pytest.raises(DataPrunerError, match="projection"):
        GroupQuota("l3")
    assert type(CCS(strata=np.int64(7)).strata) is int
