"""Token scores and masks, beside plain loops."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.selection import tokens
from datapruner.selection.tokens import detrimental, gather, prune_tokens, token_scores
from datapruner.signals import Ragged
from tests.conftest import examples


def naive_scores(nll, smoothing):
    """s_t = (1 - lambda) PPL_t + lambda (PPL_{t-1} + PPL_{t+1}), zero padded."""
    ppl = [0.0, *(math.exp(loss) for loss in nll), 0.0]
    return [(1 - smoothing) * ppl[t] + smoothing * (ppl[t - 1] + ppl[t + 1]) for t in range(1, len(ppl) - 1)]


def naive_mask(nll, keep, smoothing):
    """Remove the highest, all but max(1, round(T keep))."""
    scores = naive_scores(nll, smoothing)
    stay = max(1, round(len(nll) * Fraction(str(keep))))
    best = sorted(range(len(nll)), key=lambda t: (scores[t], t))[:stay]
    return [t in best for t in range(len(nll))]


@pytest.mark.parametrize("seed", range(200))
def test_the_highest_scores_go(seed):
    rng = np.random.default_rng(seed)
    rows = [rng.gamma(1, 2, int(size)) for size in rng.integers(0, 40, size=6)]
    keep, smoothing = float(rng.uniform(0.05, 1)), float(rng.choice([0.0, 0.3, 0.5, 1.0]))
    ragged = Ragged.from_rows(rows, np.float64)
    chosen = np.array([5, 0, 3])
    masks = prune_tokens(ragged, chosen, keep=keep, smoothing=smoothing)
    for mask, row in zip(masks, chosen, strict=True):
        assert mask.tolist() == (naive_mask(rows[row].tolist(), keep, smoothing) if len(rows[row]) else [])


def test_scores_are_those_of_the_paper_up_to_a_factor_a_row():
    rows = [np.array([0.5, 2.0, 1.0]), np.array([]), np.array([3.0])]
    scores = token_scores(Ragged.from_rows(rows, np.float64), 0.5)
    expected = np.array(naive_scores(rows[0], 0.5)) / math.exp(2.0)
    np.testing.assert_allclose(scores, [*expected, 0.5], rtol=1e-14)


def test_losses_beyond_exp_keep_their_order():
    ragged = Ragged.from_rows([np.array([900.0, 2000.0, 1999.0, 5.0, 1.0])], np.float64)
    assert np.isfinite(token_scores(ragged, 0.5)).all()
    mask = prune_tokens(ragged, np.array([0]), keep=0.4, smoothing=0.5)[0]
    assert mask.tolist() == [False, False, False, True, True]


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=8), st.floats(0.01, 1), st.floats(0, 1), st.booleans()
)
@settings(max_examples=examples(100), deadline=None)
def test_shares_and_shapes(lengths, keep, smoothing, equal):
    rng = np.random.default_rng(sum(lengths))
    rows = [np.ones(size) if equal else rng.gamma(2, 1, size) for size in lengths]
    masks = prune_tokens(Ragged.from_rows(rows), np.arange(len(rows)), keep=keep, smoothing=smoothing)
    assert masks.values.dtype == np.bool_
    for mask, size in zip(masks, lengths, strict=True):
        assert len(mask) == size
        assert mask.sum() == (max(1, round(size * Fraction(str(keep)))) if size else 0)
    if equal and smoothing == 0:
        assert all((np.diff(mask.astype(int)) <= 0).all() for mask in masks), (
            "of equal scores the earlier stays"
        )


def naive_detrimental(nll):
    """A token whose own perplexity and whose neighbours' mean are above the row's median."""
    ppl = [math.exp(loss) for loss in nll]
    bound, out = statistics.median(ppl or [0.0]), []
    for t in range(len(ppl)):
        around = [*ppl[max(0, t - 1) : t], *ppl[t + 1 : t + 2]]
        out.append(bool(around) and ppl[t] > bound and statistics.mean(around) > bound)
    return out


@given(
    st.lists(
        st.lists(st.integers(0, 12).map(lambda k: k / 4) | st.floats(0, 12), max_size=14),
        min_size=1,
        max_size=5,
    ),
    st.floats(0.01, 1),
    st.floats(0, 1),
)
@settings(max_examples=examples(150), deadline=None)
def test_the_texts_condition_spares_all_but_detrimental_tokens(rows, keep, smoothing):
    ragged = Ragged.from_rows([np.array(row) for row in rows], np.float64)
    found = Ragged(detrimental(ragged), ragged.offsets)
    free = prune_tokens(ragged, np.arange(len(rows)), keep=keep, smoothing=smoothing)
    bound = prune_tokens(ragged, np.arange(len(rows)), keep=keep, smoothing=smoothing, condition="both")
    for row, may_go, any_go, mask in zip(rows, found, free, bound, strict=True):
        median = statistics.median(map(math.exp, row)) if row else 0
        near = any(  # of equal values, rounding decides
            abs(sum(map(math.exp, around)) / len(around) / median - 1) < 1e-9
            for t in range(len(row))
            for around in ([*row[max(0, t - 1) : t], *row[t + 1 : t + 2]], [row[t]])
            if around
        )
        if not near:
            assert may_go.tolist() == naive_detrimental(row)
        gone = np.flatnonzero(~mask)
        assert may_go[gone].all()
        assert len(gone) == min(may_go.sum(), (~any_go).sum())
        scores = np.array(naive_scores(row, smoothing))
        stays = np.flatnonzero(mask & may_go)
        if len(gone) and len(stays):
            assert scores[gone].min() >= scores[stays].max() * (1 - 1e-9)


def test_a_lone_absurd_token_between_easy_ones_stays_under_the_condition():
    row = Ragged.from_rows([np.array([0.1, 0.1, 6.0, 0.1, 0.1, 0.2, 3.0, 3.0, 3.0, 0.1])], np.float64)
    free, bound = (
        prune_tokens(row, np.array([0]), keep=0.7, smoothing=0.0, condition=one)[0]
        for one in ("none", "both")
    )
    # Its neighbours' mean is their own 0.1; the run of three is what the text means.
    assert np.flatnonzero(~free).tolist() == [2, 7, 8]
    assert np.flatnonzero(~bound).tolist() == [6, 7, 8]


def test_halves_are_those_of_the_decimals():
    # In floats 0.145 of 100 is below 14.5, and 0.575 of 200 is below 115.
    ragged = Ragged.from_rows([np.ones(size) for size in (100, 300, 200)])
    of = [prune_tokens(ragged, np.arange(3), keep=keep, smoothing=0.5) for keep in (0.145, 0.575)]
    assert [mask.sum() for mask in of[0]] == [14, 44, 29]
    assert [mask.sum() for mask in of[1]] == [58, 172, 115]


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    ragged = Ragged.from_rows([rng.gamma(2, 1, int(size)) for size in rng.integers(0, 9, size=50)])
    rows = rng.permutation(50)[:30]
    whole = prune_tokens(ragged, rows, keep=0.5, smoothing=0.5)
    monkeypatch.setattr(tokens, "BLOCK", 7)
    parts = prune_tokens(ragged, rows, keep=0.5, smoothing=0.5)
    assert np.array_equal(whole.values, parts.values)
    assert np.array_equal(whole.offsets, parts.offsets)


def test_no_rows_and_no_finite_loss():
    ragged = Ragged.from_rows([np.ones(2), np.array([1.0, np.nan])])
    assert len(prune_tokens(ragged, np.zeros(0, np.int64), keep=0.5, smoothing=0.5)) == 0
    with pytest.raises(DataPrunerError, match="row 1"):
        prune_tokens(ragged, np.array([0, 1]), keep=0.5, smoothing=0.5)


@pytest.mark.parametrize("rows", [([0, 3], [4, 6]), ([4, 6], [0, 3]), ([3, 0], [6, 4]), ([], [2])])
def test_parts_are_gathered_by_their_rows(rows):
    parts = [
        (np.array(places, np.int64), Ragged.from_rows([np.full(place, place % 2) for place in places], bool))
        for places in rows
    ]
    held = gather(parts, 8)
    assert len(held) == 8
    for row in range(8):
        wanted = row if row in rows[0] or row in rows[1] else 0
        assert held[row].tolist() == [bool(row % 2)] * wanted
    assert len(gather([], 3)) == 3
