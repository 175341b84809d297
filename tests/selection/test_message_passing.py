"""Message passing beside a transcription of the algorithm in plain loops, O(n^2)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import datapruner as dp
from datapruner.scorers.base import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selectors.message_passing import DISTANCES, NEIGHBOURS, MessagePassingSelector
from datapruner.signals import Ragged


def edges_of(n, seed, share=0.1):
    """Symmetric distances, infinite where there is no edge."""
    rng = np.random.default_rng(seed)
    apart = np.round(rng.uniform(0, 1.5, size=(n, n)), 2)
    apart[rng.random((n, n)) >= share] = np.inf
    apart = np.triu(apart, 1) + np.triu(apart, 1).T
    np.fill_diagonal(apart, np.inf)
    return apart


def ranking_of(scores, apart):
    neighbours = [np.flatnonzero(np.isfinite(row)) for row in apart]
    return Ranking(
        np.asarray(scores, dtype=np.float64),
        state={
            NEIGHBOURS: Ragged.from_rows(neighbours, np.int64),
            DISTANCES: Ragged.from_rows([row[near] for row, near in zip(apart, neighbours, strict=True)]),
        },
    )


def in_loops(scores, apart, rows, costs, budget, gamma):
    """Take the largest that fits, and lower its neighbours; the picks in order."""
    s = {row: float(scores[row]) for row in rows}
    left, picks = budget, []
    while s:
        u = max(s, key=lambda row: (s[row], -row))
        score = s.pop(u)
        if costs[u] > left:
            continue
        left -= costs[u]
        picks.append(u)
        for j in s:
            if math.isfinite(apart[u, j]):
                s[j] -= math.exp(-gamma * float(np.float32(apart[u, j])) ** 2) * score
    return picks


def select(ranking, rows, costs, budget, gamma, unit="rows"):
    portion = Portion(rows, costs, budget, "", unit)
    return MessagePassingSelector(gamma).select(ranking, portion, np.random.default_rng(0))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_plain_algorithm(seed, gamma):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 150))
    # Rounded, so that ties are common; some are negative, and their messages raise their neighbours.
    scores = np.round(rng.normal(size=n), int(rng.integers(0, 3)))
    apart = edges_of(n, seed)
    ranking = ranking_of(scores, apart)
    rows = np.sort(rng.permutation(n)[: max(1, 3 * n // 4)])
    for budget in {1, max(1, len(rows) // 3), len(rows)}:
        kept = select(ranking, rows, np.ones(len(rows), np.int64), budget, gamma).kept
        assert (
            sorted(in_loops(scores, apart, rows.tolist(), np.ones(n), budget, gamma)) == rows[kept].tolist()
        )


@pytest.mark.parametrize("seed", range(8))
def test_token_budgets_pass_over_what_does_not_fit(seed):
    rng = np.random.default_rng(seed)
    n = 60
    scores, apart = rng.random(n), edges_of(n, seed, 0.2)
    costs = rng.integers(1, 40, size=n)
    for budget in (5, 200, int(costs.sum()) - 1):
        choice = select(ranking_of(scores, apart), np.arange(n), costs, budget, 1.0, "tokens")
        assert (
            sorted(in_loops(scores, apart, range(n), costs, budget, 1.0))
            == np.flatnonzero(choice.kept).tolist()
        )
        left = budget - costs[choice.kept].sum()
        assert 0 <= left < costs[~choice.kept].min()


def test_a_copy_of_a_pick_comes_last():
    apart = np.full((4, 4), np.inf)
    apart[0, 1] = apart[1, 0] = 0.0
    choice = select(ranking_of([1.0, 0.99, 0.5, 0.4], apart), np.arange(4), np.ones(4, np.int64), 3, 1.0)
    assert choice.kept.tolist() == [True, False, True, True]
    assert "among picks 1 to 1 of 3" in choice.texts[choice.codes[0]]
    assert choice.texts[choice.codes[1]].startswith("dropped: not among the picks")


def test_reasons_are_few_and_fit():
    rng = np.random.default_rng(0)
    n = 300
    costs = np.concatenate([np.ones(n - 1, np.int64), [500]])
    scores = np.append(rng.random(n - 1), 9.0)
    choice = select(ranking_of(scores, edges_of(n, 0)), np.arange(n), costs, 100, 1.0, "tokens")
    assert len(choice.texts) == 12
    assert choice.texts[choice.codes[-1]].startswith("dropped: too long")
    texts = [choice.texts[code] for code in choice.codes]
    assert [text.startswith("kept") for text in texts] == choice.kept.tolist()
    assert sorted(np.bincount(choice.codes[choice.kept])[2:].tolist()) == [10] * 10
    assert any("among picks 91 to 100 of 100" in text for text in texts)


def test_rows_outside_the_portion_neither_send_nor_receive():
    apart = edges_of(40, 3, 0.5)
    scores = np.random.default_rng(1).random(40)
    rows = np.arange(0, 40, 2)
    whole = ranking_of(scores, apart)
    alone = apart.copy()
    alone[1::2], alone[:, 1::2] = np.inf, np.inf
    one = np.ones(len(rows), np.int64)
    first, second = (
        select(ranking, rows, one, 7, 1.0).kept for ranking in (whole, ranking_of(scores, alone))
    )
    assert np.array_equal(first, second)


def test_what_it_cannot_use_is_refused():
    ranking = Ranking(np.arange(5.0))
    with pytest.raises(dp.DataPrunerError, match=r"message_passing.*scorer d2, or the selector topk"):
        select(ranking, np.arange(5), np.ones(5, np.int64), 2, 1.0)
    with pytest.raises(dp.DataPrunerError, match="neighbours"):
        select(replace(ranking, state={NEIGHBOURS: np.arange(5)}), np.arange(5), np.ones(5, np.int64), 2, 1.0)
    for gamma in (-1.0, float("nan"), float("inf")):
        with pytest.raises(dp.DataPrunerError, match="gamma_reverse"):
            MessagePassingSelector(gamma)
