"""Persistent homology of point clouds: which points make and fill holes, and how the holes' sizes move with them.

Everything is in radii: two points at distance d meet at d / 2 (gudhi's alpha values are the squares, ripser's
values twice that). A pair of positive persistence names the simplices that give its birth and its death; their sizes
are differentiable in the points, and the pairing is locally constant (*published*, Gameiro et al. 2016; Carriere et
al. 2021), so gathering them is the whole gradient.

In the plane H1 needs no matrix reduction (*derived*, Alexander duality): with the Delaunay triangles and the outside
as nodes, what merges them in descending order are exactly the edges outside the minimum spanning tree, and the elder
rule there pairs every loop with the triangle that fills it. Two sweeps of union-find are then both H0 and H1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.complexes import (
    Pairs,
    alpha_pairs,
    by_death,
    circumradii,
    half_lengths,
    no_simplices,
    rips_pairs,
    spanning_tree,
)

if TYPE_CHECKING:
    import torch

__all__ = [
    "Complex",
    "Pairs",
    "circumradii",
    "distinct",
    "half_lengths",
    "loops_of",
    "merge_order",
    "pairs",
    "pairs_of_groups",
    "persistence_diagrams",
]

Complex = Literal["alpha", "rips"]


def pairs(points: NDArray[Any], *, complex: Complex = "alpha", loops: bool = True) -> Pairs:
    """Find the persistence pairs of H0 and H1.

    Parameters
    ----------
    points : ndarray, shape (n, d)
        Of repeated points only the first takes part. Points on a line or a plane are treated as what they are. Qhull
        resolves about eight digits of the cloud's extent: loops among points that are closer than that may be missed.
    complex : {"alpha", "rips"}
        The alpha complex needs d of 1 to 3, or ``loops`` false; the Rips complex a small n. Both have the same H0;
        their H1 differ.
    loops : bool
        Whether H1 is looked for.

    Returns
    -------
    Pairs
        In ascending order of death, H0 and H1 each.

    Raises
    ------
    DataPrunerError
        A point is not finite, the dimension has no alpha complex, or a Rips complex would not fit.
    """
    cloud = np.ascontiguousarray(points, dtype=np.float64)
    if cloud.ndim != 2 or cloud.shape[1] == 0:
        raise DataPrunerError(f"Points must have shape (n, d) with d above 0; got {tuple(cloud.shape)}.")
    if not np.isfinite(cloud).all():
        row = int(np.argmin(np.isfinite(cloud).all(axis=1)))
        raise DataPrunerError(f"Point {row} holds NaN or infinity and has no place.")
    if complex not in ("alpha", "rips"):
        raise DataPrunerError(f"The complex must be 'alpha' or 'rips', got {complex!r}.")
    if complex == "alpha" and loops and cloud.shape[1] > 3:
        raise DataPrunerError(
            f"The alpha complex is for 1 to 3 dimensions, and these points have {cloud.shape[1]}: reduce them first, "
            "leave H1 out, or take the Rips complex on a few hundred points."
        )
    first = distinct(cloud)
    cloud = cloud[first]
    if complex == "rips":
        found = rips_pairs(cloud, loops=loops)
    elif cloud.shape[1] <= 3:
        found = alpha_pairs(cloud - cloud.mean(axis=0) if len(cloud) else cloud, loops=loops)
    else:
        found = Pairs(spanning_tree(cloud), no_simplices(2), no_simplices(3))
    return by_death(cloud, found).shifted(first)


def pairs_of_groups(points: NDArray[Any], groups: Sequence[Ints], *, loops: bool = True) -> list[Pairs]:
    """Find the pairs of several clouds among the same points, on all cores.

    Parameters
    ----------
    points : ndarray, shape (n, d), d of 1 to 3
    groups : sequence of ndarray, int64
        Each group's positions.
    loops : bool

    Returns
    -------
    list of Pairs
        One a group, in positions of ``points``; the same whatever the number of cores.
    """

    def one(rows: Ints) -> Pairs:
        return pairs(points[rows], loops=loops).shifted(rows)

    # Delaunay and the sweeps release the interpreter's lock; large groups first, so that the cores end together.
    order = sorted(range(len(groups)), key=lambda number: -len(groups[number]))
    workers = min(len(groups), os.cpu_count() or 1)
    if workers < 2:
        return [one(rows) for rows in groups]
    with ThreadPoolExecutor(workers) as pool:
        found = dict(zip(order, pool.map(one, [groups[number] for number in order]), strict=True))
    return [found[number] for number in range(len(groups))]


def merge_order(n: int, found: Pairs) -> Ints:
    """Order n points along the merge tree of H0 (*ours*): what merges at a small radius stands together.

    Parameters
    ----------
    n : int
    found : Pairs
        Of these points; a point that no merge names (a repeated one) comes at its own place.

    Returns
    -------
    ndarray, int64, shape (n,)
    """
    from datapruner.geometry.planar import walk

    order: Ints = walk(n, found.merges)
    return order


@overload
def persistence_diagrams(
    points: NDArray[Any], *, complex: Complex = "alpha", loops: bool = True
) -> list[Floats]: ...
@overload
def persistence_diagrams(
    points: torch.Tensor, *, complex: Complex = "alpha", loops: bool = True
) -> list[torch.Tensor]: ...
def persistence_diagrams(points: Any, *, complex: Complex = "alpha", loops: bool = True) -> list[Any]:
    """Give birth and death of every H0 and H1 class of positive persistence, in radii.

    Parameters
    ----------
    points : ndarray or torch.Tensor, shape (n, d)
        Of a tensor the diagrams are differentiable.
    complex, loops
        As in :func:`pairs`.

    Returns
    -------
    list of two arrays, shape (m, 2) and (p, 2)
        H0 and H1, ascending by death; columns birth and death. H0's last row never dies: (0, inf). Of tensors,
        tensors of their dtype; of arrays, float64.
    """
    import torch

    tensor = points if isinstance(points, torch.Tensor) else torch.from_numpy(np.asarray(points, np.float64))
    found = pairs(tensor.detach().cpu().numpy(), complex=complex, loops=loops)
    ends = half_lengths(tensor, found.merges)
    essential = tensor.new_tensor([[0.0, float("inf")]] if len(tensor) else []).reshape(-1, 2)
    h0 = torch.cat([torch.stack([torch.zeros_like(ends), ends], dim=1), essential])
    h1 = torch.stack(loops_of(tensor, found), dim=1)
    return [h0, h1] if tensor is points else [h0.numpy(), h1.numpy()]


def loops_of(points: torch.Tensor, found: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
    """Give birth and death of every H1 class; differentiable, shape (p,) each."""
    size = half_lengths if found.deaths.shape[1] == 2 else circumradii
    return half_lengths(points, found.births), size(points, found.deaths)


def distinct(points: NDArray[Any]) -> Ints:
    """Give the first place of every distinct row, ascending; -0.0 equals 0.0."""
    first = (
        np.unique(points + 0.0, axis=0, return_index=True)[1] if len(points) else no_simplices(1).reshape(-1)
    )
    return np.sort(first).astype(np.int64)
