"""Q-Tuning's second stage: which of a row's supervised tokens stay in the loss (arXiv 2509.23873).

The tokens that go leave the loss and nothing else: the model reads the row whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.parameters import as_written
from datapruner.ragged import Ragged, offsets_of

BLOCK = 1 << 21
"""Tokens sorted at a time."""


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
    lengths, starts = token_nll.lengths, token_nll.offsets[:-1]
    nll = token_nll.values.astype(np.float64)
    filled = lengths > 0
    top = np.zeros(len(lengths))
    top[filled] = np.maximum.reduceat(nll, starts[filled]) if filled.any() else 0
    ppl = np.exp(nll - np.repeat(top, lengths))
    before, after = np.zeros_like(ppl), np.zeros_like(ppl)
    before[1:], after[:-1] = ppl[:-1], ppl[1:]
    before[starts[filled]] = 0
    after[token_nll.offsets[1:][filled] - 1] = 0
    scores: Floats = (1 - smoothing) * ppl + smoothing * (before + after)
    return scores


def prune_tokens(token_nll: Ragged, rows: Ints, *, keep: float, smoothing: float) -> Ragged:
    """Decide for every supervised token of some rows whether it stays in the loss.

    *Published*: the share ``keep`` of a row's tokens stays and the highest scores go (eq. 7 of the paper says the
    opposite; its figure 2, its tables 4 and 5 and its code agree on this). *Ours*: max(1, round(T keep)) tokens
    stay, halves to even as Python rounds; of equal scores the earlier token stays.

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
            raise DataPrunerError(
                f"token_nll is not finite in row {int(some[taken.rows()[np.argmin(finite)]])}"
            )
        of = taken.rows()
        order = np.lexsort((token_scores(taken, smoothing), of))
        each, which = np.unique(taken.lengths, return_inverse=True)
        stay = np.array([max(1, round(share * length)) for length in each.tolist()])[which]
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
