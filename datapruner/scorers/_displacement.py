"""The persistence optimiser that TopoPrune scores by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.scorers._topology import arranged

if TYPE_CHECKING:
    import torch

    from datapruner.geometry.persistence import Pairs

SHOWN = 200
"""Classes of a group and dimension that are kept for a person to look at: those that live longest."""


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

    from datapruner.geometry.persistence import pairs_of_groups

    clouds = arranged(points, groups, loops=True)
    start, group, members, found = clouds.points, clouds.group, clouds.members, clouds.found
    number, loops = clouds.number, weights[1] > 0
    unit = np.ones(int(groups.max()) + 1)
    for rows, held in zip(members, found, strict=True):
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
        clouds.places(),
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
