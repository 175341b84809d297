"""Which of a row's supervised tokens stay in the loss: Q-Tuning's second stage (arXiv 2509.23873), or by any value.

The tokens that go leave the loss and nothing else: the model reads the row whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from datapruner.arrays import Flags, Floats, Ints
from datapruner.errors import DataPrunerError, RowError
from datapruner.parameters import as_written
from datapruner.ragged import Ragged, offsets_of

BLOCK = 1 << 21
"""Tokens sorted at a time."""

Condition = Literal["none", "both"]
"""Which of a row's tokens may go: any, or those that stand out and whose neighbours do."""


Over = Literal["all", "row"]
"""Of which tokens a share stays: of all rows', or of each row's own."""
TOKEN_VALUES = "token_values"  # noqa: S105 - no password
"""State of a ranking: a value of every supervised token, higher = keep."""
TOKEN_STATE = ("token_nll", TOKEN_VALUES)
"""State of a ranking with an entry for every supervised token."""


def tokens_scored(state: Mapping[str, object]) -> Ints | None:
    """Count the supervised tokens that each row had when it was ranked; None where the ranking does not know."""
    found = (state.get(name) for name in TOKEN_STATE)
    return next((held.lengths for held in found if isinstance(held, Ragged)), None)


def check_share(name: str, keep: float) -> None:
    """Refuse a share of tokens that has no meaning."""
    if not 0 < keep <= 1:
        raise DataPrunerError(f"{name}: token_keep must lie above 0 and at most 1, not {keep}")


def highest(values: Ragged, keep: float, over: Over) -> Ragged:
    """Tell the tokens of the highest values: a share of all, or of each row's.

    max(1, round(share * tokens)) stay, halves to even as Python rounds; of equal values the earlier row's, and there
    the earlier token.

    Parameters
    ----------
    values : Ragged
        Finite; higher = keep.
    keep : float
        The share, in (0, 1].
    over : {"all", "row"}

    Returns
    -------
    Ragged
        bool, of the same rows.
    """
    share, held = as_written(keep), values.values
    kept = np.zeros(len(held), dtype=np.bool_)
    if over == "row":
        of, each = values.rows(), values.lengths.tolist()
        stay = np.array([max(1, round(share * length)) for length in each], dtype=np.int64)
        order = np.lexsort((-held, of))  # stable, so that the earlier of equal tokens comes first
        kept[order[np.arange(len(order)) - values.offsets[of] < stay[of]]] = True
    elif len(held):
        count = max(1, round(share * len(held)))
        cut = np.partition(held, len(held) - count)[len(held) - count]
        kept = held > cut
        kept[np.flatnonzero(held == cut)[: count - int(kept.sum())]] = True
    return Ragged(kept, values.offsets)


def token_scores(token_nll: Ragged, smoothing: float) -> Floats:
    """Score tokens by their own perplexity and their neighbours'; the highest are the first to go.

    *Published*: s_t = (1 - smoothing) PPL_t + smoothing (PPL_{t-1} + PPL_{t+1}), zero beyond the row's ends.
    *Derived*: PPL = exp(nll) is divided by the row's largest, which keeps the order within the row and cannot
    overflow. *Ours*: neighbours are the supervised tokens before and after, be it in another turn.

    Returns
    -------
    ndarray
        float64, one for each entry of ``token_nll.values``; comparable within a row.
    """
    ppl = _perplexities(token_nll)
    scores: Floats = (1 - smoothing) * ppl + smoothing * _around(token_nll, ppl)[0]
    return scores


def detrimental(token_nll: Ragged) -> Flags:
    """Tell the tokens that the paper's text calls detrimental, where its Algorithm 1 and its code take any.

    *Published* (text of section 3.3 and figure 2): a token's own perplexity and the mean of its neighbours' both exceed
    a bound such as the median. *Ours*: the median of the row's supervised tokens; at a row's ends the one neighbour
    that there is; a token without any is not detrimental.

    Returns
    -------
    ndarray
        bool, one for each entry of ``token_nll.values``.
    """
    ppl, of, offsets = _perplexities(token_nll), token_nll.rows(), token_nll.offsets
    lengths, filled = token_nll.lengths, token_nll.lengths > 0
    ascending = ppl[np.lexsort((ppl, of))]
    median = np.zeros(len(lengths))
    first, last = offsets[:-1] + (lengths - 1) // 2, offsets[:-1] + lengths // 2
    median[filled] = (ascending[first[filled]] + ascending[last[filled]]) / 2
    around, neighbours = _around(token_nll, ppl)
    bound = median[of]
    return np.asarray((ppl > bound) & (around > neighbours * bound) & (neighbours > 0))


