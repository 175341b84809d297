"""PASER's selector beside a transcription in plain loops, with shares in exact fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import datapruner as dp
from datapruner.scorers import Paser
from datapruner.scorers.base import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selectors.paser import PaserSelector, proportional
from datapruner.signals import Ragged
from datapruner.testing import check_selector
from tests.conftest import examples


def shares_by_hand(weights, caps, budget):
    """Fill groups in proportion until they are full, the largest remainders up; what has no weight comes last."""
    if budget > (reach := sum(cap for cap, weight in zip(caps, weights, strict=True) if weight > 0)):
        shares = [cap if weight > 0 else 0 for cap, weight in zip(caps, weights, strict=True)]
        rest = [0 if weight > 0 else cap for cap, weight in zip(caps, weights, strict=True)]
        more = shares_by_hand(rest, rest, budget - reach)
        return [share + other for share, other in zip(shares, more, strict=True)]
    exact = [Fraction(0)] * len(caps)
    free = {j for j, weight in enumerate(weights) if weight > 0 and caps[j] > 0}
    left = Fraction(budget)
    while free and left:
        scale = left / sum(Fraction(weights[j]) for j in free)
        full = {j for j in free if scale * Fraction(weights[j]) >= caps[j]}
        for j in full or free:
            exact[j] = Fraction(caps[j]) if full else scale * Fraction(weights[j])
        left -= sum(exact[j] for j in full) if full else left
        free -= full
    shares = [int(share) for share in exact]
    order = sorted(range(len(caps)), key=lambda j: (-(exact[j] - shares[j]), j))
    for j in order[: budget - sum(shares)]:
        shares[j] += 1
    return shares


def in_loops(values, groups, weights, concepts, costs, budget):
    """Which rows are kept, and which two concepts each rejected row brings together for the first time."""
    waiting = {
        g: sorted(np.flatnonzero(groups == g).tolist(), key=lambda r: (-values[r], r))
        for g in sorted(set(groups.tolist()))
    }
    known = {g: set() for g in waiting}
    met = {g: set() for g in waiting}
    kept, rejected = set(), {}

    def fits(row):
        g, ids = int(groups[row]), list(dict.fromkeys(concepts[row].tolist()))
        for pair in combinations([c for c in ids if c in known[g]], 2):
            if frozenset(pair) not in met[g]:
                rejected[row] = pair
                return False
        known[g].update(ids)
        met[g].update(map(frozenset, combinations(ids, 2)))
        return True

    left = min(budget, int(costs.sum()))
    moved = True
    while left and moved:
        moved = False
        rooms = [int(costs[rows].sum()) for rows in waiting.values()]
        purses = shares_by_hand([float(weights[g]) for g in waiting], rooms, min(left, sum(rooms)))
        left -= sum(purses)
        for (g, rows), share in zip(waiting.items(), purses, strict=True):
            passed, purse = [], share
            for row in rows:
                if costs[row] > purse:
                    passed.append(row)
                    continue
                moved = True
                if fits(row):
                    kept.add(row)
                    purse -= int(costs[row])
            waiting[g] = passed
            left += purse
    best = sorted((row for rows in waiting.values() for row in rows), key=lambda r: (-values[r], r))
    for row in best:
        if costs[row] <= left and fits(row):
            kept.add(row)
            left -= int(costs[row])
    for row in sorted(rejected, key=lambda r: (-values[r], r)):
        if costs[row] <= left:
            kept.add(row)
            left -= int(costs[row])
    return kept, rejected


def random_ranking(rng):
    n, k = int(rng.integers(1, 60)), int(rng.integers(1, 6))
    weights = rng.random(k) * (rng.random(k) < 0.8)
    if rng.random() < 0.3:  # equal weights tie
        weights[:] = 0.5
    vocabulary = int(rng.integers(1, 12))
    held = [rng.integers(0, vocabulary, size=rng.integers(0, 4)) for _ in range(n)]
    concepts = Ragged.from_rows(held, np.int64)
    names = np.array([f"c{number}" for number in range(vocabulary)])
    return Ranking(
        np.round(rng.normal(size=n), int(rng.integers(0, 3))),  # so that values tie
        rng.integers(0, k, size=n),
        weights,
        state={"concepts": concepts, "concept_names": names},
    )


def select(ranking, costs, budget, rows=None, name=""):
    rows = np.arange(len(costs)) if rows is None else rows
    unit = "rows" if (costs == 1).all() else "tokens"
    return PaserSelector().select(ranking, Portion(rows, costs, budget, name, unit), np.random.default_rng(0))


@settings(max_examples=examples(200), deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tokens=st.booleans(), share=st.floats(0, 1))
def test_it_is_the_plain_algorithm(seed, tokens, share):
    rng = np.random.default_rng(seed)
    ranking = random_ranking(rng)
    n = len(ranking.values)
    costs = rng.integers(1, 30, size=n) if tokens else np.ones(n, np.int64)
    budget = int(share * costs.sum())
    choice = select(ranking, costs, budget)
    kept, rejected = in_loops(
        ranking.values, ranking.groups, ranking.group_weights, ranking.state["concepts"], costs, budget
    )
    assert set(np.flatnonzero(choice.kept).tolist()) == kept
    for row in range(n):
        text = choice.texts[choice.codes[row]]
        assert text.startswith("kept" if row in kept else "dropped")
        named = re.search(r"'c(\d+)' and 'c(\d+)'", text)
        assert (named is None) == (row not in rejected)
        if named is not None:
            assert tuple(map(int, named.groups())) == rejected[row]
    left = budget - int(costs[choice.kept].sum())
    assert left == 0 or (tokens and (choice.kept.all() or 0 < left < costs[~choice.kept].min()))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_portion_is_chosen_from_as_if_it_were_all(seed):
    rng = np.random.default_rng(seed)
    ranking = random_ranking(rng)
    n = len(ranking.values)
    rows = np.sort(rng.permutation(n)[: max(1, n // 2)])
    costs = np.ones(len(rows), np.int64)
    budget = int(rng.integers(0, len(rows) + 1))
    alone = Ranking(
        ranking.values[rows],
        ranking.groups[rows],
        ranking.group_weights,
        state={**ranking.state, "concepts": ranking.state["concepts"].take(rows)},
    )
    inside = select(ranking, costs, budget, rows, "math")
    assert np.array_equal(inside.kept, select(alone, costs, budget).kept)
    assert all(
        "within math" in text or "stand together" in text for text in set(np.take(inside.texts, inside.codes))
    )


@settings(max_examples=examples(300), deadline=None)
@example(groups=[(0.0, 3), (0.0, 4), (0.0, 8), (1.0, 2), (1.0, 9)], share=14 / 26)
@example(groups=[(0.0, 3), (0.0, 5), (1.0, 5)], share=0.75)
@given(
    groups=st.lists(st.tuples(st.floats(0, 1, width=16), st.integers(0, 9)), min_size=1, max_size=6),
    share=st.floats(0, 1),
)
def test_shares_are_proportional_within_caps(groups, share):
    weights = np.array([weight for weight, _ in groups])
    caps = np.array([cap for _, cap in groups], dtype=np.int64)
    budget = round(share * caps.sum())
    assert proportional(weights, caps, budget).tolist() == shares_by_hand(
        weights.tolist(), caps.tolist(), budget
    )


def test_equal_remainders_go_to_the_first_group():
    # Of 14 rows the groups with a weight hold 11, and the others share 3: 0.6, 0.8 and 1.6.
    shares = proportional(np.array([0.0, 0, 0, 1, 1]), np.array([3, 4, 8, 2, 9]), 14)
    assert shares.tolist() == [1, 1, 1, 2, 9]


@pytest.mark.parametrize("seed", range(20))
def test_no_other_shares_are_nearer_to_the_weights(seed):
    """Largest remainders are nearest to the exact shares of all whole counts within the caps."""
    rng = np.random.default_rng(seed)
    weights, caps = rng.random(4), rng.integers(1, 6, size=4)
    budget = int(rng.integers(0, caps.sum() + 1))
    found = proportional(weights, caps, budget)
    low, high = 0.0, 1e6
    for _ in range(200):  # the scale at which the clipped shares add up
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * weights, caps).sum() < budget else (low, middle)
    wished = np.minimum(high * weights, caps)
    counts = [c for c in product(*(range(cap + 1) for cap in caps)) if sum(c) == budget]
    nearest = min(((np.array(c) - wished) ** 2).sum() for c in counts)
    assert ((found - wished) ** 2).sum() == pytest.approx(nearest, abs=1e-9)


def made(values, groups, weights, concepts=None):
    """A ranking of rows whose concepts are given as words."""
    state = {}
    if concepts is not None:
        names = sorted({word for row in concepts for word in row.split()})
        ids = [np.array([names.index(word) for word in row.split()], dtype=np.int64) for row in concepts]
        state = {"concepts": Ragged.from_rows(ids, np.int64), "concept_names": np.array(names)}
    return Ranking(
        np.array(values, dtype=np.float64), np.array(groups), np.array(weights, dtype=np.float64), state=state
    )


def ones(n):
    return np.ones(n, dtype=np.int64)


def test_a_true_conflict_is_named_and_repeated_or_new_concepts_are_kept():
    concepts = [
        "tea pot",
        "oven bread",
        "tea pot",
        "tea bread",
        "tea oven pot",
        "sail wind",
        "pot kettle",
        "rope",
    ]
    choice = select(made(range(8, 0, -1), [0] * 8, [1], concepts), ones(8), 5)
    told = [choice.texts[code] for code in choice.codes]
    assert choice.kept.tolist() == [True, True, True, False, False, True, True, False]
    assert told[3].startswith("dropped: 'tea' and 'bread' are known in cluster 0")
    assert told[4].startswith("dropped: 'tea' and 'oven' are known in cluster 0")
    assert all(told[row].startswith("kept: among the 5 of 8 rows") for row in (0, 1, 2, 5, 6))
    assert told[7].startswith("dropped: not among the 5 of 8 rows")


def test_a_group_s_concepts_are_its_own():
    concepts = ["tea pot", "oven bread", "tea bread"]
    assert not select(made([3, 2, 1], [0, 0, 0], [1, 1], concepts), ones(3), 2).kept[2]
    assert (
        select(made([3, 2, 1], [0, 1, 1], [1, 1], concepts), ones(3), 3).texts
        == select(made([3, 2, 1], [0, 1, 1], [1, 1], None), ones(3), 3).texts
    )


def test_rejected_rows_are_taken_last_and_say_so():
    concepts = ["tea pot", "oven bread", "tea bread", "pot oven", "sail wind"]
    ranking = made([9, 8, 7, 6, 1], [0] * 5, [1], concepts)
    choice = select(ranking, ones(5), 4)
    assert choice.kept.tolist() == [True, True, True, False, True]
    assert choice.texts[choice.codes[2]].startswith("kept: although 'tea' and 'bread' are known")
    assert choice.texts[choice.codes[3]].startswith("dropped: 'pot' and 'oven' are known")


def test_what_a_group_of_conflicts_cannot_spend_goes_to_the_others():
    """Nearly all the weight is of a group whose last rows are in conflict; the other group's are not."""
    concepts = ["tea pot", "oven bread", "tea bread", "pot oven", "sail", "wind"]
    choice = select(made([9, 8, 7, 6, 1, 0], [0, 0, 0, 0, 1, 1], [1, 1e-9], concepts), ones(6), 4)
    assert choice.kept.tolist() == [True, True, False, False, True, True]


