"""Alpha and Rips complexes: the simplices that give birth and death to their classes, and these simplices' sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.errors import DataPrunerError

if TYPE_CHECKING:
    import torch


ROUNDING = 1e-12
"""A class whose death exceeds its birth by no more than this share of it is an artefact of rounding."""


PRIM_POINTS = 20_000
"""The spanning tree of more dimensions than three takes quadratic time."""


RIPS_POINTS = 5_000


RIPS_TRIANGLES = 20_000_000
"""About 2 GB in gudhi's simplex tree."""


@dataclass(frozen=True)
class Pairs:
    """The simplices that give birth and death to the classes of positive persistence, as positions of points.

    Attributes
    ----------
    merges : ndarray, int64, shape (m, 2)
        Edges at which two components become one: they end H0 classes, all born at 0. The one class that never ends
        is not listed.
    births : ndarray, int64, shape (p, 2)
        Edges that close a loop.
    deaths : ndarray, int64, shape (p, 3) or (p, 2)
        Triangles that fill it (alpha), or the edges whose length does (Rips).
    """

    merges: Ints
    births: Ints
    deaths: Ints

    def shifted(self, rows: Ints) -> Pairs:
        """Give the same pairs with position i replaced by ``rows[i]``."""
        return Pairs(rows[self.merges], rows[self.births], rows[self.deaths])


def half_lengths(points: torch.Tensor, edges: Ints) -> torch.Tensor:
    """Give half the length of edges (m, 2) between points (n, d); differentiable, shape (m,)."""
    import torch

    ends = points[torch.from_numpy(edges).to(points.device)]
    halves: torch.Tensor = torch.linalg.vector_norm(ends[:, 0] - ends[:, 1], dim=1) / 2
    return halves


def circumradii(points: torch.Tensor, triangles: Ints) -> torch.Tensor:
    """Give the radius of the circle through triangles (m, 3) of points (n, d), d of 2 or 3; differentiable, (m,)."""
    import torch

    corners = points[torch.from_numpy(triangles).to(points.device)]
    a, b, c = corners.unbind(1)
    u, v = b - a, c - a
    if points.shape[1] == 2:
        twice_area = (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).abs()
    elif points.shape[1] == 3:
        twice_area = torch.linalg.vector_norm(torch.linalg.cross(u, v), dim=1)
    else:
        return points.new_zeros(len(triangles))
    sides: torch.Tensor = torch.linalg.vector_norm(torch.stack([u, v, c - b]), dim=2)
    return sides.prod(dim=0) / (2 * twice_area)


def no_simplices(columns: int) -> Ints:
    """Give a list of simplices that is empty."""
    return np.empty((0, columns), dtype=np.int64)


def by_death(cloud: Floats, found: Pairs) -> Pairs:
    """Order by death, then birth, then position: a diagram's order does not depend on how it was found."""
    ends, (births, deaths) = _lengths(cloud, found.merges), _sizes(cloud, found)
    merges = found.merges[np.lexsort((*found.merges.T, ends))]
    order = np.lexsort((*found.births.T, births, deaths))
    return Pairs(merges, found.births[order], found.deaths[order])


def _lengths(cloud: Floats, edges: Ints) -> Floats:
    """Half lengths."""
    difference = cloud[edges[:, 0]] - cloud[edges[:, 1]]
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", difference, difference)) / 2)


def _sizes(cloud: Floats, found: Pairs) -> tuple[Floats, Floats]:
    deaths = found.deaths
    return _lengths(cloud, found.births), (
        _lengths(cloud, deaths) if deaths.shape[1] == 2 else _radii(cloud, deaths)
    )


