"""The summary of one selection: what happened, in sentences made from the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc

from datapruner.arrays import Ints
from datapruner.outputs.facets import Facet, group_name
from datapruner.outputs.report.dropped import cleaning_words, counted_words, forced_words, tokenless_words
from datapruner.outputs.warnings import CHANCE, NAMED, starved_groups
from datapruner.outputs.wording import be, budget_words, counted, listed, percent, short_name
from datapruner.overlap import correlation
from datapruner.reasons import OVER_BUDGET

if TYPE_CHECKING:
    from datapruner.results.selected import Selected

EXPECTED = 5
"""Kept, or dropped, rows of a group that are to be expected for a chi-square."""
TIED = 0.05
"""Share of the rows with one and the same score from which that is said."""
SURPRISE = 3.0
"""Standard errors by which a group's share must differ to be worth a sentence."""
BIAS = 0.2
"""Rank correlation with length from which a score counts as biased."""


def selection_words(
    selection: Selected, facets: Sequence[Facet], lengths: Ints | None, unit: str
) -> list[str]:
    """Sum up one selection in sentences."""
    n, kept = len(selection.kept), len(selection)
    what = (
        f"{kept:,} of {counted(n, 'row')} ({percent(kept, n)})"
        if kept < n
        else f"all {counted(n, 'row')}"
        if n > 1
        else "the only row"
    )
    out = [
        f"{short_name(selection.scorer)} keeps {what}, chosen by the selector "
        f"{short_name(selection.selector.name)} for a budget of {budget_words(selection)}."
    ]
    tokens = selection.scores.tokens.get("num_supervised_tokens")
    if tokens is not None and tokens.sum():
        held, whole = int(tokens[selection.kept].sum()), int(tokens.sum())
        out[0] += f" The kept rows hold {percent(held, whole)} of the {counted(whole, 'supervised token')}."
    out += [
        cleaning_words(selection.scores),
        *counted_words(selection.scores),
        *tokenless_words(selection),
        *_tokens(selection),
        *forced_words(selection.scores),
    ]
    for facet in facets:
        out += groups_words(facet, selection)
    if lengths is not None:
        out += _length_bias(selection, lengths, unit)
    return [sentence for sentence in [*out, *_ties(selection)] if sentence]


def _tokens(selection: Selected) -> list[str]:
    stay, masks = selection.supervised_tokens_kept, selection.token_masks
    if stay is None or masks is None:
        return []
    pruned, gone = int((masks.lengths > 0).sum()), int((~masks.values).sum())
    whole = int(stay.sum()) + gone
    return [
        f"Inside {counted(pruned, 'kept row')}, {counted(gone, 'token')} {be(gone)} taken out of the loss; "
        f"{percent(int(stay.sum()), whole)} of the kept rows' supervised tokens stay in it."
    ]


def groups_words(facet: Facet, selection: Selected) -> list[str]:
    """Name the groups of which strikingly much and little is kept."""
    sizes, taken = facet.sizes, facet.counts(selection.kept)
    there = np.flatnonzero(sizes)
    if len(there) < 2:
        return []
    overall = float(taken.sum() / sizes.sum())
    error = np.sqrt(max(overall * (1 - overall), 1e-12) / sizes[there])
    apart = (taken[there] / sizes[there] - overall) / error
    high, low = int(there[np.argmax(apart)]), int(there[np.argmin(apart)])
    parts = [
        f"strikingly {word} in {group_name(facet, j)} ({taken[j]:,} of {sizes[j]:,}, "
        f"{percent(int(taken[j]), int(sizes[j]))})"
        for word, j, far in (("high", high, apart.max()), ("low", low, -apart.min()))
        if far >= SURPRISE
    ]
    if parts:
        return [f"By {facet.name}, the share kept is {listed(parts)}."]
    if starved_groups(facet, selection):
        return []
    chance = independence(taken, sizes)
    if chance < CHANCE:
        shown = f"p = {chance:.2g}" if chance >= 0.001 else "p under 0.001"
        parts = [
            f"{'the most' if j == high else 'the least'} of {group_name(facet, j)} ({taken[j]:,} of {sizes[j]:,}, "
            f"{percent(int(taken[j]), int(sizes[j]))})"
            for j in (high, low)
        ]
        return [
            f"By {facet.name}, the shares kept differ by more than chance allows, taken together (chi-square, "
            f"{shown}), although no one group stands out: {listed(parts)}."
        ]
    emptied = [
        f"{group_name(facet, j)} ({counted(int(sizes[j]), 'row')})" for j in there.tolist() if not taken[j]
    ]
    if len(emptied) > NAMED:
        emptied = [f"{counted(len(emptied), 'small group')} of {len(there):,}"]
    few = f", although nothing is kept of {listed(emptied)}" if emptied else ""
    return [f"By {facet.name}, no group's share kept is further from the whole than chance allows{few}."]


def independence(taken: Ints, sizes: Ints) -> float:
    """Give the chance of shares kept that differ as much, were rows drawn at random: Pearson's chi-square.

    Parameters
    ----------
    taken, sizes : ndarray, int64, shape (k,)
        Kept rows and rows of each group. Groups of which fewer than five kept, or five dropped, rows are expected are
        taken together, so that the distribution holds.

    Returns
    -------
    float
        In [0, 1]; 1 where there are fewer than two groups to compare.
    """
    share = float(taken.sum()) / max(int(sizes.sum()), 1)
    small = sizes * min(share, 1 - share) < EXPECTED
    kept = np.append(taken[~small], taken[small].sum()).astype(np.float64)
    rows = np.append(sizes[~small], sizes[small].sum()).astype(np.float64)
    there = rows * min(share, 1 - share) >= EXPECTED
    if there.sum() < 2:
        return 1.0
    kept, rows = kept[there], rows[there]
    share = float(kept.sum() / rows.sum())
    if not 0 < share < 1:
        return 1.0
    return float(chdtrc(len(rows) - 1, ((kept - share * rows) ** 2 / (rows * share * (1 - share))).sum()))


def _length_bias(selection: Selected, lengths: Ints, unit: str) -> list[str]:
    scored = np.isfinite(selection.values)
    names, fates = selection.fates()
    ours, others = lengths[selection.kept & scored], lengths[fates == names.index(OVER_BUDGET)]
    if not len(ours) or not len(others):
        return []
    one, other = float(np.median(ours)), float(np.median(others))
    alike = "as long as" if one == other else "about as long as" if abs(one - other) <= 0.1 * other else ""
    shape = alike or ("longer than" if one > other else "shorter than")
    words = f"Kept rows are {shape} those that the budget dropped: a median of {one:,.0f} {unit} against {other:,.0f}"
    found = correlation(selection.values, lengths.astype(np.float64))
    if found is None:
        return [f"{words}."]
    related = round(found, 2) + 0.0
    favours = 0 if abs(related) < BIAS else 1 if related > 0 else -1
    bias = ("hardly depends on length", "favours long rows", "favours short rows")[favours]
    agree = favours == (0 if alike else 1 if one > other else -1)
    return [
        f"{words}{';' if agree else ', although'} the score {bias} "
        f"(rank correlation {f'{related:.2f}'.replace('-', '−')})."
    ]


def _ties(selection: Selected) -> list[str]:
    values = selection.values[np.isfinite(selection.values)]
    if len(values) < 2:
        return []
    _, counts = np.unique(values, return_counts=True)
    most = int(counts.max())
    if most < 2 or most < TIED * len(values):
        return []
    who = "All rows that were scored" if most == len(values) else counted(most, "row")
    return [f"{who} share one score, so that the order of the source decides between them."]
