"""Shares of what is kept: each group has its part to within a row, whatever the others have."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.budget import Budget
from datapruner.errors import DataPrunerError
from datapruner.selection.budget_rows import check_quotas, portions


def spent(budget: Budget, sizes: list[int]) -> dict[str, int]:
    labels = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    n = len(labels)
    found = portions(budget, np.ones(n, np.int64), np.ones(n, bool), np.zeros(n, bool), labels)
    return {portion.name: portion.budget for portion in found}


@st.composite
def mixtures(draw):
    sizes = draw(st.lists(st.integers(1, 60), min_size=2, max_size=6))
    named = draw(st.integers(1, len(sizes) - 1))
    percents = draw(st.lists(st.integers(1, 100 // len(sizes)), min_size=named, max_size=named))
    return (
        sizes,
        {f"g{number}": percent / 100 for number, percent in enumerate(percents)},
        draw(st.integers(1, sum(sizes))),
    )


@given(mixtures())
def test_a_group_gets_its_share_or_all_that_it_has(mixture):
    sizes, shares, keep = mixture
    found = spent(Budget(keep, per_group="g", group_share=shares), sizes)
    assert sum(found.values()) == keep
    short = False
    for number, size in enumerate(sizes):
        name = f"g{number}"
        assert 0 <= found[name] <= size
        if name in shares:
            wish = Fraction(round(shares[name] * 100), 100) * keep
            short |= wish > size
            assert found[name] >= min(size, math.floor(wish))
    rest = {name: count for name, count in found.items() if name not in shares}
    full = any(found[f"g{number}"] == size for number, size in enumerate(sizes))
    if not short and not full:  # nobody hands anything on
        for name, share in shares.items():
            assert abs(found[name] - share * keep) < 1 + 1e-9
        others = sum(size for number, size in enumerate(sizes) if f"g{number}" not in shares)
        left = keep * (1 - sum(Fraction(round(share * 100), 100) for share in shares.values()))
        for name, count in rest.items():
            assert abs(count - left * sizes[int(name[1:])] / others) < 1


def test_a_quota_is_taken_out_before_the_others_share():
    budget = Budget(100, per_group="g", group_share={"g0": 0.3}, quotas={"g1": 20})
    assert spent(budget, [200, 200, 50, 150]) == {"g0": 30, "g1": 20, "g2": 13, "g3": 37}
    with pytest.raises(DataPrunerError, match="more than the budget of 100 rows"):
        spent(Budget(100, per_group="g", group_share={"g0": 0.9}, quotas={"g1": 20}), [200, 200, 9])


def test_what_is_missing_of_a_share_is_told(caplog):
    assert spent(Budget(50, per_group="g", group_share={"g0": 0.5}), [10, 100]) == {"g0": 10, "g1": 40}
    assert "'g0' is to be 0.5 of what is kept, 25 rows, and has 10 left" in caplog.text


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"a": 0.7, "b": 0.4}, "add up to 1.1, more than 1"),
        ({"a": 0}, "above 0 and at most 1"),
        ({"a": 1.5}, "above 0 and at most 1"),
        ({"a": float("nan")}, "above 0 and at most 1"),
        ({"a": "half"}, "above 0 and at most 1"),
        ({"a": True}, "above 0 and at most 1"),
    ],
)
def test_what_is_no_share_is_refused(shares, said):
    with pytest.raises(DataPrunerError, match=said):
        Budget(10, per_group="g", group_share=shares)


def test_shares_of_what_is_not_there_are_refused():
    with pytest.raises(DataPrunerError, match="needs groups"):
        Budget(10, group_share={"a": 0.1})
    with pytest.raises(DataPrunerError, match="has a quota and a share"):
        Budget(10, per_group="g", group_share={"a": 0.1}, quotas={"a": 3})
    with pytest.raises(DataPrunerError, match=r"a share is given for 'cod'.*Did you mean 'code'"):
        check_quotas(Budget(10, per_group="g", group_share={"cod": 0.1}), ["code", "math"])
    with pytest.raises(DataPrunerError, match=r"add up to 0\.6, not to 1"):
        check_quotas(Budget(10, per_group="g", group_share={"code": 0.1, "math": 0.5}), ["code", "math"])
    check_quotas(Budget(10, per_group="g", group_share={"code": 0.1, "math": 0.9}), ["code", "math"])
