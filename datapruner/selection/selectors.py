"""Selectors: a ranking and a budget in, the kept rows and a reason for every row out.

They all do two things, share a budget over groups and take the best inside a group: the first is
:func:`datapruner.selection.allocation.allocate`, the second :func:`take`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints
from datapruner.errors import DataPrunerError
from datapruner.parameters import as_written, check_parameters
from datapruner.ragged import Ragged
from datapruner.scorers.base import Ranking
from datapruner.selection.allocation import allocate
from datapruner.selection.budget import Portion
from datapruner.selection.shares import Projection
from datapruner.text import did_you_mean


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
        place = np.arange(len(order)) - edges[groups[by_group]]
        kept[by_group[place < budgets[groups[by_group]]]] = True
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


def best_first(values: NDArray[np.float64]) -> Ints:
    """Positions by descending value; ties by position."""
    order: Ints = np.argsort(-values, kind="stable")
    return order


@dataclass(frozen=True)
class Selector(ABC):
    """Base of all selectors: a dataclass whose fields are its parameters.

    Attributes
    ----------
    name : str
        What users write.
    needs_groups : bool
        Whether the ranking must have groups and group weights.
    """

    name: ClassVar[str]
    needs_groups: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the parameters' types; a subclass that checks more calls this first."""
        check_parameters(self)

    @property
    def by_groups(self) -> bool:
        """Whether rows compete inside the ranking's groups: ``needs_groups`` unless overridden."""
        return self.needs_groups

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
        if self.needs_groups and (ranking.groups is None or ranking.group_weights is None):
            raise DataPrunerError(
                f"the selector '{self.name}' needs groups with weights, which this scorer does not give; use topk"
            )
        if not np.isfinite(ranking.values[portion.rows]).all():
            row = portion.rows[int(np.argmin(np.isfinite(ranking.values[portion.rows])))]
            raise DataPrunerError(f"row {row} has no finite score and cannot be chosen or refused")
        choice = self._select(ranking, portion, rng)
        spent = int(portion.costs[choice.kept].sum())
        rest = portion.costs[~choice.kept]
        if spent > portion.budget or (rest.size and portion.budget - spent >= int(rest.min())):
            raise DataPrunerError(
                f"the selector '{self.name}' spent {spent} of {portion.budget} {portion.unit}; the budget must be "
                "spent until no further row fits"
            )
        return choice

    def parameters(self) -> dict[str, Any]:
        """Give the parameters by name, as they go into a recipe."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self)}


@dataclass(frozen=True)
class TopK(Selector):
    """Keep the highest values.

    Parameters
    ----------
    balance : float
        Where the ranking has groups: each first gets floor(balance * its rows * budget / all rows) of its
        best (the class-balance floor of arXiv 2206.14486, *published* for classes).
    """

    balance: float = 0.0
    name: ClassVar[str] = "topk"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if not 0 <= self.balance <= 1:
            raise DataPrunerError(f"topk: balance must lie between 0 and 1, not {self.balance}")

    @property
    def by_groups(self) -> bool:
        """Where groups have a floor."""
        return self.balance > 0

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        values = ranking.values[portion.rows]
        order = best_first(values)
        where = f" of {portion.name}" if portion.name else ""
        floor = np.zeros(len(order), dtype=np.bool_)
        if self.balance > 0 and ranking.groups is not None and len(order):
            groups = np.unique(ranking.groups[portion.rows], return_inverse=True)[1]
            sizes = np.bincount(groups, portion.costs).astype(np.int64).tolist()
            # In exact fractions: 49 * (2 / 98) is below 1 in floats, and its floor would be 0.
            each = as_written(self.balance) * min(portion.budget, sum(sizes)) / sum(sizes)
            shares = np.array([math.floor(each * size) for size in sizes], dtype=np.int64)
            floor = take(order, portion.costs, shares, groups, spend_rest=False)
        spent = int(portion.costs[floor].sum())
        kept = floor.copy()
        fill(order[~floor[order]], portion.costs, portion.budget - spent, kept)
        ranked = kept & ~floor
        measure = ranking.measure
        cut = f"{measure.shown(float(values[ranked].min())):.6g}" if ranked.any() else "none"
        # Of a quantity whose low values are kept, the cut has the quantity's sign and name, not the score's.
        named = "" if measure.high else f"{measure.name} "
        codes = np.where(kept, np.where(floor, 2, 0), 1)
        if portion.unit == "tokens" and ranked.any():
            codes[~kept & (values > values[ranked].min())] = 3
        return Choice(
            kept,
            codes.astype(np.int64),
            [
                f"kept: as are all rows{where} that cleaning left"
                if kept.all()
                else f"kept: among the best{where}, {named}{measure.beyond(True)} the cut {cut}",
                f"dropped: below the best{where}, {named}{measure.beyond(False)} the cut {cut}",
                f"kept: among the best of its cluster, which keeps a floor of {self.balance:.4g} of its even share",
                f"dropped: too long for what was left of the budget{where}",
            ],
        )


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
        assert ranking.groups is not None
        assert ranking.group_weights is not None
        values = ranking.values[portion.rows]
        if not len(values):
            return Choice(np.zeros(0, np.bool_), np.zeros(0, np.int64), [])
        numbers, groups = np.unique(ranking.groups[portion.rows], return_inverse=True)
        sizes = np.bincount(groups, portion.costs).astype(np.int64)
        budget = min(portion.budget, int(sizes.sum()))
        floors = np.minimum(sizes - 1, math.floor(as_written(self.floor_share) * budget / len(numbers)))
        names = [f"cluster {number}" for number in numbers]
        weights = ranking.group_weights[numbers]
        shares = allocate(weights, sizes, budget, floors, self.projection, names=names)
        kept = take(best_first(values), portion.costs, shares, groups)
        rows = np.bincount(groups)
        taken = np.bincount(groups, kept).astype(np.int64)
        where = f" within {portion.name}" if portion.name else ""
        texts = []
        for name, of, got in zip(names, rows.tolist(), taken.tolist(), strict=True):
            share = f"the {got} of {of} rows that {name} keeps{where}"
            texts += [f"dropped: not among {share}", f"kept: among {share}"]
        return Choice(kept, 2 * groups + kept, texts)


@dataclass(frozen=True)
class CCS(Selector):
    """Coverage-centric selection for any score (arXiv 2210.15809).

    *Published*: drop the ``beta`` share of hardest rows, cut the rest of the score range into equal-width
    strata, visit them smallest first, give each min(size, what is left / strata left), uniformly at random
    inside. *Ours*: hardest means the highest value, without those that
    tie with the first row below; what integer division leaves goes to the last strata; in
    token budgets a stratum's size is its tokens. When fewer rows than the budget are left, the hardest are
    taken back in, easiest first.

    Parameters
    ----------
    beta : float
        In [0, 1).
    strata : int
    """

    beta: float = 0.1
    strata: int = 50
    name: ClassVar[str] = "ccs"
    taken: ClassVar[str] = "drawn from"
    left: ClassVar[str] = "not drawn from"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if not 0 <= self.beta < 1 or self.strata < 1:
            raise DataPrunerError(
                f"ccs: beta must lie in [0, 1) and strata be 1 or more, not {self.beta}, {self.strata}"
            )

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        values = ranking.values[portion.rows]
        m = len(values)
        order = best_first(values)
        cut = math.floor(as_written(self.beta) * m)
        if 0 < cut < m:  # rows that tie with the first one below the cut are not among the hardest
            cut = int((values > values[order[cut]]).sum())
        hardest, rest = order[:cut], order[cut:]
        stratum = np.full(m, self.strata, dtype=np.int64)
        if len(rest):
            low, high = float(values[rest].min()), float(values[rest].max())
            width = (high - low) / self.strata
            stratum[rest] = (
                0 if width == 0 else np.minimum((values[rest] - low) / width, self.strata - 1).astype(int)
            )
        sizes = np.bincount(stratum, portion.costs, self.strata + 1).astype(np.int64)
        budgets = np.zeros(self.strata + 1, dtype=np.int64)
        left = portion.budget
        filled = [j for j in np.argsort(sizes[:-1], kind="stable").tolist() if sizes[j]]
        for visited, j in enumerate(filled):
            budgets[j] = min(int(sizes[j]), left // (len(filled) - visited))
            left -= int(budgets[j])
        budgets[self.strata] = min(left, int(sizes[self.strata]))
        inside = self._order(ranking, portion, stratum, budgets, rng)
        # The hardest come last of all, the easiest of them first.
        within = np.concatenate([inside[stratum[inside] < self.strata], hardest[::-1]])
        kept = take(within, portion.costs, budgets, stratum)
        where = f" of {portion.name}" if portion.name else ""
        measure = ranking.measure
        extreme = "highest scores" if measure.high else f"lowest {measure.name}"
        texts = [f"dropped: among the {self.beta:.4g} {extreme}{where}"]
        codes = np.zeros(m, dtype=np.int64)
        for j in np.unique(stratum).tolist():
            named = f"score stratum {j + 1} of {self.strata}{where}"
            here = stratum == j
            if j == self.strata:
                texts.append(f"kept: among the {self.beta:.4g} {extreme}{where}, but the budget had room")
                codes[here & kept] = len(texts) - 1
                continue
            texts += [f"dropped: {self.left} {named}", f"kept: {self.taken} {named}"]
            codes[here] = len(texts) - 2
            codes[here & kept] = len(texts) - 1
            if portion.unit == "tokens" and (here & kept).any():
                met = within[here[within]]
                before = met[: int(np.flatnonzero(kept[met])[-1])]
                texts.append(f"dropped: too long for what was left of the budget of {named}")
                codes[before[~kept[before]]] = len(texts) - 1
        return Choice(kept, codes, texts)

    def _order(
        self, ranking: Ranking, portion: Portion, stratum: Ints, budgets: Ints, rng: np.random.Generator
    ) -> Ints:
        """Give all places of the portion; those of a stratum in the order in which it spends its budget."""
        shuffled: Ints = rng.permutation(len(stratum))
        return shuffled


@dataclass(frozen=True)
class Moderate(Selector):
    """Keep the rows around the median of any score (Moderate-DS, ICLR 2023).

    *Published* for the distance to the class mean: the central fraction of the sorted distances. *Ours*: on
    any score, and on a tie in rank distance the row with the lower position.
    """

    name: ClassVar[str] = "moderate"

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        values = ranking.values[portion.rows]
        rank = np.empty(len(values))
        rank[np.argsort(values, kind="stable")] = np.arange(len(values))
        order = np.argsort(np.abs(rank - (len(values) - 1) / 2), kind="stable")
        kept = take(order, portion.costs, np.array([portion.budget]))
        where = f" of {portion.name}" if portion.name else ""
        low, high = (values[kept].min(), values[kept].max()) if kept.any() else (np.nan, np.nan)
        measure = ranking.measure
        low, high = (low, high) if measure.high else (measure.shown(high), measure.shown(low))
        named = "scores" if measure.high else measure.name
        return Choice(
            kept,
            kept.astype(np.int64),
            [
                f"dropped: not among the rows of central rank{where}, {named} {low:.6g} to {high:.6g}",
                f"kept: among the rows of central rank{where}, {named} {low:.6g} to {high:.6g}",
            ],
        )


SELECTORS: dict[str, type[Selector]] = {cls.name: cls for cls in (CCS, GroupQuota, Moderate, TopK)}


def make_selector(selector: str | Selector, parameters: Mapping[str, Any] | None = None) -> Selector:
    """Build a selector from its name and parameters; an object is passed through.

    Raises
    ------
    DataPrunerError
        Unknown name or parameter.
    """
    if isinstance(selector, Selector):
        return selector
    if not isinstance(selector, str):
        raise DataPrunerError(f"a selector is a name or a Selector object, not {selector!r}")
    if selector not in SELECTORS:
        raise DataPrunerError(
            f"there is no selector '{selector}'.{did_you_mean(selector, SELECTORS)} Available: {', '.join(SELECTORS)}"
        )
    from datapruner.parameters import build

    return build(SELECTORS[selector], selector, parameters or {})


# They build on the classes above and put themselves into SELECTORS.
import datapruner.selection.coverage  # noqa: E402
import datapruner.selection.eu_plane  # noqa: E402
import datapruner.selection.message_passing  # noqa: E402
import datapruner.selection.paser  # noqa: E402, F401
