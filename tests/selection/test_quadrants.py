"""Quadrants and the rows kept, beside a transcription of Algorithm 1 in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.ragged import offsets_of
from datapruner.scorers import make_scorer
from datapruner.scorers.base import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.quadrants import find_quadrants, gaps, quadrants_at, triage
from datapruner.selection.selectors import make_selector
from datapruner.selection.selectors.eu_plane import EUPlaneSelector
from datapruner.signals import Ragged
from datapruner.testing import check_scorer, check_selector, example_signals
from tests.conftest import examples


def quantile(values, q):
    """Linear interpolation between the two nearest order statistics."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = min(math.floor(place), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def algorithm_1(ppl, ent, ratio):
    """Q2, Q4 and the kept rows of a batch, from METHODS.md, on raw perplexities."""
    b = len(ppl)
    k = max(1, round(b * ratio))
    a_low, a_high, best = 0.0, 0.49, None
    for _ in range(10):
        a = (a_low + a_high) / 2
        ppl_low, ppl_high = quantile(ppl, a), quantile(ppl, 1 - a)
        ent_low, ent_high = quantile(ent, a), quantile(ent, 1 - a)
        q2 = [i for i in range(b) if ppl[i] > ppl_high and ent[i] <= ent_low]
        q4 = [i for i in range(b) if ppl[i] <= ppl_low and ent[i] > ent_high]
        size = len(q2) + len(q4)
        if best is None or abs(size - k) < best[0]:
            best = (abs(size - k), q2, q4)
        if abs(size - k) / b <= 0.01:
            break
        if size < k:
            a_low = a
        else:
            a_high = a
    _, q2, q4 = best

    def scaled(values):
        low, high = min(values), max(values)
        return [(value - low) / (high - low) if high > low else 0.0 for value in values]

    apart = [abs(p - e) for p, e in zip(scaled(ppl), scaled(ent), strict=True)]
    inside = sorted(q2 + q4, key=lambda i: (-apart[i], i))
    rest = sorted(set(range(b)) - set(inside), key=lambda i: (-apart[i], i))
    return set(q2), set(q4), set((inside + rest)[:k])


@pytest.mark.parametrize("seed", range(200))
def test_a_batch_is_triaged_as_published(seed):
    rng = np.random.default_rng(seed)
    n, ratio = int(rng.integers(1, 80)), float(rng.choice([0.125, 0.25, 0.5, 0.9]))
    log_ppl = rng.gamma(2, 1, n)
    entropy = rng.gamma(2, 1, n) + float(rng.uniform(0, 2)) * log_ppl
    if seed % 3 == 0:  # ties
        log_ppl, entropy = np.round(log_ppl, 1), np.round(entropy, 1)
    q2, q4, kept = algorithm_1(np.exp(log_ppl).tolist(), entropy.tolist(), ratio)
    k = max(1, round(n * ratio))
    order, quadrants, _ = triage(log_ppl, entropy, k, fill="ppl")
    assert set(np.flatnonzero(quadrants.numbers == 2).tolist()) == q2
    assert set(np.flatnonzero(quadrants.numbers == 4).tolist()) == q4
    assert set(order[:k].tolist()) == kept


def test_every_row_lies_in_a_quadrant_at_the_medians():
    rng = np.random.default_rng(0)
    log_ppl, entropy = rng.normal(size=(2, 101))
    numbers = quadrants_at(log_ppl, entropy, 0.5).numbers
    high, unsure = log_ppl > np.median(log_ppl), entropy > np.median(entropy)
    assert np.array_equal(numbers, np.select([high & unsure, high & ~unsure, ~high & ~unsure], [1, 2, 3], 4))


def test_the_closest_iterate_is_kept_and_not_the_last():
    # Six rows share both corners: the quadrants hold 0 or all of a corner, never 4.
    log_ppl = np.repeat([0.0, 5.0, 9.0], [6, 8, 6])
    entropy = np.repeat([9.0, 5.0, 0.0], [6, 8, 6])
    held = (find_quadrants(log_ppl, entropy, 4).numbers > 0).sum()
    assert held in (0, 12)
    order, quadrants, apart = triage(log_ppl, entropy, 13, fill="log_ppl")
    assert set(order[:12].tolist()) == set(np.flatnonzero(apart == 1).tolist())
    assert (quadrants.numbers[order[:12]] % 2 == 0).all()


