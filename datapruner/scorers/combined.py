"""Several scorers joined into one, in the whole set or inside each group."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats
from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.ranks import average_ranks, rows_of_groups, topsis
from datapruner.scorers import make_scorer
from datapruner.scorers._grouping import CLUSTER, groups_of, signals_of
from datapruner.scorers.base import Scorer
from datapruner.selection.selector import GROUPS
from datapruner.signals import COLUMN, Signals
from datapruner.text import safe_repr

logger = logging.getLogger(__name__)

TIE = 1e-9
"""Weight of the mean rank beside the worst: below any step between two ranks of one group."""


@dataclass(frozen=True)
class Combined(Scorer):
    """Rank by several scorers at once, in the whole set or inside each group.

    *Ours* altogether. A row's rank in a scorer is (its average rank - 0.5) / rows, in (0, 1), high for what that
    scorer keeps; ``<name>_score``, with the sign of what it measures, and ``<name>_rank`` are among the columns. Levels
    differ more between kinds of rows than between good and bad ones; ranks inside a group compare a row with its own
    kind. A selection over all groups then keeps about the same share of each.

    Only the scorers' values are joined: their groups and what they hold for their own selectors are left out. With
    ``within="cluster"`` permuted rows may get other values, since the clustering depends on the order of the rows.

    Parameters
    ----------
    scorers : list
        Two or more: names, or ``{"name": ..., "parameters": {...}}``. A scorer may be there twice, with other
        parameters: the second's columns then carry a number. By default the rows come last whose response is
        improbable, or is helped least by its prompt.
    by : {"worst_rank", "mean_rank", "topsis"}
        Every row's worst rank (equal worst ranks by mean rank), its mean rank, or TOPSIS over the scorers' values,
        min-max normalised in the group and equally weighted. The ranks do not mind outliers, TOPSIS does.
    within : str, optional
        ``cluster`` (spherical k-means of the embeddings), or the column whose values are the groups
        (``column:cluster`` for one of that name); default: the whole set.
    n_clusters : int, optional
        k, with ``within="cluster"``; default round(sqrt(n / 2)) between 8 and 1000.
    min_group : int
        A group of fewer rows says little by its ranks: its rows are ranked in the whole set.
    """

    scorers: list[str | dict[str, Any]] = field(
        default_factory=lambda: ["perplexity", {"name": "ifd", "parameters": {"keep": "low"}}]
    )
    by: Literal["worst_rank", "mean_rank", "topsis"] = "worst_rank"
    within: str | None = None
    n_clusters: int | None = None
    min_group: int = 10
    name: ClassVar[str] = "combined"
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = "none"
    provenance: ClassVar[str] = "ours"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning, those of the scorers too."""
        super().__post_init__()
        if len(self.scorers) < 2:
            raise DataPrunerError(f"combined: give two scorers or more to join, not {len(self.scorers)}")
        if self.n_clusters is not None and self.within != CLUSTER:
            raise DataPrunerError("combined: n_clusters is for within=cluster")
        if self.within is not None and not self.within.removeprefix(COLUMN):
            raise DataPrunerError("combined: within is 'cluster' or a column's name, not an empty one")
        if self.min_group < 1:
            raise DataPrunerError(f"combined: min_group must be 1 or more, not {self.min_group}")
        assert self.members

    @cached_property
    def members(self) -> dict[str, Scorer]:
        """The scorers under the names of their columns: ``ifd``, and ``ifd_2`` for the second of a name."""
        out: dict[str, Scorer] = {}
        for given in self.scorers:
            scorer = member(given, self.name)
            earlier = sum(other.name == scorer.name for other in out.values())
            out[f"{scorer.name}_{earlier + 1}" if earlier else scorer.name] = scorer
        return out

    @property
    def requires(self) -> frozenset[str]:
        """What the scorers read together, and what the groups are made of."""
        own = frozenset() if self.within is None else signals_of(self.within)
        return own.union(*(scorer.requires for scorer in self.members.values()))

    @property
    def offers(self) -> frozenset[str] | None:
        """The scorers' columns beside its own; what they hold for their own selectors is left out."""
        own = {f"{label}_{kind}" for label in self.members for kind in ("score", "rank")} | {CLUSTER}
        return joined(own, *self.members.values())

    @property
    def promises(self) -> frozenset[str]:
        """What all the scorers promise; a clustering depends on the order of the rows."""
        shared = frozenset.intersection(*(scorer.promises for scorer in self.members.values()))
        return shared - {"permutation"} if self.within == CLUSTER else shared

    def _score(self, signals: Signals) -> Ranking:
        rankings = {label: scorer.score(signals) for label, scorer in self.members.items()}
        scores = np.column_stack([ranking.values for ranking in rankings.values()])
        groups = None if self.within is None else groups_of(signals, self.within, self.n_clusters)
        ranks, values = self._join(scores)
        if groups is not None:
            alone = signals.num_rows
            for rows in rows_of_groups(groups):
                if len(rows) >= self.min_group:
                    ranks[rows], values[rows] = self._join(scores[rows])
                    alone -= len(rows)
            if alone:
                logger.info(
                    "combined: %d rows in groups of fewer than %d are ranked in the whole set",
                    alone,
                    self.min_group,
                )
        columns: dict[str, NDArray[Any]] = {}
        for number, label in enumerate(rankings):
            # Where a scorer keeps low values of something, that something's sign, not the score's.
            own = scores[:, number] if rankings[label].measure.high else 0.0 - scores[:, number]
            columns |= {f"{label}_score": own, f"{label}_rank": ranks[:, number]}
        if groups is not None and self.within == CLUSTER:
            columns[CLUSTER] = groups
        for ranking in rankings.values():
            columns = columns | {name: held for name, held in ranking.columns.items() if name not in columns}
        return Ranking(values, groups=groups, columns=columns)

    def _join(self, scores: Floats) -> tuple[Floats, Floats]:
        """Rank the rows of one group in every scorer, and join; float64 (m, k) and (m,)."""
        ranks = np.column_stack([(average_ranks(column) - 0.5) / len(scores) for column in scores.T])
        mean = ranks.mean(axis=1)
        if self.by == "mean_rank":
            return ranks, mean
        if self.by == "worst_rank":
            return ranks, ranks.min(axis=1) + TIE * mean
        k = scores.shape[1]
        return ranks, topsis(scores, [1.0] * k, [True] * k, "minmax")


def member(given: str | dict[str, Any], whose: str) -> Scorer:
    """Build a scorer that works inside of another from its name, or from its name and parameters."""
    if isinstance(given, str):
        given = {"name": given}
    parameters = given.get("parameters", {})
    if given.keys() - {"name", "parameters"} or "name" not in given or not isinstance(parameters, dict):
        raise DataPrunerError(
            f"{whose}: a scorer is a name, or a mapping of `name` and `parameters`, not "
            f"{safe_repr(given, 80)}"
        )
    return make_scorer(given["name"], parameters)


def joined(own: set[str], *members: Scorer) -> frozenset[str] | None:
    """Give what a scorer's ranking may hold that hands on the columns of others; None where one does not say."""
    held = [scorer.offers for scorer in members]
    if any(names is None for names in held):
        return None
    # Their groups are not handed on, or without weights.
    return frozenset(own).union(*(names for names in held if names is not None)) - {GROUPS}