def _perplexities(token_nll: Ragged) -> Floats:
    """Give the tokens' perplexities over the largest of their row; float64."""
    lengths, starts = token_nll.lengths, token_nll.offsets[:-1]
    nll = token_nll.values.astype(np.float64)
    filled = lengths > 0
    top = np.zeros(len(lengths))
    top[filled] = np.maximum.reduceat(nll, starts[filled]) if filled.any() else 0
    return np.asarray(np.exp(nll - np.repeat(top, lengths)))


def _around(token_nll: Ragged, values: Floats) -> tuple[Floats, Floats]:
    """Give the sum of both neighbours, zero beyond a row's ends, and how many there are."""
    starts = np.zeros(len(values), dtype=np.bool_)
    filled = token_nll.lengths > 0
    starts[token_nll.offsets[:-1][filled]] = True
    ends = np.roll(starts, -1)
    before, after = np.where(starts, 0, np.roll(values, 1)), np.where(ends, 0, np.roll(values, -1))
    count: Floats = 2.0 - starts.astype(np.float64) - ends
    return before + after, count


def prune_tokens(
    token_nll: Ragged, rows: Ints, *, keep: float, smoothing: float, condition: Condition = "none"
) -> Ragged:
    """Decide for every supervised token of some rows whether it stays in the loss.

    *Published*: the share ``keep`` of a row's tokens stays and the highest scores go (eq. 7 of the paper says the
    opposite; its figure 2, its tables 4 and 5 and its code agree on this). *Ours*: max(1, round(T keep)) tokens
    stay, halves to even as Python rounds; of equal scores the earlier token stays. With the text's condition only
    detrimental tokens go, the highest scores of them first, so that more may stay.

    Parameters
    ----------
    token_nll : Ragged
        Of all rows.
    rows : ndarray, int64, shape (m,)
        Those that are pruned.
    keep : float
        In (0, 1].
    smoothing : float
        See :func:`token_scores`.
    condition : {"none", "both"}
        ``none``: any token may go, as in Algorithm 1 and the published code. ``both``: see :func:`detrimental`.

    Returns
    -------
    Ragged
        bool, m rows: True stays.

    Raises
    ------
    DataPrunerError
        A token's loss is not finite.
    """
    lengths, share = token_nll.lengths[rows], as_written(keep)
    block = (np.cumsum(lengths) - lengths) // BLOCK
    parts = []
    for some in np.split(rows, np.flatnonzero(np.diff(block)) + 1):
        taken = token_nll.take(some)
        finite = np.isfinite(taken.values)
        if not finite.all():
            row = int(some[taken.rows()[np.argmin(finite)]])
            raise RowError(f"token_nll is not finite in row {row}", row)
        of = taken.rows()
        each, which = np.unique(taken.lengths, return_inverse=True)
        stay = np.array([max(1, round(share * length)) for length in each.tolist()])[which]
        may_go = np.ones(len(of), dtype=np.bool_) if condition == "none" else detrimental(taken)
        stay = np.maximum(stay, taken.lengths - np.bincount(of, may_go, len(some)).astype(np.int64))
        order = np.lexsort((token_scores(taken, smoothing), may_go, of))
        place = np.arange(len(order)) - taken.offsets[of]  # `of` is sorted, and so is the order's first key
        kept = np.zeros(len(order), dtype=np.bool_)
        kept[order[place < stay[of]]] = True
        parts.append(kept)
    return Ragged(np.concatenate(parts), offsets_of(lengths))


def gather(parts: Sequence[tuple[Ints, Ragged]], n: int) -> Ragged:
    """Place the rows of several parts, each with its positions, into a dataset of ``n`` rows, others empty."""
    lengths = np.zeros(n, dtype=np.int64)
    of = np.concatenate([rows for rows, _ in parts] or [lengths[:0]])
    values = np.concatenate([held.values for _, held in parts] or [np.zeros(0, np.bool_)])
    within = np.concatenate([held.lengths for _, held in parts] or [lengths[:0]])
    lengths[of] = within
    if (np.diff(of) > 0).all():  # where rows come in order, so do their entries, and nothing is moved
        return Ragged(values, offsets_of(lengths))
    return Ragged(values, offsets_of(within)).scatter(of, n)
