"""What scorers and cleaning steps of a run make of its vectors, made once: a clustering, a graph of neighbours."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.geometry.clustering import Clustering
    from datapruner.geometry.neighbours import Neighbours

T = TypeVar("T")

CLUSTERINGS, GRAPHS = 8, 2
"""So many are held, those that were asked for last: a graph of a million rows takes as much as their vectors may."""
APART = 1e-4
"""Squared distance, of rows of length one, that is far beyond the rounding by which neighbours are first proposed."""


class Shared:
    """Clusterings and graphs by the vectors, which are told by the object, and by all arguments.

    What it gives is the same to the bit as what making it anew would give, and closed: nobody changes what others
    read. Vectors that nobody else holds any more
    take theirs along.
    """

    def __init__(self) -> None:
        self._clusterings: OrderedDict[tuple[Any, ...], Clustering] = OrderedDict()
        self._graphs: OrderedDict[tuple[Any, ...], Neighbours] = OrderedDict()
        self._known: set[int] = set()

    def clusters(
        self, matrix: Matrix, k: int | None = None, *, seed: int, iterations: int = 20
    ) -> Clustering:
        """Cluster rows by direction; see :func:`datapruner.geometry.clustering.spherical_kmeans`."""
        from datapruner.geometry.clustering import default_k, spherical_kmeans

        number = default_k(matrix.shape[0]) if k is None else k
        # A number that was asked for is refused where there are fewer distinct rows; the default one is not.
        kind = (number, k is not None, seed, iterations)

        def made() -> Clustering:
            found = spherical_kmeans(matrix, k, seed=seed, iterations=iterations)
            _close(found.centroids, found.assignment, found.distance)
            return found

        return self._held(self._clusterings, matrix, kind, made, CLUSTERINGS)

    def graph(self, matrix: Matrix, k: int, *, seed: int) -> Neighbours:
        """Find the k nearest other rows of every row; see :func:`datapruner.geometry.neighbours.knn_graph`.

        A graph of more neighbours serves too, where it is exact and its further neighbours are so far away that
        looking for k alone would have found the same.
        """
        from datapruner.geometry.neighbours import EXACT_ROWS, Neighbours, knn_graph

        exact = matrix.shape[0] <= EXACT_ROWS
        kind = (k, None if exact else seed)

        def graph() -> Neighbours:
            found = next(
                (
                    Neighbours(
                        np.ascontiguousarray(wider.indices[:, :k]),
                        np.ascontiguousarray(wider.distances[:, :k]),
                    )
                    for (of, most, *_), wider in self._graphs.items()
                    if exact and of == id(matrix) and most > k and _cut_is_clear(wider, k)
                ),
                None,
            )
            found = found or knn_graph(matrix, k, seed=seed)
            _close(*found)
            return found

        return self._held(self._graphs, matrix, kind, graph)

    def add_table(self, matrix: Matrix, table: Neighbours, *, seed: int) -> None:
        """Take over the graph in a table of neighbours, where all rows are distinct."""
        from datapruner.geometry.neighbours import EXACT_ROWS, Neighbours

        n, k = table.indices.shape
        if k > 1 and np.array_equal(table.indices[:, 0], np.arange(n)):
            graph = Neighbours(
                np.ascontiguousarray(table.indices[:, 1:]), np.ascontiguousarray(table.distances[:, 1:])
            )
            _close(*graph)
            self._held(self._graphs, matrix, (k - 1, None if n <= EXACT_ROWS else seed), lambda: graph)

    def _held(
        self,
        of: OrderedDict[tuple[Any, ...], T],
        matrix: Matrix,
        kind: tuple[Any, ...],
        make: Callable[[], T],
        most: int = GRAPHS,
    ) -> T:
        key = (id(matrix), *kind)
        if key not in of:
            found = make()
            if id(matrix) not in self._known:
                self._known.add(id(matrix))
                finalize(matrix, self._forget, id(matrix)).atexit = False
            of[key] = found
            while len(of) > most:
                of.popitem(last=False)
        of.move_to_end(key)
        return of[key]

    def _forget(self, matrix: int) -> None:
        self._known.discard(matrix)
        for of in (self._clusterings, self._graphs):
            for key in [key for key in of if key[0] == matrix]:
                del of[key]


def _close(*arrays: NDArray[Any]) -> None:
    for array in arrays:
        array.flags.writeable = False


def _cut_is_clear(found: Neighbours, k: int) -> bool:
    """Whether every row's last neighbour is farther away than its k-th, beyond all rounding."""
    squares = np.square(found.distances[:, [k - 1, -1]], dtype=np.float64)
    return bool((squares[:, 1] - squares[:, 0] > APART).all())
