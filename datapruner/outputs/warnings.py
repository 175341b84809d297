"""Labels of which a selection keeps nothing, or far less than of the whole: sentences that say so and what helps."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtr

from datapruner.outputs.facets import Facet, group_name
from datapruner.outputs.wording import budget_words, by_budget, counted, listed, percent, short_name, some
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.results.selected import Selected

STARVED, FEWEST = 0.25, 10
"""Part of the whole's share below which a group of so many rows is warned of."""
CHANCE = 0.05
"""Chance, over all of a column's groups, that one is warned of although rows were drawn at random."""
MOST_WARNINGS = 3
"""Columns that are warned of one by one."""
NAMED = 5
"""Groups that a sentence names; more are counted."""


def warning_words(selection: Selected, facets: Sequence[Facet]) -> list[str]:
    """Name the labels of which nothing, or far less than of the whole, is kept, and say what helps."""
    out = []
    for facet in facets:
        starved = starved_groups(facet, selection)
        if not starved:
            continue
        sizes, taken = facet.sizes, facet.counts(selection.kept)
        scored = facet.counts(np.isfinite(selection.values))
        parts = [
            f"{group_name(facet, j)} ({taken[j]:,} of {counted(int(sizes[j]), 'row')}, "
            f"{percent(int(taken[j]), int(sizes[j]))}{'' if scored[j] else '; all were dropped before scoring'})"
            for j in starved
        ]
        sentence = (
            f"By {facet.name}, little or nothing is kept of {listed(some(parts, NAMED, 'group'))}, against "
            f"{percent(len(selection), len(selection.kept))} of all rows."
        )
        if selection.recipe.target is not None:
            sentence += " Others are more like the target."
        elif scored[starved].any() and safe_text(facet.column) == facet.column:
            sentence += f" --per-group {shlex.quote(facet.column)} gives every group its share."
        out.append(sentence)
    return _first(out)


def comparison_warnings(selections: Sequence[Selected], facets: Sequence[Facet]) -> list[str]:
    """Name the labels of which a scorer keeps nothing, or far less than of the whole, at the first budget."""
    out, compared = [], [selections[place] for place in by_budget(selections)[0]]
    start = f"At {budget_words(selections[0])}, by" if len(compared) < len(selections) else "By"
    for facet in facets:
        found = [(short_name(one.scorer), starved_groups(facet, one)) for one in compared]
        parts = [
            f"{name} of {listed(some([group_name(facet, j) for j in starved], 2, 'group'))}"
            for name, starved in sorted(found, key=lambda held: -len(held[1]))
            if starved
        ]
        if parts:
            told = "; ".join(some(parts, NAMED, "scorer"))
            out.append(f"{start} {facet.name}, little or nothing is kept by {told}.")
    return _first(out)


def _first(warnings: list[str]) -> list[str]:
    rest = len(warnings) - MOST_WARNINGS
    more = [f"The same is true of labels in {counted(rest, 'more column')}."] if rest > 0 else []
    return warnings[:MOST_WARNINGS] + more


def starved_groups(facet: Facet, selection: Selected) -> list[int]:
    """Find labels of enough rows that keep under a quarter of the whole's share, the largest first.

    And less than random rows would by chance: a binomial tail, shared by the column's groups (Bonferroni). Clusters
    have no name that could matter to anybody, and a budget by group is shared as it was asked to be.
    """
    if facet.scorer or selection.budget.per_group == facet.column:
        return []
    sizes, taken = facet.sizes, facet.counts(selection.kept)
    share = taken.sum() / max(int(sizes.sum()), 1)
    found = [j for j in np.argsort(-sizes, kind="stable").tolist() if sizes[j] >= FEWEST]
    starved = [j for j in found if taken[j] < STARVED * share * sizes[j]]
    tails = bdtr(taken[starved].astype(np.float64), sizes[starved], share)
    return [j for j, tail in zip(starved, tails.tolist(), strict=True) if tail * len(found) < CHANCE]
