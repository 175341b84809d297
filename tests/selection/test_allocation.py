from __future__ import annotations

import itertools
import math
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.parameters import as_written
from datapruner.selection import shares
from datapruner.selection.allocation import allocate, allocate_continuous, allocate_exactly
from tests.conftest import examples

PROJECTIONS = ["l2", "proportional"]


def instance(rng, groups, scale, *, extreme=False):
    weights = 10.0 ** rng.uniform(-12, 12, groups) if extreme else rng.exponential(size=groups)
    weights[rng.random(groups) < 0.2] = 0
    sizes = rng.integers(0, scale + 1, groups)
    floors = np.where(rng.random(groups) < 0.4, rng.integers(0, sizes + 1), 0)
    weights[rng.integers(groups)] = 1.0
    return weights, sizes, floors


def feasible_budget(rng, weights, sizes, floors, projection):
    most = np.where(weights > 0, sizes, floors) if projection == "proportional" else sizes
    return int(rng.integers(floors.sum(), most.sum() + 1))


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_continuous_solution_satisfies_kkt(projection):
    rng = np.random.default_rng(1)
    for trial in range(1000):
        scale = int(10 ** rng.uniform(0.5, 12))
        w, sizes, floors = instance(rng, int(rng.integers(1, 40)), scale, extreme=trial % 2 == 0)
        budget = feasible_budget(rng, w, sizes, floors, projection)
        x = allocate_continuous(w, sizes, budget, floors, projection)
        tolerance = 1e-9 * max(budget, 1)
        assert abs(x.sum() - budget) <= tolerance
        assert (x >= floors).all()
        assert (x <= sizes).all()
        cap = np.where(w > 0, sizes, floors) if projection == "proportional" else sizes
        can_grow, can_shrink = x < cap - tolerance, x > floors + tolerance
        if not can_shrink.any():
            continue
        if projection == "l2":
            slope = x - budget * w / w.sum()
            if can_grow.any():
                assert slope[can_shrink].max() <= slope[can_grow].min() + 2 * tolerance
        else:
            owners = np.flatnonzero(can_shrink & (w > 0))
            owner = owners[np.argmax(np.log(x[owners]) - np.log(w[owners]))]
            assert np.abs(np.clip(x[owner] * (w / w[owner]), floors, cap) - x).max() <= 2 * tolerance


def test_integers_are_the_optimum():
    rng = np.random.default_rng(2)
    for _ in range(400):
        groups = int(rng.integers(1, 5))
        w, sizes, floors = instance(rng, groups, 7)
        budget = feasible_budget(rng, w, sizes, floors, "l2")
        wish = budget * w / w.sum()
        ranges = [range(a, b + 1) for a, b in zip(floors, sizes, strict=True)]
        best = min(
            float(((np.array(x) - wish) ** 2).sum()) for x in itertools.product(*ranges) if sum(x) == budget
        )
        counts = allocate(w, sizes, budget, floors)
        assert counts.sum() == budget
        assert ((counts - wish) ** 2).sum() <= best + 1e-9


def in_fractions(weights, sizes, budget, floors, projection):
    """Who lies at a bound, by trying all there are; then the largest remainders, the first of equal ones."""
    w, whole = [Fraction(weight) for weight in weights], sum(map(Fraction, weights))
    for at in itertools.product(("low", "between", "high"), repeat=len(w)):
        if projection == "proportional" and any(
            a != "low" for a, weight in zip(at, w, strict=True) if not weight
        ):
            continue
        fixed = [
            {"low": floor, "high": size}.get(a) for a, floor, size in zip(at, floors, sizes, strict=True)
        ]
        between = [j for j, a in enumerate(at) if a == "between"]
        left = budget - sum(x for x in fixed if x is not None)
        if between and projection == "l2":
            shift = (left - budget * sum(w[j] for j in between) / whole) / len(between)
            wish = [budget * weight / whole + shift for weight in w]
        elif between:
            wish = [left * weight / sum(w[j] for j in between) for weight in w]
        elif left:
            continue
        else:
            wish = None
        if wish is not None and any(
            not {"low": x <= floor, "between": floor <= x <= size, "high": x >= size}[a]
            for a, x, floor, size, weight in zip(at, wish, floors, sizes, weights, strict=True)
            if projection == "l2" or weight
        ):
            continue
        if wish is None and not separable(at, w, whole, budget, floors, sizes, projection):
            continue
        exact = [Fraction(wish[j] if x is None else x) for j, x in enumerate(fixed)]
        counts = [math.floor(x) for x in exact]
        order = sorted(range(len(w)), key=lambda j: (counts[j] - exact[j], j))
        for j in order[: budget - sum(counts)]:
            counts[j] += 1
        return counts, exact
    raise AssertionError("no shares meet the budget")