def _radii(cloud: Floats, simplices: Ints) -> Floats:
    """Radii of the smallest spheres through triangles or tetrahedra; inf where they are flat."""
    corners = cloud[simplices]
    if not len(corners):
        return np.empty(0)
    sides = corners[:, 1:] - corners[:, :1]
    squares = np.einsum("ijk,ijk->ij", sides, sides)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if simplices.shape[1] == 4:
            # The centre c from a vertex solves 2 side . c = |side|^2: Cramer's rule, by cross products.
            crosses = np.cross(sides[:, [1, 2, 0]], sides[:, [2, 0, 1]])
            determinant = np.einsum("ij,ij->i", sides[:, 0], crosses[:, 0])
            centre = np.einsum("ij,ijk->ik", squares, crosses) / (2 * determinant[:, None])
            radius = np.sqrt(np.einsum("ij,ij->i", centre, centre))
        else:
            if cloud.shape[1] == 2:
                area = np.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0])
            else:
                area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
            third = corners[:, 2] - corners[:, 1]
            opposite = np.einsum("ij,ij->i", third, third)
            radius = np.sqrt(squares[:, 0]) * np.sqrt(squares[:, 1]) * np.sqrt(opposite) / (2 * area)
    return np.where(np.isfinite(radius), radius, np.inf)


def alpha_pairs(cloud: Floats, *, loops: bool) -> Pairs:
    """H0 and H1 of the alpha complex of distinct points in 1 to 3 dimensions."""
    from scipy.spatial import Delaunay, QhullError

    n, d = cloud.shape
    if d == 1 or n < 3:
        order = np.argsort(cloud[:, 0], kind="stable") if d == 1 else np.arange(n)
        return Pairs(
            np.column_stack([order[:-1], order[1:]]).astype(np.int64), no_simplices(2), no_simplices(3)
        )
    try:
        if n <= d or _is_flat(cloud):
            raise QhullError
        mesh = Delaunay(cloud)
    except QhullError:
        return _flatter(cloud, loops=loops)
    # Points that Qhull takes for one with a vertex hang on it by an edge of their own. Where it found but one such
    # vertex beside a point at infinity, all lie on a line.
    hanging = mesh.coplanar[:, [0, 2]].astype(np.int64)
    if hanging.size and (hanging >= n).any():
        return _flatter(cloud, loops=loops)
    if d == 2:
        found = _plane(cloud, mesh.simplices, mesh.neighbors, loops=loops)
    else:
        found = _space(cloud, mesh.simplices.astype(np.int64), loops=loops)
    # A loop is filled within the cloud: what dies beyond is the rounding of a sliver.
    real = _radii(cloud, found.deaths) <= np.linalg.norm(np.ptp(cloud, axis=0))
    return Pairs(np.concatenate([found.merges, hanging]), found.births[real], found.deaths[real])


def _is_flat(cloud: Floats) -> bool:
    """Whether the thinnest side is below 1e-9 of the longest: triangles there are rounding."""
    squares = np.linalg.eigvalsh(cloud.T @ cloud)
    if squares[0] > 1e-12 * squares[-1]:
        return False
    sides = np.linalg.svd(cloud, compute_uv=False)
    return bool(sides[-1] <= 1e-9 * sides[0])


def _flatter(cloud: Floats, *, loops: bool) -> Pairs:
    """All points lie on a line or in a plane: one dimension less says the same, to rounding."""
    axes = np.linalg.svd(cloud, full_matrices=False)[2][: cloud.shape[1] - 1]
    return alpha_pairs(cloud @ axes.T, loops=loops)


def _persists(births: Any, deaths: Any) -> Flags:
    with np.errstate(invalid="ignore"):
        return np.asarray(deaths - births > ROUNDING * deaths)


