"""A diffusion map: the leading eigenpairs of a random walk on a graph of neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.threads import one_thread

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


DENSE_ROWS = 512
"""Up to here a component's eigenpairs are dense LAPACK's."""


@dataclass(frozen=True)
class DiffusionMap:
    """Leading eigenpairs of a random walk on a graph.

    Attributes
    ----------
    eigenvalues
        float64 (m,), descending, in [-1, 1]; 1 as often as the graph has components (up to m).
    vectors
        float64 (n, m), orthonormal: of the symmetric operator D^-1/2 W D^-1/2. Each one's largest entry is positive.
    stationary
        float64 (n,), the walk's stationary distribution: the degrees D, scaled to sum to one.
    time
        Steps of the walk.
    """

    eigenvalues: Floats
    vectors: Floats
    stationary: Floats
    time: float

    @property
    def coordinates(self) -> Floats:
        """Coordinates lambda^t D^-1/2 v, float64 (n, m), whose distances are diffusion distances (*published*)."""
        # A negative eigenvalue has powers of a whole time only; it counts as 0 otherwise.
        whole = float(self.time).is_integer()
        base = self.eigenvalues if whole else np.maximum(self.eigenvalues, 0)
        coordinates: Floats = self.vectors * base**self.time / np.sqrt(self.stationary)[:, None]
        return coordinates

    @property
    def placed(self) -> Floats:
        """Rows of V diag(lambda^t), float64 (n, m), where a negative eigenvalue counts as 0."""
        placed: Floats = self.vectors * np.maximum(self.eigenvalues, 0) ** self.time
        return placed

    def subset(self, rows: Ints) -> DiffusionMap:
        """Keep some rows; their vectors are no longer orthonormal."""
        return DiffusionMap(self.eigenvalues, self.vectors[rows], self.stationary[rows], self.time)


def diffusion_map(weights: csr_matrix, dimensions: int, *, time: float = 1, seed: int = 0) -> DiffusionMap:
    """Compute the leading eigenpairs of the random walk on a weighted graph.

    The weights are first divided by both rows' degrees, so that the density of the rows drops out (alpha = 1), then
    W becomes D^-1/2 W D^-1/2 (*published*, Coifman & Lafon 2006). Components are solved one by one (*ours*): each has
    the eigenvalue 1, which Lanczos would find once. Where there are more components than ``dimensions``, the largest
    have the vectors, and the rows of the others are zero.

    Parameters
    ----------
    weights
        Sparse, float64 (n, n), symmetric, none negative, with a positive sum in every row.
    dimensions
        Eigenpairs, clamped to n.
    time
        Steps of the walk, in the coordinates.
    seed
        Of Lanczos' starting vector.

    Returns
    -------
    DiffusionMap

    Raises
    ------
    DataPrunerError
        A parameter has no meaning, or a row has no weight.
    """
    from scipy.sparse.csgraph import connected_components

    if dimensions < 1 or time < 0:
        raise DataPrunerError(
            f"A diffusion map has 1 dimension or more and a time of 0 or more, not {dimensions}, {time}."
        )
    operator, stationary = _random_walk(weights)
    n = len(stationary)
    wanted = min(dimensions, n)
    count, component = connected_components(operator, directed=False)
    members = np.split(np.argsort(component, kind="stable"), np.cumsum(np.bincount(component))[:-1])
    members.sort(key=lambda rows: (-len(rows), rows[0]))
    vectors = np.zeros((n, wanted))
    eigenvalues = np.ones(wanted)
    for place, rows in enumerate(members[:wanted]):
        root = np.sqrt(stationary[rows])
        vectors[rows, place] = root / np.linalg.norm(root)
    if count < wanted:
        pairs: list[tuple[float, Ints, Floats]] = []
        for place, rows in enumerate(members):
            part = operator if count == 1 else operator[rows][:, rows]
            values, columns = _component_pairs(part, vectors[rows, place], wanted - count, seed)
            pairs += [(value, rows, column) for value, column in zip(values.tolist(), columns.T, strict=True)]
        pairs.sort(key=lambda pair: -pair[0])  # stable: ties stay in the order of their components
        for place, (value, rows, column) in enumerate(pairs[: wanted - count], start=count):
            eigenvalues[place] = value
            vectors[rows, place] = column
    return DiffusionMap(eigenvalues, vectors, stationary, float(time))


def _random_walk(weights: csr_matrix) -> tuple[csr_matrix, Floats]:
    """Return D^-1/2 W D^-1/2 after dividing by the density, and the stationary distribution."""
    from scipy.sparse import csr_matrix

    graph = csr_matrix(weights, dtype=np.float64, copy=True)
    row = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    for power in (1.0, 0.5):
        degree = np.asarray(graph.sum(axis=1)).reshape(-1)
        if not (degree > 0).all():
            raise DataPrunerError(
                f"Row {int((degree <= 0).argmax())} of the graph has no weight; give it one with itself."
            )
        scale = degree**-power
        graph.data *= scale[row]
        graph.data *= scale[graph.indices]
    return graph, degree / degree.sum()


def _component_pairs(operator: csr_matrix, top: Floats, wanted: int, seed: int) -> tuple[Floats, Floats]:
    """Leading eigenpairs of one component below the known first, descending, signs fixed."""
    n = len(top)
    wanted = min(wanted, n - 1)
    with one_thread():
        if n <= DENSE_ROWS or 3 * wanted >= n:
            # The known pair moves from 1 to -2, below all others.
            values, vectors = np.linalg.eigh(operator.toarray() - 3 * np.outer(top, top))
        else:
            values, vectors = _lanczos(operator, top, wanted, np.random.default_rng(seed))
    order = np.argsort(-values, kind="stable")[:wanted]
    vectors = vectors[:, order]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(wanted)]
    return np.minimum(values[order], 1.0), vectors * np.where(largest < 0, -1.0, 1.0)


def _lanczos(
    operator: csr_matrix, top: Floats, wanted: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Leading eigenpairs below the known first, in no order.

    Lanczos finds an eigenvalue that repeats once. What was found is therefore moved below all others and the largest
    that is left is looked for, until it is none that was missed.
    """
    values, known = np.empty(0), top[:, None]
    while True:
        found, vectors = _largest(operator, known, wanted, 1e-8, rng)
        values, known = np.concatenate([values, found]), np.column_stack([known, vectors])
        if len(values) + 1 >= len(top):
            return values, known[:, 1:]
        # The check needs no digits: the largest value is seen long before its vector.
        left = _largest(operator, known, 1, 1e-4, rng)[0][0]
        if left <= np.partition(values, -wanted)[-wanted] + 1e-6:
            return values, known[:, 1:]


def _largest(
    operator: csr_matrix, known: Floats, count: int, tolerance: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Leading eigenpairs but for the known, which move from [-1, 1] to below -1."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    n = operator.shape[0]
    deflated = LinearOperator(
        (n, n), matvec=lambda x: operator @ x - 3 * (known @ (known.T @ x)), dtype=np.float64
    )
    values, vectors = eigsh(deflated, min(count, n - 2), which="LA", v0=rng.standard_normal(n), tol=tolerance)
    return values, vectors
