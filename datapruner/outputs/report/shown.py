"""Which rows of which selections a page shows, and what it says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.outputs.facets import Facet, find_facets, find_labels
from datapruner.outputs.report.rows import characters
from datapruner.outputs.report.sampling import stratified
from datapruner.outputs.wording import counted, share_of_rows
from datapruner.ranks import average_ranks
from datapruner.results.scored import Scored
from datapruner.results.selected import Selected
from datapruner.scorers._baselines import BASELINES
from datapruner.text import safe_text

SHARE_FORCED = 20
"""One row in so many is shown because scorers disagree on it, whatever its stratum."""
MOST_ORIGINALS = 1000
"""Rows that are read only to stand beside their copies."""


@dataclass(frozen=True, eq=False)
class Shown:
    """Selections of the same rows, and which of the rows a page shows.

    Attributes
    ----------
    selections : sequence of Selected
        One or more, all from the same scores.
    max_rows : int
    by : sequence of str
        Columns that rows are broken down by before all others.
    """

    selections: Sequence[Selected]
    max_rows: int
    by: Sequence[str] = ()

    @property
    def scores(self) -> Scored:
        """What all selections were made from."""
        return self.selections[0].scores

    @cached_property
    def names(self) -> list[str]:
        """A name for every selection: its scorer's, with the budget and the selector where that leaves doubt."""
        scorers = [safe_text(selection.scorer, 60) for selection in self.selections]
        by_budget = [f"{name}, {amount(one)}" for name, one in zip(scorers, self.selections, strict=True)]
        found = [
            f"{name}, {one.selector.name}, {one.budget.describe()}"
            for name, one in zip(scorers, self.selections, strict=True)
        ]
        for names in (scorers, by_budget, found):
            if len(set(names)) == len(names):
                return names
        return [f"{name} ({number + 1})" for number, name in enumerate(found)]

    @cached_property
    def labels(self) -> list[Facet]:
        """The columns that sort rows into groups, all of them."""
        return find_labels(self.selections, self.by)

    @cached_property
    def facets(self) -> list[Facet]:
        """The groups that rows are broken down by: some of these columns, and the scorers' own."""
        return find_facets(self.selections, self.labels)

    @cached_property
    def lengths(self) -> Ints | None:
        """Supervised tokens of every row where they were counted, else characters; None without text."""
        tokens = self.scores.tokens.get("num_supervised_tokens")
        return characters(self.scores.samples) if tokens is None else tokens

    @property
    def unit(self) -> str:
        """What lengths are counted in."""
        return "supervised tokens" if "num_supervised_tokens" in self.scores.tokens else "characters"

    @cached_property
    def places(self) -> dict[str, Floats]:
        """Each scorer's rank of every row, 1 for the highest score, equal scores sharing the mean; NaN unscored."""
        out = {}
        for name, ranking in self.scores.rankings.items():
            ranks = np.full(len(ranking.values), np.nan)
            there = np.isfinite(ranking.values)
            ranks[there] = average_ranks(-ranking.values[there])
            out[name] = ranks
        return out

    @property
    def left_out(self) -> list[str]:
        """The baselines, whose disagreement with the others says nothing."""
        return [name for name in self.scores.rankings if name in BASELINES]

    @cached_property
    def disagreement(self) -> Floats | None:
        """How far apart the scorers rank each row, as a share of all ranks; None with fewer than two to compare."""
        names = [name for name in self.places if name not in self.left_out]
        if len(names) < 2:
            return None
        low, high = (
            np.min([self.places[n] for n in names], axis=0),
            np.max([self.places[n] for n in names], axis=0),
        )
        scored = max(int(np.isfinite(low).sum()) - 1, 1)
        return np.asarray((high - low) / scored, dtype=np.float64)

    @cached_property
    def extremes(self) -> Ints:
        """Rows that are shown because the scorers of a comparison disagree on them most."""
        if len(self.selections) < 2 or self.disagreement is None:
            return np.zeros(0, dtype=np.int64)
        apart = np.nan_to_num(self.disagreement)
        order = np.argsort(-apart, kind="stable")[: self.max_rows // SHARE_FORCED]
        return np.sort(order[apart[order] > 0])

    @cached_property
    def rows(self) -> Ints:
        """The rows that are shown, ascending."""
        if len(self.selections) == 1:
            fate = self.selections[0].fates()[1]
        else:
            fate = np.sum([selection.kept for selection in self.selections], axis=0).astype(np.int64)
        group = self.facets[0].codes + 1 if self.facets else np.zeros_like(fate)
        return stratified(fate, group, self.max_rows, self.extremes)

    @cached_property
    def copied(self) -> Ints:
        """The row that each shown row copies, where it was dropped for that, else -1; int64 (m,)."""
        of = np.full(len(self.scores), -1, dtype=np.int64)
        for vetoes in self.scores.vetoes:
            if vetoes.reason.refers_to == "row":
                of[vetoes.rows] = vetoes.others
        return np.asarray(of[self.rows], dtype=np.int64)

    @cached_property
    def originals(self) -> Ints:
        """Rows that shown ones copy and that are not among them, as many as there is room for; int64, ascending."""
        found = np.setdiff1d(self.copied[self.copied >= 0], self.rows)
        return np.asarray(found[:MOST_ORIGINALS], dtype=np.int64)

    @property
    def sampled(self) -> str:
        """Say how many rows are shown, and how they were chosen."""
        n, m = len(self.scores), len(self.rows)
        if m == n:
            return f"The table shows all {counted(n, 'row')}." if n > 1 else "The table shows the only row."
        by = "what became of them" if len(self.selections) == 1 else "how many selections keep them"
        by += f" and by {self.facets[0].name}" if self.facets else ""
        extra = (
            f", with the {counted(len(self.extremes), 'row')} among them on which the scorers disagree most"
            if len(self.extremes)
            else ""
        )
        return (
            f"Points and the table show {m:,} of {n:,} rows, a sample stratified by {by}{extra}. Counts, shares and "
            "distributions are not sampled."
        )


def amount(selection: Selected) -> str:
    """Give a budget in two words."""
    budget = selection.budget
    if budget.keep_tokens is not None:
        return counted(budget.keep_tokens, "token")
    if isinstance(budget.keep, float):
        return share_of_rows(budget.keep)
    return counted(int(budget.keep or 0), "row")
