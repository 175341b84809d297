"""TopoPrune: how far topology moves a row (arXiv 2602.02739), a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.scorers.base import Ranking, Scorer
from datapruner.scorers.grouping import groups_of, rows_of_groups, signals_of
from datapruner.selection.coverage import WALK
from datapruner.signals import Signals

if TYPE_CHECKING:
    import torch

    from datapruner.geometry.persistence import Pairs
    from datapruner.selection.selectors import Selector


GROUPS_AT_ONCE = 16
"""A walk is followed for so many groups together: three arrays of 128 bytes a row."""
WORK = 10**12
"""Products that a walk may take; half an hour or more."""
SHOWN = 200
"""Classes of a group and dimension that are kept for a person to look at: those that live longest."""


@dataclass(frozen=True)
class TopoPrune(Scorer):
    """Score rows by the shape of the whole dataset and of their own group.

    *Published* (abstract of arXiv 2602.02739 and its workshop precursor): a topology-aware approximation of the
    dataset's manifold gives one low-dimensional embedding, standardised; on it a differentiable persistence optimiser;
    importance from each point's corrective displacement. *Ours*, for want of published losses, dimensions, steps and
    combination: everything else, which makes this a reconstruction.

    ``value="displacement"`` is that: in every group, gradient steps on

        L = h0_weight * sum of H0 deaths - h1_weight * sum of squared H1 persistences + anchor * ||X - X0||^2

    of the group's alpha complex, in units of the group's median spanning-tree edge; the displacement is in those
    units too. ``value="entanglement"``, the default because it did better on held-out accuracy and between seeds, takes
    the manifold's own graph of neighbours: the share of a short random walk from the row that ends in another group.
    Near 0 inside a group, 1 where a row lies among others' rows. Either way the selector walks along the group's
    merge tree (H0) on the manifold, so that what it keeps covers every part of the group.

    Parameters
    ----------
    value : {"entanglement", "displacement"}
    within : str, optional
        ``label``, ``cluster`` or a column's name; by default the dataset's label column where it has one, else
        clusters of the embeddings.
    n_clusters : int, optional
        Of those clusters.
    keep : {"high", "low"}
        Which end of the value counts as hard.
    walk : int
        Steps of the random walk after the first, each of which stays where it is half the time.
    steps : int
        Of the optimiser.
    step_size : float
        Of a step, in median edges for a gradient of length one.
    optimiser : {"gradient", "adam"}
    h0_weight, h1_weight, anchor : float
        Of the loss's terms; all zero or above.
    density_weight : float
        The value is multiplied by (local density) to this power; the density is the inverse square of the distance to
        the tenth nearest neighbour in the group, relative to the group's median.
    """

    value: Literal["entanglement", "displacement"] = "entanglement"
    within: str | None = None
    n_clusters: int | None = None
    keep: Literal["high", "low"] = "high"
    walk: int = 2
    steps: int = 10
    step_size: float = 0.1
    optimiser: Literal["gradient", "adam"] = "gradient"
    h0_weight: float = 1.0
    h1_weight: float = 1.0
    anchor: float = 0.0
    density_weight: float = 0.0
    name: ClassVar[str] = "topoprune"
    needs: ClassVar[frozenset[str]] = frozenset({"manifold", "neighbours", "label", "embedding"})
    paper: ClassVar[str] = "arXiv 2602.02739"
    provenance: ClassVar[str] = (
        "a reconstruction: manifold, persistence optimiser and displacement published, all else ours; the default "
        "value, entanglement, ours"
    )

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if self.steps < 1 or self.walk < 0 or not self.step_size > 0:
            raise DataPrunerError(
                "topoprune: steps must be 1 or more, walk 0 or more and step_size above 0, not "
                f"{self.steps}, {self.walk}, {self.step_size}"
            )
        if min(self.h0_weight, self.h1_weight, self.anchor, self.density_weight) < 0:
            raise DataPrunerError("topoprune: weights must not be negative")
        if not self.h0_weight and not self.h1_weight:
            raise DataPrunerError("topoprune: h0_weight and h1_weight are both 0, so nothing would move")

    @property
    def requires(self) -> frozenset[str]:
        """The manifold and its graph, and what the groups are made of."""
        return frozenset({"manifold", "neighbours"}) | signals_of(self.within)

    @property
    def promises(self) -> frozenset[str]:
        """Equal rows get equal values; the clustering depends on the order of the rows."""
        return frozenset({"duplicates"})

    def selector(self) -> Selector:
        """Strata of the value, and inside each a walk along the merge trees."""
        from datapruner.selection.coverage import Coverage

        return Coverage()

    def _score(self, signals: Signals) -> Ranking:
        groups = groups_of(signals, self.within, self.n_clusters)
        points = np.asarray(signals["manifold"], dtype=np.float64)
        if not np.isfinite(points).all():
            row = signals.source_row(int(np.argmin(np.isfinite(points).all(axis=1))))
            raise DataPrunerError(f"the signal 'manifold' is not finite in row {row}")
        moved = optimise(
            points,
            groups,
            steps=self.steps,
            step_size=self.step_size,
            optimiser=self.optimiser,
            weights=(self.h0_weight, self.h1_weight, self.anchor),
        )
        mixed = entanglement(signals["neighbours"], groups, self.walk)
        score = mixed if self.value == "entanglement" else moved.displacement
        if self.density_weight:
            score = score * _density(points, groups) ** self.density_weight
        return Ranking(
            score if self.keep == "high" else -score,
            groups=groups,
            group_weights=np.bincount(groups).astype(np.float64),
            columns={
                "topology_group": groups,
                "entanglement": mixed,
                "displacement": moved.displacement,
                "h0_death": moved.h0_death,
                "h1_birth": moved.h1_birth,
                "h1_death": moved.h1_death,
                WALK: moved.place,
                **{f"manifold_{j + 1}": points[:, j] for j in range(points.shape[1])},
            },
            state={"diagrams_before": moved.before, "diagrams_after": moved.after},
        )


def entanglement(neighbours: Ints, groups: Ints, walk: int) -> Floats:
    """Give the share of a random walk on the graph of neighbours that ends outside a row's group (*ours*).

    The first step goes to one of the row's neighbours, each later one stays or goes on with equal chances.

    Parameters
    ----------
    neighbours : ndarray, int64, shape (n, k)
        As the signal has it: the first row equal to the row, then the nearest others.
    groups : ndarray, int64, shape (n,)
        Where rows are equal and their groups are not, the point belongs to each by its share.
    walk : int
        Steps after the first.

    Returns
    -------
    ndarray, float64, shape (n,), in [0, 1]
        0 where a row has no neighbours.

    Raises
    ------
    DataPrunerError
        There are too many groups for so many rows.
    """
    from scipy.sparse import csr_array

    nodes, number = np.unique(neighbours[:, 0], return_inverse=True)
    others = number[neighbours[nodes, 1:]]
    u, k = others.shape
    if not k:
        return np.zeros(len(groups))
    step = csr_array((np.full(u * k, 1 / k), others.reshape(-1), np.arange(0, u * k + 1, k)), shape=(u, u))
    copies = np.bincount(number)
    out = np.empty(len(groups))
    present = np.unique(groups)
    if len(present) * u * k * (walk + 1) > WORK:
        raise DataPrunerError(
            f"topoprune: {len(present):,} groups of {len(groups):,} rows are too many to follow a walk for each; name "
            "a column with fewer values, or within=cluster"
        )
    for start in range(0, len(present), GROUPS_AT_ONCE):
        chunk = present[start : start + GROUPS_AT_ONCE]
        rows = np.flatnonzero(np.isin(groups, chunk))
        column = np.searchsorted(chunk, groups[rows])
        share = np.zeros((u, len(chunk)))
        np.add.at(share, (number[rows], column), 1 / copies[number[rows]])
        share = step @ share
        for _ in range(walk):
            share = (share + step @ share) / 2
        out[rows] = 1 - share[number[rows], column]
    return np.clip(np.round(out, 12), 0, 1)  # the sums' own rounding must not rank rows


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
    place : ndarray, int64, shape (n,)
        Along the groups' merge trees, one group after the other; equal points have one place.
    before, after : ndarray, float64, shape (m, 4)
        Group, dimension, birth and death of the longest-lived classes of every group.
    """

    displacement: Floats
    h0_death: Floats
    h1_birth: Floats
    h1_death: Floats
    place: Ints
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

    from datapruner.geometry.persistence import Pairs, distinct, merge_order, pairs_of_groups

    if points.shape[1] > 3:
        raise DataPrunerError(
            f"topoprune works on a manifold of 1 to 3 dimensions, and this one has {points.shape[1]}; set "
            "--manifold-dimensions=2"
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
    place, walked = np.empty(len(first), dtype=np.int64), 0
    for rows, held in zip(members, found, strict=True):
        own = Pairs(np.searchsorted(rows, held.merges), held.births, held.deaths)
        place[rows[merge_order(len(rows), own)]] = np.arange(walked, walked + len(rows))
        walked += len(rows)
        if len(held.merges):
            unit[group[rows[0]]] = np.median(
                np.linalg.norm(np.diff(start[held.merges], axis=1)[:, 0], axis=1)
            )
    scale = unit[group][:, None]
    begin = torch.from_numpy(start / scale)
    current = begin.clone().requires_grad_()
    # SGD would load torch's compiler, for seconds, to do the same.
    adam = None if optimiser == "gradient" else torch.optim.Adam([current], lr=step_size)
    for step in range(steps):
        if step:
            found = pairs_of_groups(current.detach().numpy(), members, loops=loops)
        (gradient,) = torch.autograd.grad(loss(current, begin, found, weights), [current])
        if adam is None:
            with torch.no_grad():
                current -= step_size * gradient
        else:
            current.grad = gradient
            adam.step()
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
        place[number],
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
