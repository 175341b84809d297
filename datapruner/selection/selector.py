"""What every selector is: a ranking and a budget in, the kept rows and a reason for every row out.

They all do two things, share a budget over groups and take the best inside a group: the first is
:func:`datapruner.selection.allocation.allocate`, the second :func:`take`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, NamedTuple

import numpy as np

from datapruner.arrays import Flags, Floats, Ints
from datapruner.errors import DataPrunerError, RowError
from datapruner.parameters import Parameters
from datapruner.ragged import Ragged
from datapruner.ranking import Ranking
from datapruner.reasons import Reason
from datapruner.selection.budget_rows import Portion

GROUPS = "groups"
"""What a selector calls a ranking's groups and their weights, beside the names of columns and state."""


@dataclass(frozen=True)
class Choice:
    """What a selector decided over the rows of a portion.

    Attributes
    ----------
    kept : ndarray, bool, shape (m,)
    codes : ndarray, int64, shape (m,)
        Which of ``texts`` is each row's reason.
    texts : list of str
    token_masks : Ragged, optional
        bool, m rows: which of a kept row's supervised tokens stay in the loss; empty where all of them do.
    """

    kept: Flags
    codes: Ints
    texts: list[str]
    token_masks: Ragged | None = None


class Refused(NamedTuple):
    """Rows that no budget buys.

    Attributes
    ----------
    rows : ndarray, bool, shape (n,)
        Of the whole dataset.
    reason : Reason
        Its sentence filled, but for nothing that differs between rows.
    way_out : str
        What lets more of them compete: ``a larger token_keep``.
    """

    rows: Flags
    reason: Reason
    way_out: str


def take(
    order: Ints, costs: Ints, budgets: Ints, groups: Ints | None = None, *, spend_rest: bool = True
) -> Flags:
    """Take the best inside each group until its budget is spent; then spend what tokens left over.

    Parameters
    ----------
    order : ndarray, int64, shape (m,)
        Positions, best first.
    costs : ndarray, int64, shape (m,)
        By position.
    budgets : ndarray, int64, shape (k,)
    groups : ndarray, int64, shape (m,), optional
        By position, in [0, k); one group by default.
    spend_rest : bool
        Whether what the groups' budgets leave over is spent in a last round over all rows.

    Returns
    -------
    ndarray, bool, shape (m,)
        With unit costs every group gets exactly its budget (or all it has). With others a row that does not
        fit is passed over for the next that does; a last round over all groups then spends the remainders,
        so that less is left than the cheapest row that was not taken.
    """
    kept = np.zeros(len(order), dtype=np.bool_)
    groups = np.zeros(len(order), dtype=np.int64) if groups is None else groups
    by_group = order[np.argsort(groups[order], kind="stable")]
    edges = np.searchsorted(groups[by_group], np.arange(len(budgets) + 1))
    if (costs == 1).all():
        for start, stop, budget in zip(edges[:-1], edges[1:], budgets, strict=True):
            kept[by_group[start : min(start + budget, stop)]] = True
        return kept
    left = 0
    for j, budget in enumerate(budgets.tolist()):
        left += fill(by_group[edges[j] : edges[j + 1]], costs, budget, kept)
    if spend_rest:
        fill(order[~kept[order]], costs, left, kept)
    return kept


def fill(order: Ints, costs: Ints, budget: int, kept: Flags) -> int:
    """Mark rows in ``kept``, in order while they fit, passing over those that do not; give what is left."""
    while True:
        order = order[costs[order] <= budget]
        if not order.size:
            return budget
        spent = np.cumsum(costs[order])
        fit = int(np.searchsorted(spent, budget, side="right"))
        kept[order[:fit]] = True
        budget -= int(spent[fit - 1])
        order = order[fit:]


def best_first(values: Floats) -> Ints:
    """Positions by descending value; ties by position."""
    order: Ints = np.argsort(-values, kind="stable")
    return order