def separable(at, w, whole, budget, floors, sizes, projection):
    """Whether one level has all of these groups at or beyond these bounds."""

    def level(j, bound):
        return bound - budget * w[j] / whole if projection == "l2" else Fraction(bound) / w[j]

    groups = [j for j in range(len(w)) if projection == "l2" or w[j]]
    least = [level(j, sizes[j]) for j in groups if at[j] == "high"]
    most = [level(j, floors[j]) for j in groups if at[j] == "low"]
    return not least or not most or max(least) <= min(most)


@st.composite
def small_problems(draw):
    groups = draw(st.integers(1, 4))
    weight = draw(
        st.sampled_from([st.integers(0, 6), st.sampled_from([0, 0.1, 0.2, 0.3, 0.7]), st.floats(0, 1e9)])
    )
    weights = draw(st.lists(weight, min_size=groups, max_size=groups))
    top = draw(st.sampled_from([4, 12, 10**9]))
    sizes = draw(st.lists(st.integers(0, top), min_size=groups, max_size=groups))
    floors = [draw(st.one_of(st.just(0), st.integers(0, size))) for size in sizes]
    projection = draw(st.sampled_from(PROJECTIONS))
    caps = [f if w == 0 and projection == "proportional" else s
            for w, s, f in zip(weights, sizes, floors, strict=True)]  # fmt: skip
    budget = sum(floors) if not any(weights) else draw(st.integers(sum(floors), sum(caps)))
    return weights, sizes, budget, floors, projection


@settings(max_examples=examples(400), deadline=None)
@given(small_problems())
def test_every_count_is_that_of_exact_fractions(problem):
    weights, sizes, budget, floors, projection = problem
    counts, exact = in_fractions(*problem) if any(weights) else (floors, floors)
    assert allocate(weights, sizes, budget, floors, projection).tolist() == counts
    numerators, unit = allocate_exactly(weights, sizes, budget, floors, projection)
    assert [Fraction(x, unit) for x in numerators.tolist()] == exact
    assert allocate_continuous(weights, sizes, budget, floors, projection).tolist() == pytest.approx(
        [float(x) for x in exact], rel=1e-15, abs=0
    )


@settings(max_examples=examples(200), deadline=None)
@given(small_problems(), st.sampled_from([2.0**-40, 2.0**-1, 2.0**300]))
def test_the_unit_of_weights_and_the_width_of_numbers_decide_nothing(problem, unit):
    weights, sizes, budget, floors, projection = problem
    counts = allocate(weights, sizes, budget, floors, projection).tolist()
    assert allocate(np.array(weights) * unit, sizes, budget, floors, projection).tolist() == counts
    if budget < 10**6:  # by Python's integers where it was by numpy's
        with mock.patch.object(shares, "FITS", 0):
            wide = allocate_exactly(weights, sizes, budget, floors, projection)
        narrow = allocate_exactly(weights, sizes, budget, floors, projection)
        assert [Fraction(x, wide[1]) for x in wide[0].tolist()] == [
            Fraction(x, narrow[1]) for x in narrow[0].tolist()
        ]


@settings(max_examples=examples(100), deadline=None)
@given(small_problems())
def test_a_wrong_guess_of_the_floats_is_noticed(problem):
    counts = allocate(*problem[:4], problem[4]).tolist()
    for share in (0.0, 0.5, 1.0):

        def guess(self, share=share):
            low = np.arange(len(self.low)) < share * len(self.low)
            return low, ~low

        with mock.patch.object(shares._Problem, "_by_floats", guess):
            assert allocate(*problem[:4], problem[4]).tolist() == counts


