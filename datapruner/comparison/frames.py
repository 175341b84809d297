"""The tables of a comparison, each made once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from datapruner.comparison import tables
from datapruner.comparison.compared import Compared

if TYPE_CHECKING:
    from pandas import DataFrame


class Frames(Compared):
    """What was compared, and its tables as DataFrames; where a method takes a ``budget`` it is a position."""

    @cached_property
    def groupings(self) -> list[tables.Grouping]:
        """The groups that what is kept is counted by: columns, then the scorers' own."""
        return tables.groupings(self)

    @cached_property
    def _groups(self) -> DataFrame:
        return tables.kept_by_group(self, self.groupings)

    @cached_property
    def _lengths(self) -> DataFrame:
        return tables.kept_lengths(self)

    @cached_property
    def _scores(self) -> DataFrame:
        return tables.score_distributions(self)

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

    def diversity_frame(self) -> DataFrame:
        """Give how diverse the rows are that every scorer keeps, beside all rows.

        ``novelsum`` is that of :func:`datapruner.comparison.diversity.novelsum`; ``target_similarity``, with a target,
        the mean over its rows of the cosine with the nearest kept row. Empty where no scorer read vectors.
        """
        return tables.diversity(self)

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
