"""The summary of several selections of the same rows: what they share, and where they differ most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Ints
from datapruner.outputs.facets import Facet, group_name
from datapruner.outputs.report.dropped import cleaning_words, counted_words, forced_words
from datapruner.outputs.wording import (
    be,
    budget_words,
    by_budget,
    counted,
    listed,
    percent,
    short_name,
    upper,
)
from datapruner.overlap import jaccard
from datapruner.scorers._baselines import BASELINES

if TYPE_CHECKING:
    from datapruner.results.selected import Selected

ENOUGH = 20
"""Rows from which a group's share is compared."""


def comparison_words(
    selections: Sequence[Selected], facets: Sequence[Facet], lengths: Ints | None, unit: str
) -> list[str]:
    """Sum up several selections of the same rows in sentences; the baselines are left out where others remain."""
    first = selections[0]
    scorers = list(dict.fromkeys(selection.scorer for selection in selections))
    budgets = [[selections[place] for place in held] for held in by_budget(selections)]
    told = [budget_words(held[0]) for held in budgets]
    out = [
        f"{counted(len(scorers), 'scorer')} {'rank' if len(scorers) > 1 else 'ranks'} the same "
        f"{counted(len(first.kept), 'row')}, for {'a budget' if len(budgets) == 1 else f'{len(budgets)} budgets'}: "
        f"{listed(told)}.",
        cleaning_words(first.scores),
        *counted_words(first.scores),
        *forced_words(first.scores),
    ]
    for place, (budget, held) in enumerate(zip(told, budgets, strict=True)):
        compared = [one for one in held if one.scorer not in BASELINES]
        compared = compared if len(compared) > 1 else held
        if len(compared) > 1:
            out += _shared(compared, f"At {budget}: of" if len(budgets) > 1 else "Of")
            if place == 0:
                out += _longest(compared, lengths, unit)
                out += _contrast([facet for facet in facets if not facet.scorer], compared)
    return [sentence for sentence in out if sentence]


def _shared(compared: Sequence[Selected], start: str) -> list[str]:
    """Say how much of what they keep is the same."""
    names = [short_name(one.scorer) for one in compared]
    pairs = [
        (jaccard(one.kept, other.kept), names[i], names[j])
        for i, one in enumerate(compared)
        for j, other in enumerate(compared)
        if i < j
    ]
    near, far = max(pairs), min(pairs)
    words = f"{start} the rows that {near[1]} or {near[2]} keeps, both keep {percent(near[0], 1)}"
    if len(pairs) > 1:
        words += f", the most of any two; {far[1]} and {far[2]} share the least, {percent(far[0], 1)}"
    votes = np.sum([one.kept for one in compared], axis=0)
    every, none = int((votes == len(compared)).sum()), int((votes == 0).sum())
    who = "both" if len(compared) == 2 else f"all of {listed(names)}"
    return [
        f"{words}. "
        f"{upper(counted(every, 'row'))} {be(every, now=True)} kept by {who}, {counted(none, 'row')} by none.",
    ]


def _longest(compared: Sequence[Selected], lengths: Ints | None, unit: str) -> list[str]:
    if lengths is None:
        return []
    middle = [(float(np.median(lengths[one.kept])), short_name(one.scorer)) for one in compared]
    long, short = max(middle), min(middle)
    if long[0] == short[0]:
        return []
    return [
        f"The longest rows are kept by {long[1]} (a median of {long[0]:,.0f} {unit}), the shortest by {short[1]} "
        f"({short[0]:,.0f}); all rows have {np.median(lengths):,.0f}."
    ]


def _contrast(facets: Sequence[Facet], compared: Sequence[Selected]) -> list[str]:
    """Name the group whose share differs most from one selection to another."""
    for facet in facets:
        sizes = facet.sizes
        there = np.flatnonzero(sizes >= ENOUGH)
        if not len(there):
            continue
        shares = np.array([facet.counts(one.kept)[there] / sizes[there] for one in compared])
        apart = np.ptp(shares, axis=0)
        if not apart.any():
            continue
        place = int(np.argmax(apart))
        high, low = int(shares[:, place].argmax()), int(shares[:, place].argmin())
        return [
            f"By {facet.name}, they differ most on {group_name(facet, int(there[place]))}: "
            f"{short_name(compared[high].scorer)} keeps {percent(float(shares[high, place]), 1)} of it, "
            f"{short_name(compared[low].scorer)} {percent(float(shares[low, place]), 1)}."
        ]
    return []