def _plane(
    cloud: Floats, triangles: NDArray[np.int32], neighbours: NDArray[np.int32], *, loops: bool
) -> Pairs:
    """Pairs of a planar Delaunay triangulation, by two sweeps."""
    from datapruner.geometry.planar import prepare, sweep

    radii, edges, cofaces, values = prepare(cloud, triangles, neighbours)
    merged, filler = sweep(len(cloud), edges, cofaces, np.argsort(values, kind="stable"), radii, loops)
    # An edge that is not Gabriel enters with its triangle, later than its length: such pairs last for nothing.
    closing = np.flatnonzero(filler >= 0)
    closing = closing[_persists(values[closing], radii[filler[closing]])]
    return Pairs(
        edges[merged].astype(np.int64),
        edges[closing].astype(np.int64),
        triangles[filler[closing]].astype(np.int64),
    )


def _space(cloud: Floats, cells: Ints, *, loops: bool) -> Pairs:
    """All pairs of a Delaunay triangulation in three dimensions, through gudhi's simplex tree."""
    from gudhi import SimplexTree

    n = len(cloud)
    faces, face_of = _faces(cells, n)
    face_values = _values(cloud, faces, cells, face_of, _radii(cloud, cells), _radii(cloud, faces))
    edges, edge_of = _faces(faces, n)
    values = _values(cloud, edges, faces, edge_of, face_values, _lengths(cloud, edges))
    tree = SimplexTree()
    for vertex in range(n):  # a batch of vertices comes out at infinity in gudhi 3.13
        tree.insert([vertex], 0.0)
    tree.insert_batch(edges.T.astype(np.int32), values)
    if loops:
        tree.insert_batch(faces.T.astype(np.int32), face_values)
        tree.make_filtration_non_decreasing()
    tree.compute_persistence(homology_coeff_field=2, min_persistence=0)
    merges, births, deaths = [], [], []
    for birth, death in tree.persistence_pairs():
        if len(birth) == 1 and len(death) == 2:
            merges.append(death)
        elif (
            len(birth) == 2 and len(death) == 3 and _persists(tree.filtration(birth), tree.filtration(death))
        ):
            births.append(birth)
            deaths.append(death)
    return Pairs(
        *(np.array(held, np.int64).reshape(-1, k) for held, k in ((merges, 2), (births, 2), (deaths, 3)))
    )


def _faces(simplices: Ints, n: int) -> tuple[Ints, Ints]:
    """Distinct faces of simplices (m, k), ascending, shape (f, k - 1); and which of them faces each vertex, (m, k)."""
    ascending = np.sort(simplices, axis=1)
    order = np.argsort(simplices, axis=1, kind="stable")
    k = simplices.shape[1]
    every = np.stack([np.delete(ascending, j, axis=1) for j in range(k)], axis=1)  # (m, k, k - 1)
    faces, number = np.unique(every.reshape(-1, k - 1), axis=0, return_inverse=True)
    facing = np.empty_like(simplices)
    np.put_along_axis(facing, order, number.reshape(-1, k), axis=1)
    return faces.astype(np.int64), facing


def _values(cloud: Floats, faces: Ints, simplices: Ints, face_of: Ints, above: Floats, own: Floats) -> Floats:
    """Alpha values of faces: their own radius where no point lies inside the sphere, else their first coface's."""
    least = np.full(len(faces), np.inf)
    np.minimum.at(least, face_of.reshape(-1), np.repeat(above, simplices.shape[1]))
    centres = _centres(cloud, faces)
    difference = cloud[simplices] - centres[face_of]
    inside = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference)) < own[face_of] * (1 - 1e-14)
    gabriel = np.ones(len(faces), dtype=np.bool_)
    gabriel[face_of[inside]] = False
    return np.where(gabriel, np.minimum(own, least), least)


def _centres(cloud: Floats, simplices: Ints) -> Floats:
    """Centres of the smallest spheres through edges or triangles in space."""
    corners = cloud[simplices]
    if simplices.shape[1] == 2:
        return np.asarray(corners.mean(axis=1))
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(u, v)
    with np.errstate(divide="ignore", invalid="ignore"):
        numerator = np.cross(
            np.einsum("ij,ij->i", u, u)[:, None] * v - np.einsum("ij,ij->i", v, v)[:, None] * u, normal
        )
        centres = corners[:, 0] + numerator / (2 * np.einsum("ij,ij->i", normal, normal)[:, None])
    return np.where(np.isfinite(centres), centres, corners[:, 0])


