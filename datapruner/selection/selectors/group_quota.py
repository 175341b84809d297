"""Shares of the budget by the groups' weights, and in every group the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.errors import DataPrunerError
from datapruner.parameters import as_written
from datapruner.ranking import Ranking
from datapruner.selection.allocation import allocate
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Choice, Selector, best_first, take
from datapruner.selection.shares import Projection


@dataclass(frozen=True)
class GroupQuota(Selector):
    """Share the budget over the ranking's groups by its weights, then keep the best of each group.

    Parameters
    ----------
    projection : {"l2", "proportional"}
        See :func:`datapruner.selection.allocation.allocate`.
    floor_share : float
        Every group gets at least min(size - 1, floor(floor_share * budget / groups)); 0.5 in the official code
        of arXiv 2401.04578.
    """

    projection: Projection = "l2"
    floor_share: float = 0.0
    name: ClassVar[str] = "group_quota"
    needs_groups: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if not 0 <= self.floor_share <= 1:
            raise DataPrunerError(
                f"group_quota: floor_share must lie between 0 and 1, not {self.floor_share}"
            )

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        assert ranking.group_weights is not None
        weights = ranking.group_weights

        def share(held: Held) -> Ints:
            least = math.floor(as_written(self.floor_share) * held.budget / len(held.numbers))
            floors = np.minimum(held.sizes - 1, least)
            of = weights[held.numbers]
            return allocate(of, held.sizes, held.budget, floors, self.projection, names=held.names)

        return best_of_groups(ranking, portion, share)


class Held(NamedTuple):
    """What the groups of a portion hold.

    Attributes
    ----------
    numbers : ndarray, int64, shape (k,)
        Theirs in the ranking: those that have a row.
    sizes : ndarray, int64, shape (k,)
        Of the budget's currency, rows or tokens.
    budget : int
        At most what all of them hold.
    names : list of str
    """

    numbers: Ints
    sizes: Ints
    budget: int
    names: list[str]


def best_of_groups(ranking: Ranking, portion: Portion, share: Callable[[Held], Ints]) -> Choice:
    """Keep the best rows of each of the ranking's groups, as far as the group's share of the budget goes."""
    assert ranking.groups is not None
    values = ranking.values[portion.rows]
    if not len(values):
        return Choice(np.zeros(0, np.bool_), np.zeros(0, np.int64), [])
    groups = ranking.groups[portion.rows]
    numbers = np.unique(groups)
    groups = np.searchsorted(numbers, groups)
    sizes = np.bincount(groups, portion.costs).astype(np.int64)
    names = [f"cluster {number}" for number in numbers]
    shares = share(Held(numbers, sizes, min(portion.budget, int(sizes.sum())), names))
    kept = take(best_first(values), portion.costs, shares, groups)
    return Choice(kept, 2 * groups + kept, told(names, groups, kept, portion.name))


def told(names: Sequence[str], groups: Ints, kept: Flags, within: str = "") -> list[str]:
    """Give the reasons of each group's rows, of those that are dropped before those that are kept."""
    rows, taken = np.bincount(groups), np.bincount(groups, kept).astype(np.int64)
    where = f" within {within}" if within else ""
    texts = []
    for name, of, got in zip(names, rows.tolist(), taken.tolist(), strict=True):
        share = f"the {got} of {of} rows that {name} keeps{where}"
        texts += [f"dropped: not among {share}", f"kept: among {share}"]
    return texts
