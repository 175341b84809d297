"""Shares by a power of the groups' sizes, against filling groups one cap at a time; and who draws inside them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.scorers.auto import Auto
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selectors.power_allocation import PowerAllocation
from datapruner.signals import Signals


def by_filling(sizes, budget, power):
    """Shares before rounding: whoever is full leaves, and the others share the rest by the same weights."""
    shares, open_ = np.zeros(len(sizes)), np.flatnonzero(np.array(sizes) > 0)
    weights, left = np.array(sizes, float) ** power, float(min(budget, sum(sizes)))
    while len(open_):
        wish = left * weights[open_] / weights[open_].sum()
        full = wish >= np.array(sizes)[open_]
        if not full.any():
            shares[open_] = wish
            break
        shares[open_[full]] = np.array(sizes)[open_[full]]
        left -= shares[open_[full]].sum()
        open_ = open_[~full]
    return shares


def chosen(groups, costs, budget, power, name=""):
    portion = Portion(np.arange(len(groups)), costs, budget, name, "rows" if (costs == 1).all() else "tokens")
    values = np.random.default_rng(3).random(len(groups))
    ranking = Ranking(values, groups=groups, group_weights=np.ones(int(groups.max()) + 1))
    return PowerAllocation(power).select(ranking, portion, np.random.default_rng(0))


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=9).filter(any),
    st.sampled_from([0, 0.25, 0.5, 0.75, 1]),
    st.floats(0.01, 1),
)
def test_the_shares_of_rows_are_those_of_filling(sizes, power, share):
    budget = max(1, int(share * sum(sizes)))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    kept = chosen(groups, np.ones(len(groups), dtype=np.int64), budget, power).kept
    counts = np.bincount(groups, kept, len(sizes))
    assert counts.sum() == budget
    assert (counts <= sizes).all()
    assert np.abs(counts - by_filling(sizes, budget, power)).max() < 1 + 1e-9
    if power == 0:  # equal ones, as far as rows go
        inside = counts[counts < sizes]
        assert not len(inside) or inside.max() - inside.min() <= 1


def test_under_a_budget_in_tokens_a_groups_size_is_its_tokens():
    """400 rows of one token against 100 of sixteen: by rows the first would get two thirds, by tokens a third."""
    groups, costs = np.repeat([0, 1], [400, 100]), np.repeat([1, 16], [400, 100])
    spent = np.bincount(groups, costs * chosen(groups, costs, 600, 0.5).kept)
    assert spent.tolist() == pytest.approx([200, 400], abs=16)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_inside_a_group_every_row_has_the_same_chance(power):
    sizes = [40, 160, 360]
    blob = np.repeat(np.arange(3), sizes)
    scorer, rng = Auto(power, n_clusters=3), np.random.default_rng(0)
    kept = []
    for seed in range(40):
        ranking = scorer.score(Signals(560, {"embedding": np.eye(3, dtype=np.float32)[blob]}, seed=seed))
        portion = Portion(np.arange(560), np.ones(560, np.int64), 120)
        kept.append(scorer.selector().select(ranking, portion, rng).kept)
    often = np.mean(kept, axis=0)
    for of, count in enumerate(sizes):
        chance = by_filling(sizes, 120, power)[of] / count
        assert often[blob == of].mean() == pytest.approx(chance, abs=1 / count)
        deviation = np.sqrt(chance * (1 - chance) / 40)
        assert often[blob == of].std() == pytest.approx(deviation, abs=0.02)


KINDS = {"sums": 90, "words": 10, "dates": 40, "names": 10}


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    said = [
        {"question": f"{kind} {number}: what comes next?", "answer": "one " * (1 + number % 7), "kind": kind}
        for kind, count in KINDS.items()
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in said))
    return path


def kept_kinds(selection):
    return Counter(selection.dataset["kind"])


def test_a_column_gives_the_groups_and_takes_no_embeddings(rows):
    selection = dp.prune(rows, scorer=Auto(0.5, within="kind"), keep=60, progress=False)
    expected = by_filling(list(KINDS.values()), 60, 0.5)
    found = [kept_kinds(selection)[kind] for kind in KINDS]
    assert np.abs(np.array(found) - expected).max() < 1


def test_the_groups_of_the_budgets_column_share_by_the_same_power_beside_a_quota(rows):
    asked = {"keep": 60, "per_group": "kind", "scorer": Auto(0.5, within="kind"), "progress": False}
    assert [kept_kinds(dp.prune(rows, **asked))[kind] for kind in KINDS] == pytest.approx(
        by_filling(list(KINDS.values()), 60, 0.5), abs=1
    )
    held = dp.prune(rows, **asked, quotas={"sums": 5})
    assert kept_kinds(held)["sums"] == 5
    rest = by_filling([KINDS[kind] for kind in ("words", "dates", "names")], 55, 0.5)
    assert [kept_kinds(held)[kind] for kind in ("words", "dates", "names")] == pytest.approx(rest, abs=1)
    assert (
        held.reason(int(np.flatnonzero(~held.kept)[0]))
        == "dropped: not among the 5 of 90 rows that sums keeps"
    )
    # A selector without a power goes on sharing in proportion.
    plain = dp.prune(rows, **{**asked, "scorer": "random"})
    assert [kept_kinds(plain)[kind] for kind in KINDS] == [36, 4, 16, 4]


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"power": 1.5}, "power must lie between 0 and 1"),
        ({"power": -0.1}, "power must lie between 0 and 1"),
        ({"within": "column:"}, "not an empty one"),
        ({"within": "kind", "n_clusters": 4}, "n_clusters is for within=cluster"),
        ({"power": "half"}, "'auto': power"),
    ],
)
def test_what_has_no_meaning_is_refused(given_, said):
    with pytest.raises(DataPrunerError, match=said):
        Auto(**given_)


def test_so_is_a_power_of_the_selector():
    with pytest.raises(DataPrunerError, match="power must lie between 0 and 1"):
        PowerAllocation(2.0)
