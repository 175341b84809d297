"""The topology that TopoPrune scores by: a persistence optimiser, and walks between groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.scorers._grouping import rows_of_groups

if TYPE_CHECKING:
    import torch

    from datapruner.geometry.persistence import Pairs

GROUPS_AT_ONCE = 16
"""A walk is followed for so many groups together: three arrays of 128 bytes a row."""
WORK = 10**12
"""Products that a walk may take; half an hour or more."""
SHOWN = 200
"""Classes of a group and dimension that are kept for a person to look at: those that live longest."""


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
        As in :class:`~datapruner.scorers.topoprune.TopoPrune`.
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


def density(points: Floats, groups: Ints, neighbours: int = 10) -> Floats:
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
