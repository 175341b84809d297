"""What a comparison of scorers holds, and its tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats
from datapruner.comparison import tables
from datapruner.errors import DataPrunerError
from datapruner.ranks import average_ranks, rank_correlation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from datapruner.scores import Scores, Selection
    from datapruner.selection.budget import Budget
    from datapruner.stability.result import Stability


@dataclass(frozen=True, eq=False)
class AtBudget:
    """What every scorer keeps for one budget.

    Attributes
    ----------
    budget : Budget
    selections : mapping
        Scorer's name -> its selection.
    overlap : ndarray, float64, shape (s, s)
        Jaccard index of the rows that two scorers keep.
    chance : ndarray, float64, shape (s, s)
        The Jaccard index to be expected of two independent random selections of as many rows as they keep: for a
        budget in rows the same everywhere, for one in tokens not.
    """

    budget: Budget
    selections: Mapping[str, Selection]
    overlap: Floats
    chance: Floats

    @property
    def label(self) -> str:
        """The budget in a few words, as the tables name it."""
        return self.budget.describe()


@dataclass(frozen=True, eq=False)
class Comparison:
    """Selections by several scorers from the same scores, for one budget or several.

    Every table is a DataFrame, every picture a matplotlib Axes; where a method takes a ``budget`` it is a position in
    ``budgets``.

    Attributes
    ----------
    budgets : tuple of AtBudget
        In the order given; ``selections``, ``overlap`` and ``chance`` are those of the first.
    asked : tuple of str
        The scorers but the baselines ``random`` and ``length``.
    by : tuple of str
        Columns whose values are groups; the label's among them, where the layout has one.
    left_out : mapping
        Of ``scorers="all"`` those that could not run -> why.
    stability : Stability, optional
        What moves each of the selections for the first budget.
    """

    budgets: tuple[AtBudget, ...]
    asked: tuple[str, ...]
    by: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    stability: Stability | None = None

    def __repr__(self) -> str:
        """Name the scorers."""
        return f"Comparison({', '.join(self.names)})"

    @property
    def names(self) -> list[str]:
        """The scorers' names, in the order of every matrix."""
        return list(self.selections)

    @property
    def selections(self) -> Mapping[str, Selection]:
        """Scorer's name -> its selection for the first budget; they all share one ``scores``."""
        return self.budgets[0].selections

    @property
    def scores(self) -> Scores:
        """What all selections were made from."""
        return next(iter(self.selections.values())).scores

    @property
    def overlap(self) -> Floats:
        """Jaccard index of the rows that two scorers keep for the first budget; float64 (s, s)."""
        return self.budgets[0].overlap

    @property
    def chance(self) -> Floats:
        """What of it is to be expected of random selections; float64 (s, s)."""
        return self.budgets[0].chance

    @property
    def every(self) -> list[Selection]:
        """All selections, budget by budget."""
        return [selection for at in self.budgets for selection in at.selections.values()]

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Source positions of the rows that cleaning left, ascending; int64 (m,)."""
        return np.flatnonzero(np.isfinite(next(iter(self.selections.values())).values))

    @cached_property
    def ranks(self) -> Mapping[str, Floats]:
        """Every scorer's percentile ranks: (average rank - 0.5) / m, high for what it keeps; float64 (n,).

        In (0, 1); NaN where a row was dropped before scoring.
        """
        out = {}
        for name, selection in self.selections.items():
            out[name] = np.full(len(selection.kept), np.nan)
            out[name][self.rows] = (average_ranks(selection.values[self.rows]) - 0.5) / len(self.rows)
        return out

    @cached_property
    def correlation(self) -> Floats:
        """Spearman correlation of the scores; NaN where a scorer gave all rows the same; float64 (s, s)."""
        return rank_correlation([self.ranks[name][self.rows] for name in self.names])

    @cached_property
    def spread(self) -> Floats:
        """Standard deviation of a row's percentile ranks over the scorers asked for; float64 (n,), NaN where dropped.

        *Ours.* The baselines are left out. At most 0.5, where one half of the scorers puts a row first and the other
        half last; 0 everywhere where fewer than two scorers were asked for. Ranks do not see how a scorer shares its
        budget over groups, so two scorers may rank a row alike and only one of them keep it.
        """
        held = [self.ranks[name] for name in self.asked] or [0.5 * self.ranks[self.names[0]]]
        found: Floats = np.std(held, axis=0)
        return found

    @cached_property
    def groupings(self) -> list[tables.Grouping]:
        """The groups that what is kept is counted by: columns, then the scorers' own."""
        return tables.groupings(self)

    @cached_property
    def _groups(self) -> DataFrame:
        return tables.kept_by_group(self)

    @cached_property
    def _lengths(self) -> DataFrame:
        return tables.kept_lengths(self)

    @cached_property
    def _scores(self) -> DataFrame:
        return tables.score_distributions(self)

    def at(self, budget: int = 0) -> AtBudget:
        """Give what was kept for one of the budgets, by its position.

        Raises
        ------
        DataPrunerError
            There is none.
        """
        if not 0 <= budget < len(self.budgets):
            held = ", ".join(f"{number}: {at.label}" for number, at in enumerate(self.budgets))
            raise DataPrunerError(
                f"there is no budget {budget}; a budget is a position, and there are {held}"
            )
        return self.budgets[budget]

    def to_frame(self) -> DataFrame:
        """Give every budget and pair of scorers: ``jaccard`` beside ``chance``, and ``spearman`` of the scores."""
        return tables.pairs(self)

    def groups_frame(self) -> DataFrame:
        """Give what every scorer keeps of every group, for every budget.

        ``rows`` and ``share`` are the group's of the rows that cleaning left; ``kept`` counts its kept rows,
        ``kept_share`` is their share of all kept rows, ``rate`` their share of the group. ``by`` is a column, or
        ``groups of`` a scorer: its clusters, for instance. A scorer whose groups are those of one before is not
        listed again.
        """
        return self._groups.copy()

    def balance_frame(self) -> DataFrame:
        """Sum up :meth:`groups_frame`: how many ``groups`` there are and are ``reached``, and what was ``moved``.

        ``moved`` is the total variation distance from the data: the share of the kept rows that would have to lie in
        other groups for every group to have the share it has in the data.
        """
        return tables.balance(self._groups)

    def lengths_frame(self) -> DataFrame:
        """Give the lengths of the rows that every scorer keeps, beside all rows', in tokens and supervised tokens.

        ``tokens`` is their sum and ``share`` that of the data's; ``in_loss`` counts supervised tokens without those
        that a selector pruned; ``q05`` to ``q95`` are quantiles of a row's length. Empty where rows have no text.
        """
        return self._lengths.copy()

    def scores_frame(self) -> DataFrame:
        """Give every scorer's values by mean and quantiles, and their Spearman correlation with the rows' length.

        ``spearman_num_tokens`` and ``spearman_num_supervised_tokens`` are its length bias: above 0 it prefers long
        rows. NaN where rows have no text, and where all have the same score.
        """
        return self._scores.copy()

    def disagreements_frame(self, count: int = 20, budget: int = 0) -> DataFrame:
        """Give the rows on which the scorers disagree most, with every scorer's rank and reason side by side.

        Those of the largest :attr:`spread`, the first row first where it is equal; rows on which all agree are not
        listed, so the table is empty where fewer than two scorers were asked for.

        Parameters
        ----------
        count : int
            Rows at most.
        budget : int
            For which budget the reasons are.

        Returns
        -------
        DataFrame
            ``row``, ``spread``, ``text`` (its beginning, harmless to print), and for every scorer asked for ``_rank``
            (see :attr:`ranks`), ``_kept`` and ``_reason`` behind its name.
        """
        return tables.disagreements(self, count, budget)

    def describe(self, examples: int = 3) -> str:
        """Give the tables for a terminal, with ``examples`` rows on which the scorers disagree."""
        from datapruner.comparison.text import describe

        return describe(self, examples)

    def save(self, path: str | Path, *, overwrite: bool = False, report: bool = False) -> Path:
        """Write ``comparison.json``, a CSV file a table, the stability's files and perhaps a page, all or none.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist yet, or is empty.
        overwrite : bool
            Replace an earlier comparison.
        report : bool
            Write ``report.html`` too: one page to look at, for every scorer and budget, without network access.

        Raises
        ------
        DataPrunerError
            The folder holds something else or cannot be written, or the extra ``report`` is not installed.
        """
        from datapruner.comparison.text import save

        return save(self, Path(path), overwrite=overwrite, report=report)

    def report(self, path: str | Path, *, overwrite: bool = False, max_rows: int = 5000) -> Path:
        """Write one HTML page that shows the comparison and needs no network.

        Parameters
        ----------
        path : str or Path
            A file such as ``report.html``.
        overwrite : bool
            Replace a file that is there.
        max_rows : int
            Of more rows a stratified sample is shown, and the page says so.

        Raises
        ------
        DataPrunerError
            The file is there, cannot be written, or the extra ``report`` is not installed.
        """
        from datapruner.comparison.text import sections
        from datapruner.outputs.report import save_report

        return save_report(
            Path(path),
            self.every,
            overwrite=overwrite,
            max_rows=max_rows,
            sections=sections(self),
            by=self.by,
        )

    def plot_overlap(self, budget: int = 0, ax: Axes | None = None) -> Axes:
        """Draw the overlap of every pair; see :func:`datapruner.comparison.plots.plot_overlap`."""
        from datapruner.comparison.plots import plot_overlap

        return plot_overlap(self, budget, ax)

    def plot_correlation(self, ax: Axes | None = None) -> Axes:
        """Draw the rank correlation of every pair; see :func:`datapruner.comparison.plots.plot_correlation`."""
        from datapruner.comparison.plots import plot_correlation

        return plot_correlation(self, ax)

    def plot_budgets(self, scorer: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw one scorer's overlap with the others by budget; see :func:`datapruner.comparison.plots.plot_budgets`."""
        from datapruner.comparison.plots import plot_budgets

        return plot_budgets(self, scorer, ax)

    def plot_groups(self, by: str | None = None, budget: int = 0, ax: Axes | None = None) -> Axes:
        """Draw what is kept of every group; see :func:`datapruner.comparison.plots.plot_groups`."""
        from datapruner.comparison.plots import plot_groups

        return plot_groups(self, by, budget, ax)

    def plot_lengths(
        self, of: str = "num_supervised_tokens", budget: int = 0, ax: Axes | None = None
    ) -> Axes:
        """Draw the lengths of what is kept; see :func:`datapruner.comparison.plots.plot_lengths`."""
        from datapruner.comparison.plots import plot_lengths

        return plot_lengths(self, of, budget, ax)

    def plot_length_bias(self, ax: Axes | None = None) -> Axes:
        """Draw how the scores go with length; see :func:`datapruner.comparison.plots.plot_length_bias`."""
        from datapruner.comparison.plots import plot_length_bias

        return plot_length_bias(self, ax)

    def plot_scores(self, budget: int = 0, axes: Sequence[Axes] | None = None) -> NDArray[Any]:
        """Draw a histogram a scorer, kept and dropped; see :func:`datapruner.comparison.plots.plot_scores`."""
        from datapruner.comparison.plots import plot_scores

        return plot_scores(self, budget, axes)