@given(st.lists(st.integers(0, 2**80), min_size=1, max_size=12), st.data())
def test_the_largest_are_those_of_a_stable_sort(values, data):
    values += [values[0], values[0] + 1, values[-1]]
    count = data.draw(st.integers(0, len(values)))
    found = shares.largest(np.array(values, dtype=object), count)
    assert sorted(found.tolist()) == sorted(sorted(range(len(values)), key=lambda j: -values[j])[:count])


@st.composite
def problems(draw):
    groups = draw(st.integers(1, 12))
    positive = st.floats(1e-300, 1e300)
    weights = draw(st.lists(st.one_of(st.just(0.0), positive), min_size=groups, max_size=groups))
    weights[draw(st.integers(0, groups - 1))] = draw(positive)
    top = draw(st.sampled_from([3, 100, 10**12]))
    sizes = draw(st.lists(st.integers(0, top), min_size=groups, max_size=groups))
    floors = [draw(st.integers(0, size)) for size in sizes]
    projection = draw(st.sampled_from(PROJECTIONS))
    caps = [f if w == 0 and projection == "proportional" else s
            for w, s, f in zip(weights, sizes, floors, strict=True)]  # fmt: skip
    budget = draw(st.integers(sum(floors), sum(caps)))
    return np.array(weights), np.array(sizes), budget, np.array(floors), projection


@settings(max_examples=examples(300), deadline=None)
@given(problems())
def test_sum_and_bounds_are_exact(problem):
    weights, sizes, budget, floors, projection = problem
    counts = allocate(weights, sizes, budget, floors, projection)
    assert counts.dtype == np.int64
    assert sum(counts.tolist()) == budget
    assert (counts >= floors).all()
    assert (counts <= sizes).all()
    if projection == "proportional":
        assert (counts == floors)[weights == 0].all()
    share = allocate_continuous(weights, sizes, budget, floors, projection)
    assert (np.abs(counts - share) <= 1 + 1e-15 * budget).all()


@settings(max_examples=examples(300), deadline=None)
@given(problems(), st.data())
def test_a_larger_weight_never_gets_less(problem, data):
    weights, _, _, _, projection = problem
    size = data.draw(st.integers(0, 10**6))
    floor = data.draw(st.integers(0, size))
    n, p = len(weights), int((weights > 0).sum())
    most = p * size + (n - p) * floor if projection == "proportional" else n * size
    budget = data.draw(st.integers(n * floor, most))
    counts = allocate(weights, np.full(n, size), budget, np.full(n, floor), projection)
    order = np.argsort(weights, kind="stable")
    rising, got = weights[order], counts[order]
    assert (np.diff(got)[np.diff(rising) > 0] >= 0).all()


