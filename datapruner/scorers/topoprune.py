"""TopoPrune: how far topology moves a row (arXiv 2602.02739), a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.scorers.base import Ranking, Scorer
from datapruner.scorers.grouping import groups_of, rows_of_groups, signals_of
from datapruner.signals import Signals

if TYPE_CHECKING:
    import torch

    from datapruner.geometry.persistence import Pairs
    from datapruner.selection.selectors import Selector

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHOWN = 200
"""Classes of a group and dimension that are kept for a person to look at: those that live longest."""


@dataclass(frozen=True)
class TopoPrune(Scorer):
    """Score rows by how far an optimiser of persistent homology moves them.

    *Published* (abstract of arXiv 2602.02739 and its workshop precursor): one low-dimensional embedding of the whole
    dataset, standardised; on it a differentiable persistence optimiser; importance from each point's corrective
    displacement. *Ours*, for want of published losses, dimensions, steps and combination: everything else. In every
    group, gradient steps on

        L = h0_weight * sum of H0 deaths - h1_weight * sum of squared H1 persistences + anchor * ||X - X0||^2

    of the group's alpha complex, in units of the group's median spanning-tree edge; the displacement is in those
    units too. H0 is needed: with H1 alone a third of the points would not move.

    Parameters
    ----------
    within : str, optional
        ``label``, ``cluster`` or a column's name; by default the dataset's label column where it has one, else
        clusters of the embeddings.
    n_clusters : int, optional
        Of those clusters.
    keep : {"high", "low"}
        The rows that move most, or least.
    steps : int
    step_size : float
        Of a step, in median edges for a gradient of length one.
    optimiser : {"gradient", "adam"}
    h0_weight, h1_weight, anchor : float
        Of the loss's terms; all zero or above.
    density_weight : float
        The displacement is multiplied by (local density) to this power; the density is the inverse square of the
        distance to the tenth nearest neighbour in the group, relative to the group's median.
    """

    within: str | None = None
    n_clusters: int | None = None
    keep: Literal["high", "low"] = "high"
    steps: int = 10
    step_size: float = 0.1
    optimiser: Literal["gradient", "adam"] = "gradient"
    h0_weight: float = 1.0
    h1_weight: float = 1.0
    anchor: float = 0.0
    density_weight: float = 0.0
    name: ClassVar[str] = "topoprune"
    needs: ClassVar[frozenset[str]] = frozenset({"manifold", "label", "embedding"})
    paper: ClassVar[str] = "arXiv 2602.02739"
    provenance: ClassVar[str] = (
        "a reconstruction: manifold, persistence and displacement published; the rest ours"
    )

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if self.steps < 1 or not self.step_size > 0:
            raise DataPrunerError(
                f"topoprune: steps must be 1 or more and step_size above 0, not {self.steps}, {self.step_size}"
            )
        if min(self.h0_weight, self.h1_weight, self.anchor, self.density_weight) < 0:
            raise DataPrunerError("topoprune: weights must not be negative")
        if not self.h0_weight and not self.h1_weight:
            raise DataPrunerError("topoprune: h0_weight and h1_weight are both 0, so nothing would move")

    @property
    def requires(self) -> frozenset[str]:
        """The manifold, and what the groups are made of."""
        return frozenset({"manifold"}) | signals_of(self.within)

    @property
    def promises(self) -> frozenset[str]:
        """Equal rows get equal values; the clustering depends on the order of the rows."""
        return frozenset({"duplicates"})

    def selector(self) -> Selector:
        """Every group keeps its share of the budget."""
        from datapruner.selection.selectors import GroupQuota

        return GroupQuota(projection="proportional")

    def _score(self, signals: Signals) -> Ranking:
        groups = groups_of(signals, self.within, self.n_clusters)
        points = np.asarray(signals["manifold"], dtype=np.float64)
        moved = optimise(
            points,
            groups,
            steps=self.steps,
            step_size=self.step_size,
            optimiser=self.optimiser,
            weights=(self.h0_weight, self.h1_weight, self.anchor),
        )
        score = moved.displacement
        if self.density_weight:
            score = score * _density(points, groups) ** self.density_weight
        return Ranking(
            score if self.keep == "high" else -score,
            groups=groups,
            group_weights=np.bincount(groups).astype(np.float64),
            columns={
                "topology_group": groups,
                "displacement": moved.displacement,
                "h0_death": moved.h0_death,
                "h1_birth": moved.h1_birth,
                "h1_death": moved.h1_death,
                **{f"manifold_{j + 1}": points[:, j] for j in range(points.shape[1])},
            },
            state={"diagrams_before": moved.before, "diagrams_after": moved.after},
        )


@dataclass(frozen=True)
class Moved:
    """What the optimiser did to every point.

    Attributes
    ----------
    displacement : ndarray, float64, shape (n,)
        In the group's median spanning-tree edges.
    h0_death, h1_birth, h1_death : ndarray, float64, shape (n,)
        Before the first step, in units of the points: the longest spanning-tree edge at the point, halved, and the
        most persistent loop whose birth or death it takes part in; 0 where it takes part in none.
    before, after : ndarray, float64, shape (m, 4)
        Group, dimension, birth and death of the longest-lived classes of every group.
    """

    displacement: Floats
    h0_death: Floats
    h1_birth: Floats
    h1_death: Floats
    before: Floats
    after: Floats


def optimise(
    points: Floats,
    groups: Ints,
    *,
    steps: int,
    step_size: float,
    optimiser: Literal["gradient", "adam"] = "gradient",
    weights: tuple[float, float, float] = (1.0, 1.0, 0.0),
) -> Moved:
    """Move the points of every group by gradient steps on its persistence.

    Parameters
    ----------
    points : ndarray, float64, shape (n, d), d of 1 to 3
    groups : ndarray, int64, shape (n,)
    steps, step_size, optimiser
        As in :class:`TopoPrune`.
    weights : tuple
        Of H0 deaths, of squared H1 persistences, of squared distances from the start.
    """
    import torch

    from datapruner.geometry.persistence import distinct, pairs_of_groups

    if points.shape[1] > 3:
        raise DataPrunerError(
            f"topoprune works on a manifold of 1 to 3 dimensions, and this one has {points.shape[1]}; set "
            "--manifold-dimensions 2"
        )
    keyed = np.column_stack([groups, points])
    first = distinct(keyed)
    number = _lookup(keyed, first)
    members = rows_of_groups(groups[first])
    group = groups[first]
    loops = weights[1] > 0
    start = points[first]
    found = pairs_of_groups(start, members, loops=True)
    unit = np.ones(int(groups.max()) + 1)
    for rows, held in zip(members, found, strict=True):
        if len(held.merges):
            unit[group[rows[0]]] = np.median(
                np.linalg.norm(np.diff(start[held.merges], axis=1)[:, 0], axis=1)
            )
    scale = unit[group][:, None]
    begin = torch.from_numpy(start / scale)
    current = begin.clone().requires_grad_()
    stepper: torch.optim.Optimizer = (
        torch.optim.SGD([current], lr=step_size)
        if optimiser == "gradient"
        else torch.optim.Adam([current], lr=step_size)
    )
    for step in range(steps):
        if step:
            found = pairs_of_groups(current.detach().numpy(), members, loops=loops)
        stepper.zero_grad()
        loss(current, begin, found, weights).backward()  # type: ignore[no-untyped-call]
        stepper.step()
        if step == 0:
            before = _diagrams(start, members, group, found)
            touched = _touched(start, found)
    end = current.detach()
    after = pairs_of_groups(end.numpy(), members, loops=True)
    h0_death, h1_birth, h1_death = (held[number] for held in touched)
    return Moved(
        torch.linalg.vector_norm(end - begin, dim=1).numpy()[number],
        h0_death,
        h1_birth,
        h1_death,
        before,
        _diagrams(end.numpy() * scale, members, group, after),
    )


def loss(
    points: torch.Tensor, start: torch.Tensor, found: list[Pairs], weights: tuple[float, float, float]
) -> torch.Tensor:
    """Sum h0 * deaths - h1 * persistence^2 + anchor * distance^2 over all groups; differentiable, a scalar."""
    from datapruner.geometry.persistence import Pairs, half_lengths, loops_of

    h0, h1, anchor = weights
    whole = Pairs(
        *(np.concatenate([getattr(held, name) for held in found]) for name in ("merges", "births", "deaths"))
    )
    total = anchor * (points - start).square().sum()
    total = total + h0 * half_lengths(points, whole.merges).sum()
    if h1 and len(whole.births):
        births, deaths = loops_of(points, whole)
        total = total - h1 * (deaths - births).square().sum()
    return total


def _lookup(keyed: Floats, first: Ints) -> Ints:
    """Give for every row the number of the distinct row that it equals."""
    _, place, inverse = np.unique(keyed + 0.0, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(place), dtype=np.int64)
    rank[np.argsort(place, kind="stable")] = np.arange(len(place))
    assert len(rank) == len(first)
    return rank[inverse.reshape(-1)]


def _classes(points: Floats, held: Pairs) -> tuple[Floats, Floats, Floats]:
    """H0 deaths, H1 births and H1 deaths."""
    import torch

    from datapruner.geometry.persistence import half_lengths, loops_of

    tensor = torch.from_numpy(points)
    births, deaths = loops_of(tensor, held)
    return half_lengths(tensor, held.merges).numpy(), births.numpy(), deaths.numpy()


def _diagrams(points: Floats, members: list[Ints], group: Ints, found: list[Pairs]) -> Floats:
    """Group, dimension, birth and death of the longest-lived classes."""
    out = [np.empty((0, 4))]
    for rows, held in zip(members, found, strict=True):
        ends, births, deaths = _classes(points, held)
        for dimension, (born, died) in enumerate([(np.zeros(len(ends)), ends), (births, deaths)]):
            longest = np.argsort(born - died, kind="stable")[:SHOWN]
            head = np.tile([float(group[rows[0]]), float(dimension)], (len(longest), 1))
            out.append(np.column_stack([head, born[longest], died[longest]]))
    return np.concatenate(out)


def _touched(points: Floats, found: list[Pairs]) -> tuple[Floats, Floats, Floats]:
    """Find the longest merge and the most persistent loop that every point takes part in."""
    h0_death, h1_birth, h1_death = np.zeros((3, len(points)))
    for held in found:
        ends, births, deaths = _classes(points, held)
        np.maximum.at(h0_death, held.merges, ends[:, None])
        order = np.argsort(
            deaths - births, kind="stable"
        )  # of repeated places the last, most persistent, stays
        at = np.concatenate([held.births, held.deaths], axis=1)[order]
        h1_birth[at], h1_death[at] = births[order, None], deaths[order, None]
    return h0_death, h1_birth, h1_death


def _density(points: Floats, groups: Ints, neighbours: int = 10) -> Floats:
    """Inverse square of the distance to the tenth neighbour in the group, 1 at the group's median."""
    from scipy.spatial import cKDTree

    out = np.ones(len(points))
    for rows in rows_of_groups(groups):
        if len(rows) < 3:
            continue
        k = min(neighbours + 1, len(rows))
        apart: Any = cKDTree(points[rows]).query(points[rows], k=k)[0][:, -1]
        apart = np.maximum(apart, 1e-12)
        out[rows] = (np.median(apart) / apart) ** 2
    return out
