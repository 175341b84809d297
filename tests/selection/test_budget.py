"""Budgets are met exactly, per group and with always-kept rows, whatever the data looks like."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.budget import Budget, parse_amount
from datapruner.errors import DataPrunerError
from datapruner.samples.labels import encode_labels
from datapruner.selection.budget_rows import check_budget, portions
from tests.conftest import examples


@given(st.integers(1, 10**12))
def test_whole_numbers_are_rows(number):
    assert parse_amount(str(number)) == number
    assert isinstance(parse_amount(str(number)), int)


@given(st.floats(1e-9, 1))
def test_numbers_with_a_point_are_fractions(number):
    parsed = parse_amount(repr(number))
    assert parsed == number
    assert isinstance(parsed, float)


@pytest.mark.parametrize("text", ["", "abc", "30%", "0,3", "1e", "0x10", "--"])
def test_other_texts_are_refused(text):
    with pytest.raises(DataPrunerError, match="fraction"):
        parse_amount(text)


@pytest.mark.parametrize("keep", [0, -1, 0.0, -0.5, 1.5, float("nan"), float("inf"), True, "0.3"])
def test_amounts_without_meaning_are_refused(keep):
    with pytest.raises(DataPrunerError, match="keep"):
        Budget(keep=keep)


@st.composite
def cases(draw):
    n = draw(st.integers(1, 60))
    costs = np.array(draw(st.lists(st.integers(1, 30), min_size=n, max_size=n)))
    eligible = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    forced = eligible & np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    labels = draw(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=n, max_size=n))
    return n, costs, eligible, forced, labels


def half_up(share, of):
    return int((Decimal(str(share)) * of).quantize(Decimal(1), ROUND_HALF_UP))


@given(st.integers(1, 1000).map(lambda number: number / 1000), st.integers(1, 3000), st.integers(1, 3000))
def test_a_fraction_is_what_its_decimals_say(share, rows, own):
    labels = ["a"] * own + ["b"] * rows
    costs, eligible, forced, _ = _even(labels)
    (part,) = portions(Budget(keep=share), costs, eligible, forced, None)
    assert part.budget == max(1, half_up(share, own + rows))
    budget = Budget(keep=own + rows - 1, per_group="x", quotas={"a": share})
    if half_up(share, own) + rows >= own + rows - 1:
        quota = {part.name: part.budget for part in portions(budget, costs, eligible, forced, labels)}
        assert quota["a"] == half_up(share, own)


@settings(max_examples=examples(200))
@given(cases(), st.floats(0.01, 1), st.booleans(), st.booleans())
def test_portions_divide_the_budget_without_loss(case, share, in_tokens, grouped):
    n, costs, eligible, forced, labels = case
    if not in_tokens:
        costs = np.ones(n, dtype=np.int64)
    budget = Budget(
        keep=None if in_tokens else share,
        keep_tokens=max(1, int(share * costs.sum())) if in_tokens else None,
        per_group="label" if grouped else None,
    )
    room = int(costs[eligible].sum())
    asked = budget.keep_tokens if in_tokens else max(1, half_up(share, n))
    expected = min(asked, room)
    if costs[forced].sum() > expected:
        with pytest.raises(DataPrunerError, match="always-kept"):
            portions(budget, costs, eligible, forced, labels if grouped else None)
        return
    parts = portions(budget, costs, eligible, forced, labels if grouped else None)
    rows = np.sort(np.concatenate([part.rows for part in parts]))
    assert np.array_equal(rows, np.flatnonzero(eligible & ~forced))
    assert sum(part.budget for part in parts) == expected - costs[forced].sum()
    for part in parts:
        assert 0 <= part.budget <= part.costs.sum()
        assert np.array_equal(part.costs, costs[part.rows])
        if grouped:
            assert {labels[row] or "(none)" for row in part.rows} <= {part.name}


def _even(labels):
    n = len(labels)
    ones = np.ones(n, dtype=np.int64)
    return ones, np.ones(n, dtype=bool), np.zeros(n, dtype=bool), labels


def test_groups_share_in_proportion():
    parts = portions(Budget(keep=0.3, per_group="x"), *_even(["a"] * 100 + ["b"] * 50))
    assert {part.name: part.budget for part in parts} == {"a": 30, "b": 15}


def test_a_quota_is_that_groups_own_share_and_the_rest_goes_to_the_others():
    budget = Budget(keep=60, per_group="x", quotas={"a": 0.5})
    parts = portions(budget, *_even(["a"] * 100 + ["b"] * 60 + ["c"] * 40))
    assert {part.name: part.budget for part in parts} == {"a": 50, "b": 6, "c": 4}
    parts = portions(Budget(keep=60, per_group="x", quotas={"b": 30}), *_even(["a"] * 100 + ["b"] * 60))
    assert {part.name: part.budget for part in parts} == {"a": 30, "b": 30}


@pytest.mark.parametrize(
    ("quotas", "said"),
    [
        ({"a": 70}, "quotas of a at least 70 rows are kept"),
        ({"a": 20, "b": 30}, "quotas of a, b at most 50 rows are kept"),
        ({"a": 101}, "'a' is 101 rows, but only 100"),
        ({"z": 0.5}, "'z', which column 'x' does not hold"),
        ({"aa": 0.5}, "Did you mean 'a'"),
    ],
)
def test_quotas_that_cannot_be_met_name_the_group(quotas, said):
    with pytest.raises(DataPrunerError) as error:
        portions(Budget(keep=60, per_group="x", quotas=quotas), *_even(["a"] * 100 + ["b"] * 60))
    assert said in str(error.value)


def test_a_group_that_cleaning_emptied_gives_its_share_away():
    costs, eligible, forced, labels = _even(["a"] * 100 + ["b"] * 100)
    eligible[100:190] = False
    parts = portions(Budget(keep=0.3, per_group="x"), costs, eligible, forced, labels)
    assert {part.name: part.budget for part in parts} == {"a": 50, "b": 10}


def test_a_fraction_above_what_cleaning_left_keeps_all_and_says_so(caplog):
    costs, eligible, forced, _ = _even(["a"] * 40)
    eligible[10:] = False
    (part,) = portions(Budget(keep=0.9), costs, eligible, forced, None)
    assert part.budget == 10
    assert "asks for 36 rows, but cleaning left 10" in caplog.text
    with pytest.raises(DataPrunerError, match="only 10 of 40 are left"):
        portions(Budget(keep=36), costs, eligible, forced, None)


@st.composite
def budgets(draw):
    """Any budget, met or not: rows, a fraction or tokens, in groups or not, with quotas of both kinds."""
    whole = st.integers(1, 70)
    share = st.integers(1, 100).map(lambda number: number / 100)
    keep = draw(st.one_of(whole, share, st.none()))
    grouped = draw(st.booleans())
    amounts = st.one_of(st.integers(0, 30), share)
    quotas = draw(st.dictionaries(st.sampled_from("abcd"), amounts, max_size=3)) if grouped else {}
    tokens = None if keep is not None else draw(st.integers(1, 900))
    return Budget(keep, tokens, "label" if grouped else None, quotas)


def outcome(ask):
    try:
        return ask()
    except DataPrunerError as error:
        return str(error)


@settings(max_examples=examples(150))
@given(cases(), budgets(), st.randoms(use_true_random=False))
def test_what_is_refused_early_is_refused_late_and_all_of_that_at_the_end(case, budget, random):
    n, costs, eligible, forced, labels = case
    costs = costs if budget.in_tokens else np.ones(n, dtype=np.int64)
    labels = labels if budget.per_group else None
    groups = None if labels is None else encode_labels(labels)

    def checked(left, *, more_may_go):
        return outcome(
            lambda: check_budget(budget, costs, left, forced & left, groups, more_may_go=more_may_go)
        )

    late = outcome(lambda: portions(budget, costs, eligible, forced, labels))
    last = checked(eligible, more_may_go=False)
    if isinstance(late, str):
        assert last == late
    else:  # what no portion can buy is found when it is spent
        assert last is None or last.startswith("no row fits into")
    if (early := checked(eligible, more_may_go=True)) is not None:
        # Whatever later steps drop, but for what must be kept: it is not met.
        fewer = eligible & (forced | np.array([random.random() < 0.6 for _ in range(n)]))
        assert isinstance(checked(fewer, more_may_go=False), str)
        assert isinstance(last, str)
        assert early.split()[0] == last.split()[0]


def test_a_fraction_may_fit_once_more_has_gone():
    """Half of each group are 20 rows, and half of all 100 are 50: too many now, and not once 18 are left."""
    labels = ["a"] * 20 + ["b"] * 20 + ["c"] * 60
    costs, eligible, forced, _ = _even(labels)
    budget = Budget(keep=0.5, per_group="x", quotas={"a": 0.5, "b": 0.5, "c": 0.3})
    groups = encode_labels(labels)
    with pytest.raises(DataPrunerError, match="at most 38 rows are kept"):
        check_budget(budget, costs, eligible, forced, groups, more_may_go=False)
    check_budget(budget, costs, eligible, forced, groups, more_may_go=True)
    eligible[9:] = False
    eligible[20:29] = True
    assert sum(part.budget for part in portions(budget, costs, eligible, forced, labels)) == 18