@dataclass(frozen=True)
class Selector(Parameters, ABC):
    """Base of all selectors: a dataclass whose fields are its parameters.

    Attributes
    ----------
    name : str
        What users write; also the entry point's name of a plug-in (``datapruner.selectors``).
    needs_groups : bool
        Whether the ranking must have groups and group weights.
    needs : frozenset of str
        Columns and state that the ranking must have.
    reads : frozenset of str
        Signals of one entry a row, which a run that chooses by it measures whatever its scorers read: they are in the
        ranking's state under their names, an entry for every row of the source.
    """

    name: ClassVar[str]
    needs_groups: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    reads: ClassVar[frozenset[str]] = frozenset()

    @property
    def requires(self) -> frozenset[str]:
        """What it reads of a ranking with these parameters: ``needs``, and :data:`GROUPS`, unless overridden."""
        return self.needs | ({GROUPS} if self.needs_groups else set())

    @property
    def asks(self) -> tuple[str, str]:
        """Say in words what it reads, and what else to take where a ranking lacks it."""
        named = [*["groups with weights"] * self.needs_groups, *sorted(self.needs)]
        return " and ".join(named), "use topk"

    def check(self, held: Iterable[str]) -> None:
        """Refuse a ranking that lacks what this selector reads.

        Parameters
        ----------
        held : iterable of str
            Names of columns and state, :data:`GROUPS` for groups with weights; ``*`` stands for any letters.
        """
        held = list(held)
        if not all(any(fnmatchcase(need, name) for name in held) for need in self.requires):
            needed, instead = self.asks
            raise DataPrunerError(
                f"the selector '{self.name}' needs {needed}, which this scorer does not give; {instead}"
            )

    @property
    def by_groups(self) -> bool:
        """Whether rows compete inside the ranking's groups: ``needs_groups`` unless overridden."""
        return self.needs_groups

    @property
    def group_power(self) -> float | None:
        """The power of their size by which a column's groups share a budget; None, unless overridden: in proportion."""
        return None

    @property
    def prunes_tokens(self) -> bool:
        """Whether a selection has token masks, and its data ``input_ids`` and ``labels``; not unless overridden."""
        return False

    def refuses(self, ranking: Ranking) -> Refused | None:
        """Tell the rows that it would not keep whatever the budget; those that are always kept are kept all the same.

        Parameters
        ----------
        ranking : Ranking
            Of the whole dataset.

        Raises
        ------
        DataPrunerError
            The ranking lacks what this selector needs.
        """
        self._check_ranking(ranking)
        return self._refuses(ranking)

    def _refuses(self, ranking: Ranking) -> Refused | None:
        """Tell these rows; none unless overridden."""
        return None

    def _check_ranking(self, ranking: Ranking) -> None:
        whole = ranking.groups is not None and ranking.group_weights is not None
        self.check([*ranking.columns, *ranking.state, *[GROUPS] * whole])
        if lost := sorted(self.reads - ranking.state.keys()):
            raise DataPrunerError(
                f"the selector '{self.name}' reads the signal '{lost[0]}', which these scores do not hold; name it "
                f"where rows are scored: --selector={self.name} of prune, which measures it too"
            )

    @abstractmethod
    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        """Choose among ``portion.rows``, whose order in the result is that of the portion."""

    def select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        """Choose the rows of a portion.

        Parameters
        ----------
        ranking : Ranking
            Of the whole dataset; finite at ``portion.rows``.
        portion : Portion
        rng : numpy.random.Generator

        Returns
        -------
        Choice

        Raises
        ------
        DataPrunerError
            The ranking lacks what this selector needs, or the budget was not met.
        """
        self._check_ranking(ranking)
        if not np.isfinite(ranking.values[portion.rows]).all():
            row = portion.rows[int(np.argmin(np.isfinite(ranking.values[portion.rows])))]
            raise RowError(f"row {row} has no finite score and cannot be chosen or refused", row)
        choice = self._select(ranking, portion, rng)
        spent = int(portion.costs[choice.kept].sum())
        rest = portion.costs[~choice.kept]
        if spent > portion.budget or (rest.size and portion.budget - spent >= int(rest.min())):
            raise DataPrunerError(
                f"the selector '{self.name}' spent {spent} of {portion.budget} {portion.unit}; the budget must be "
                "spent until no further row fits"
            )
        return choice