@settings(max_examples=examples(200), deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_permutation_equivariance_up_to_ties(problem, random):
    weights, sizes, budget, floors, projection = problem
    order = list(range(len(weights)))
    random.shuffle(order)
    one = allocate_continuous(weights, sizes, budget, floors, projection)
    other = allocate_continuous(weights[order], sizes[order], budget, floors[order], projection)
    np.testing.assert_allclose(other, one[order], atol=1e-9 * max(budget, 1), rtol=0)
    counts = allocate(weights, sizes, budget, floors, projection)
    moved = allocate(weights[order], sizes[order], budget, floors[order], projection)
    assert (np.abs(moved - counts[order]) <= 1 + 1e-9 * budget).all()


def test_ties_go_to_the_lowest_index():
    assert allocate([1, 1, 1], [9, 9, 9], 10).tolist() == [4, 3, 3]
    assert allocate([1, 1, 1], [9, 9, 9], 11, projection="proportional").tolist() == [4, 4, 3]


def test_zero_weight_is_paid_by_l2_only():
    assert allocate([0, 1], [10, 4], 8, [1, 0]).tolist() == [4, 4]
    assert allocate([0, 1], [10, 8], 8, [1, 0], "proportional").tolist() == [1, 7]
    with pytest.raises(DataPrunerError, match=r"hold 5, below the budget of 8.*to poems"):
        allocate([0, 1], [10, 4], 8, [1, 0], "proportional", names=["poems", "code"])


def test_weights_that_floats_cannot_tell_apart_in_their_shares():
    # Beside 1e17 both are nothing; the larger comes first all the same, and thirds of whole numbers tie.
    assert allocate([1, 2, 1e17], [10] * 3, 11, projection="proportional").tolist() == [0, 1, 10]
    assert allocate([3, 4, 8], [3, 4, 8], 3, projection="proportional").tolist() == [1, 1, 1]
    assert allocate([0.1, 0.3, 0.1 + 0.2], [9] * 3, 2).tolist() == [0, 1, 1]
    whole = np.array([2**62, 2**62 + 1, 2**62])
    assert allocate(whole, [9] * 3, 4, projection="proportional").tolist() == [1, 2, 1]


def test_a_share_is_what_its_decimals_say():
    assert as_written(0.15) == Fraction(3, 20)
    assert as_written(np.float64(0.7)) == Fraction(7, 10)
    assert as_written(1) == 1
    assert as_written(1e-20) == Fraction(1, 10**20)


def test_published_shape():
    # clip(N P + nu): the capped group's surplus is shared evenly, not in proportion.
    counts = allocate_continuous([6, 3, 1], [300, 1000, 1000], 1000)
    np.testing.assert_allclose(counts, [300, 450, 250])
    counts = allocate_continuous([6, 3, 1], [300, 1000, 1000], 1000, projection="proportional")
    np.testing.assert_allclose(counts, [300, 525, 175])


def test_weights_beyond_the_range_of_their_ratio():
    weights = [1e308, 1e308, 5e-324]
    counts = allocate(weights, [5, 5, 10**12], 10**12, projection="proportional")
    assert counts.tolist() == [5, 5, 10**12 - 10]
    assert allocate(weights, [5, 5, 10**12], 10**12).tolist() == [5, 5, 10**12 - 10]


def test_token_budgets_are_exact():
    rng = np.random.default_rng(3)
    weights, sizes = rng.random(2000), rng.integers(1, 10**10, 2000)
    for projection in PROJECTIONS:
        assert allocate(weights, sizes, 10**12 + 7, projection=projection).sum() == 10**12 + 7
    huge = np.full(4, 2**62)  # the caps' sum does not fit 64 bits
    assert allocate([1, 2, 3, 4], huge, 10).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_trivial_budgets(projection):
    assert allocate([0, 0], [3, 3], 2, [1, 1], projection).tolist() == [1, 1]
    assert allocate([1, 2], [3, 4], 7, projection=projection).tolist() == [3, 4]
    assert allocate([1, 2], [3, 4], 0, projection=projection).tolist() == [0, 0]
    assert allocate([], [], 0, projection=projection).tolist() == []
    assert allocate([1.0, 2.0], np.array([3.0, 4.0]), np.int64(2), projection=projection).sum() == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 1], [2, 2], 3, [2, 2]), "floors add up to 4"),
        (([1, 1], [2, 2], 5), "hold 4, below the budget of 5"),
        (([1, 1], [2, 2], -1), "not be negative"),
        (([1, 1], [2, 2], 3, [3, 0]), "above the group's size in maths"),
        (([1, -1], [2, 2], 3), "not negative; see code"),
        (([np.nan, 1], [2, 2], 3), "see maths"),
        (([0, 0], [2, 2], 3), "All weights are zero"),
        (([0, 0], [2, 2], 3, None, "proportional"), "All weights are zero"),
        (([1, 1], [2, 2.5], 3), "whole numbers"),
        (([1, 1], [2, -2], 0), "must not be negative; see code"),
        (([1, 1], [2], 1), "equal length"),
        (([1, 1], [2, 2], 1, None, "l1"), "projection"),
    ],
)
def test_errors_say_which_group(arguments, message):
    with pytest.raises(DataPrunerError, match=message):
        allocate(*arguments, names=["maths", "code"])