def test_tokens_left_over_go_to_a_row_without_conflict_first():
    """Two groups are left with 5 tokens each: neither can have its row of 9, and together they can."""
    concepts = ["tea pot", "oven bread", "tea bread", "sail", "wind", "rope"]
    costs = np.array([4, 4, 4, 8, 9, 9])
    ranking = made([9, 8, 7, 6, 3, 2], [0, 0, 0, 1, 0, 1], [1, 1], concepts)
    choice = select(ranking, costs, 26)
    assert choice.kept.tolist() == [True, True, False, True, True, False]


def test_groups_without_damage_come_last():
    choice = select(made([1, 2, 8, 9], [0, 0, 1, 1], [1, 0]), ones(4), 3)
    assert choice.kept.tolist() == [True, True, False, True]


def test_conflicts_of_a_dataset_are_named_end_to_end():
    texts = ["teapot, kettle", "lantern, compass", "teapot, lantern", "kettle, teapot", "anchor, compass"]
    rows = [{"text": text, "skill": "s"} for text in [*texts, "anchor, kettle", "unheard"]]
    jsd = np.linspace(0.6, 0.1, len(rows))
    scorer = Paser(within="skill", efficiency="jsd")
    selection = dp.prune(rows, scorer=scorer, keep=4, divergences=jsd)
    assert selection.indices.tolist() == [0, 1, 3, 4]
    assert "'teapot' and 'lantern'" in selection.explain(2)["reason"]
    more = selection.rebudget(keep=5)
    assert more.indices.tolist() == [0, 1, 3, 4, 6]
    assert "'kettle' and 'anchor'" in more.explain(5)["reason"]


def test_it_passes_the_contract():
    check_selector(PaserSelector())