def test_fills_put_error_and_uncertainty_on_one_scale():
    log_ppl, entropy = np.array([0.0, 1.0, 2.0, 1000.0]), np.array([0.0, 1.0, 2.0, 3.0])
    # One absurd perplexity: every other row lies at 0 of the raw axis and of the log axis, and not in ranks.
    np.testing.assert_allclose(gaps(log_ppl, entropy, "ppl"), [0, 1 / 3, 2 / 3, 0])
    np.testing.assert_allclose(gaps(log_ppl, entropy, "log_ppl"), [0, 1 / 3 - 0.001, 2 / 3 - 0.002, 0])
    np.testing.assert_allclose(gaps(log_ppl, entropy, "rank"), [0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(gaps(np.ones(3), np.ones(3), "ppl"), 0)
    np.testing.assert_allclose(gaps(np.ones(3), np.array([0.0, 1.0, 2.0]), "rank"), [0, 0.5, 1])
    raw = np.exp(np.array([0.0, 1.0, 2.0]))
    expected = np.abs((raw - raw.min()) / (raw.max() - raw.min()) - np.array([1, 0.5, 0]))
    np.testing.assert_allclose(gaps(np.array([0.0, 1.0, 2.0]), np.array([2.0, 1.0, 0.0]), "ppl"), expected)


@given(st.integers(1, 40), st.integers(0, 10**6), st.sampled_from(["log_ppl", "ppl", "rank"]), st.booleans())
@settings(max_examples=examples(100), deadline=None)
def test_any_plane_is_ordered(n, seed, fill, equal):
    rng = np.random.default_rng(seed)
    log_ppl, entropy = (np.full(n, 1.5), np.full(n, 0.5)) if equal else rng.normal(size=(2, n)) * 300
    order, quadrants, apart = triage(log_ppl, entropy, int(rng.integers(0, n + 1)), fill=fill)
    assert sorted(order.tolist()) == list(range(n))
    assert np.isfinite(apart).all()
    assert apart.min() >= 0
    assert apart.max() <= 1
    inside = np.isin(quadrants.numbers[order], (2, 4))
    assert not (inside[1:] & ~inside[:-1]).any(), "a row of Q2 or Q4 stands behind another"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("axis", ["log_ppl", "entropy"])
def test_what_is_not_finite_is_refused(axis, value):
    plane = {"log_ppl": np.ones(4), "entropy": np.ones(4)}
    plane[axis][2] = value
    with pytest.raises(DataPrunerError, match=f"{axis} is not finite in row 12"):
        triage(**plane, budget=2, fill="ppl", rows=np.arange(10, 14))


def _ranking(n=200, seed=0):
    rng = np.random.default_rng(seed)
    log_ppl, entropy = rng.gamma(2, 1, n), rng.gamma(2, 1, n)
    lengths = rng.integers(1, 30, n)
    nll = rng.gamma(2, 1, int(lengths.sum())).astype(np.float32)
    state = {"token_nll": Ragged(nll, offsets_of(lengths))}
    return Ranking(np.zeros(n), columns={"log_ppl": log_ppl, "entropy": entropy}, state=state), lengths


def test_the_selector_keeps_the_triage_and_prunes_q2_alone():
    ranking, lengths = _ranking()
    choice = EUPlaneSelector(fill="ppl").select(
        ranking, Portion(np.arange(200), np.ones(200, np.int64), 50), np.random.default_rng()
    )
    plane = ranking.columns["log_ppl"], ranking.columns["entropy"]
    q2, _, kept = algorithm_1(np.exp(plane[0]).tolist(), plane[1].tolist(), 0.25)
    assert set(np.flatnonzero(choice.kept).tolist()) == kept
    assert set(np.flatnonzero(choice.token_masks.lengths).tolist()) == q2 & kept
    for row in q2 & kept:
        assert choice.token_masks[row].sum() == max(1, round(int(lengths[row]) * 0.5))
    texts = [choice.texts[code] for code in choice.codes]
    assert all(
        text.startswith(("dropped", "kept")[int(k)]) for text, k in zip(texts, choice.kept, strict=True)
    )
    assert all("Q2" in texts[row] and "50 % of its tokens" in texts[row] for row in q2 & kept)
    assert len(choice.texts) == 10


def test_a_portion_is_a_plane_of_its_own():
    ranking, _ = _ranking()
    rows = np.arange(60, 130)
    choice = EUPlaneSelector().select(
        ranking, Portion(rows, np.ones(70, np.int64), 20, "math"), np.random.default_rng()
    )
    alone = Ranking(
        np.zeros(70),
        columns={name: column[rows] for name, column in ranking.columns.items()},
        state={"token_nll": ranking.state["token_nll"].take(rows)},
    )
    same = EUPlaneSelector().select(
        alone, Portion(np.arange(70), np.ones(70, np.int64), 20), np.random.default_rng()
    )
    assert np.array_equal(choice.kept, same.kept)
    assert np.array_equal(choice.token_masks.values, same.token_masks.values)
    assert any("of math" in text for text in choice.texts)


def test_a_token_budget_counts_whole_rows():
    ranking, lengths = _ranking()
    budget = int(lengths.sum()) // 4
    portion = Portion(np.arange(200), lengths, budget, "", "tokens")
    choice = EUPlaneSelector().select(ranking, portion, np.random.default_rng())
    spent = int(lengths[choice.kept].sum())
    assert budget - int(lengths[~choice.kept].min()) < spent <= budget
    held = np.isin(find_quadrants(*ranking.columns.values(), budget, lengths).numbers, (2, 4))
    assert abs(int(lengths[held].sum()) - budget) < 0.3 * budget


@pytest.mark.parametrize("missing", ["log_ppl", "token_nll"])
def test_a_ranking_without_a_plane_is_refused(missing):
    ranking, _ = _ranking(5)
    columns = {name: held for name, held in ranking.columns.items() if name != missing}
    state = {name: held for name, held in ranking.state.items() if name != missing}
    portion = Portion(np.arange(5), np.ones(5, np.int64), 2)
    ranking = Ranking(ranking.values, columns=columns, state=state)
    with pytest.raises(DataPrunerError, match="needs log_ppl and entropy of every row"):
        EUPlaneSelector().select(ranking, portion, np.random.default_rng())
    if missing == "token_nll":
        assert (
            EUPlaneSelector(token_keep=1.0).select(ranking, portion, np.random.default_rng()).kept.sum() == 2
        )


@pytest.mark.parametrize(
    "parameters",
    [{"token_keep": 0.0}, {"token_keep": 1.5}, {"smoothing": -0.1}, {"fill": "raw"}, {"condition": "own"}],
)
def test_parameters_without_meaning_are_refused(parameters):
    with pytest.raises(DataPrunerError, match=next(iter(parameters))):
        make_selector("eu_plane", parameters)
    with pytest.raises(DataPrunerError, match=next(iter(parameters))):
        make_scorer("qtuning", parameters)


@pytest.mark.parametrize(
    "parameters",
    [{"fill": "ppl", "token_keep": 0.1}, {"fill": "rank", "token_keep": 1.0}, {"condition": "both"}],
)
def test_variants_keep_the_contract(parameters):
    check_selector(make_selector("eu_plane", parameters))
    check_scorer(make_scorer("qtuning", parameters))


def test_the_scorer_hands_its_parameters_on():
    scorer = make_scorer(
        "qtuning", {"fill": "rank", "token_keep": 0.7, "smoothing": 0.2, "condition": "both"}
    )
    assert scorer.selector() == EUPlaneSelector("rank", 0.7, 0.2, "both")
    whole = make_scorer("qtuning", {"token_keep": 1.0})
    assert "token_nll" not in whole.requires
    assert whole.score(example_signals()).state == {}
    ranking = make_scorer("qtuning").score(example_signals())
    assert set(np.unique(ranking.columns["quadrant"]).tolist()) == {1, 2, 3, 4}
    expected = gaps(ranking.columns["log_ppl"], ranking.columns["entropy"], "ppl")
    assert np.array_equal(ranking.values, expected)