def spanning_tree(cloud: Floats) -> Ints:
    """Minimum spanning tree of distinct points in any dimension; O(n^2 d) time, O(n) memory beside the points."""
    n = len(cloud)
    if n > PRIM_POINTS:
        raise DataPrunerError(
            f"A spanning tree of {n:,} points in {cloud.shape[1]} dimensions takes {n * n:,} distances, and "
            f"{PRIM_POINTS:,} points are the limit; reduce them to 3 dimensions or fewer, or take smaller groups."
        )
    nearest, link = np.full(n, np.inf), np.zeros(n, dtype=np.int64)
    out = np.ones(n, dtype=np.bool_)
    edges, here = np.empty((max(n - 1, 0), 2), dtype=np.int64), 0
    for step in range(n - 1):
        out[here] = False
        difference = cloud - cloud[here]
        squares = np.einsum("ij,ij->i", difference, difference)
        closer = out & (squares < nearest)
        nearest[closer], link[closer] = squares[closer], here
        here = int(np.argmin(np.where(out, nearest, np.inf)))
        edges[step] = link[here], here
    return edges


def rips_pairs(cloud: Floats, *, loops: bool) -> Pairs:
    """H0 and H1 of the Rips complex, through gudhi, after collapsing edges."""
    from gudhi import RipsComplex
    from scipy.spatial.distance import pdist, squareform

    n = len(cloud)
    merges = spanning_tree(cloud)
    if not loops or n < 4:
        return Pairs(merges, no_simplices(2), no_simplices(2))
    if n > RIPS_POINTS:
        raise DataPrunerError(
            f"A Rips complex of {n:,} points starts from {n * (n - 1) // 2:,} edges, and {RIPS_POINTS:,} points are "
            "the limit; take the alpha complex, or smaller groups."
        )
    lengths = pdist(cloud) / 2
    # Beyond the enclosing radius the complex is a cone: no loop is left.
    square = squareform(lengths)
    tree = RipsComplex(
        distance_matrix=square, max_edge_length=float(square.max(axis=1).min())
    ).create_simplex_tree(max_dimension=1)
    tree.collapse_edges()
    links = _graph(tree, n)
    triangles = int((links @ links).multiply(links).sum()) // 6
    if triangles > RIPS_TRIANGLES:
        raise DataPrunerError(
            f"A Rips complex of {n:,} points has {triangles:,} triangles after collapsing its edges, and "
            f"{RIPS_TRIANGLES:,} are the limit; take the alpha complex, or smaller groups."
        )
    tree.expansion(2)
    tree.compute_persistence(homology_coeff_field=2, min_persistence=0)
    diagram = tree.persistence_intervals_in_dimension(1).reshape(-1, 2)
    diagram = diagram[_persists(diagram[:, 0], diagram[:, 1])]
    # Collapsing moves an edge's value, but only to the length of another edge: which one, the length itself says.
    order = np.argsort(lengths, kind="stable")
    first, second = np.triu_indices(n, 1)
    place = order[np.searchsorted(lengths[order], diagram)]
    return Pairs(
        merges, *(np.column_stack([first[place[:, k]], second[place[:, k]]]).astype(np.int64) for k in (0, 1))
    )


def _graph(tree: Any, n: int) -> Any:
    """Give the edges of a simplex tree as a symmetric 0/1 matrix."""
    from scipy.sparse import coo_array

    ends = np.array([simplex for simplex, _ in tree.get_skeleton(1) if len(simplex) == 2], dtype=np.int64)
    ends = ends.reshape(-1, 2)
    rows, columns = np.concatenate([ends, ends[:, ::-1]]).T
    return coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, n)).tocsr()
