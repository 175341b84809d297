"""Clusters of a graph of neighbours: a diffusion map, and nonnegative matrix factorisation of what it keeps.

PASER (arXiv 2502.12594, *published*) groups recovery data so: sentence embedding, diffusion kernel, NMF spectral
clustering, the number of clusters chosen from the data. Its code holds dense n x n matrices. *ours*: the kernel lives
on a graph of nearest neighbours, its leading eigenpairs come from Lanczos, the factorisation sees their low-rank
product without forming it, and the number of clusters is the most that bootstrap pairs still agree on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.geometry.affinity import affinity
from datapruner.geometry.blocks import (
    Matrix,
    RowView,
    gather,
    iter_blocks,
    normalise_rows,
)
from datapruner.geometry.choose_k import Method, Stability, by_size, check_choice, choose_k, clusters_of
from datapruner.geometry.diffusion_map import DiffusionMap, diffusion_map
from datapruner.geometry.threads import one_thread

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


__all__ = [
    "CANDIDATES",
    "RANK",
    "TIME",
    "DiffusionMap",
    "SpectralClustering",
    "Stability",
    "affinity",
    "choose_k",
    "diffusion_map",
    "spectral_clusters",
    "spectral_nmf",
]

CODE_VERSION = 1
CANDIDATES = (5, 6, 8, 10, 12, 16, 20, 24)
ROWS_A_CLUSTER = 10
"""Distinct rows that a cluster has on average, at least, where their number is chosen."""
SMALL_COMPONENT = 100
"""A component with fewer than one in so many of the rows gets no cluster of its own."""
RANK, TIME = 32, 8.0
"""Eigenpairs and time behind the clusters, of any number up to the rank (*ours*). NMF of only as many eigenpairs as
clusters puts two thirds of a real mixture into one; see benchmarks/diffusion.py."""


@dataclass(frozen=True)
class SpectralClustering:
    """Rows in clusters; no cluster is empty, the largest is the first.

    Attributes
    ----------
    assignment
        int64 (n,), the row's cluster, in [0, n_clusters). Identical rows share it.
    n_clusters
        May be below what was asked for, where there are fewer distinct rows or a cluster has lost all its rows.
    stability
        What the number of clusters was chosen from; None where it was given, or where there was no choice.
    eigenvalues
        float64 (m,), of the diffusion map.
    components
        Of the graph of neighbours.
    """

    assignment: Ints
    n_clusters: int
    stability: Stability | None
    eigenvalues: Floats
    components: int

    @property
    def sizes(self) -> Ints:
        """Rows a cluster, int64 (n_clusters,)."""
        return np.bincount(self.assignment, minlength=self.n_clusters).astype(np.int64, copy=False)


def spectral_clusters(
    embeddings: Matrix,
    neighbours: Ints,
    n_clusters: int | None = None,
    *,
    candidates: Sequence[int] = CANDIDATES,
    method: Method = "nmf",
    seed: int = 0,
) -> SpectralClustering:
    """Cluster rows by a diffusion map of their graph of neighbours.

    Parameters
    ----------
    embeddings
        Shape (n, d); any length of rows, they are scaled to one in blocks.
    neighbours
        int64 (n, k), ``indices`` of :func:`datapruner.geometry.neighbours.neighbour_table`.
    n_clusters
        Default: chosen from ``candidates`` by :func:`choose_k`. Clamped to the number of distinct rows.
    candidates
        Clamped to a tenth of the distinct rows: as many clusters as rows would be perfectly stable, and a mean over a
        row or two says nothing.
    method : {"nmf", "kmeans"}
        NMF is published; k-means is what NMF starts from.
    seed
        Of Lanczos, k-means and the bootstrap. The same data, seed, versions and threads give the same bytes.

    Returns
    -------
    SpectralClustering
        A component of the graph with under one in 100 of the rows (or a quarter of a mean cluster) gets no cluster of
        its own: its rows join the cluster whose mean direction is nearest (*ours*; every component has an eigenvalue
        of 1, and a dozen families of near-duplicates would leave no cluster for the rest).

    Raises
    ------
    DataPrunerError
        A number of clusters is below 1, the table of neighbours is not one of these rows, or a row has no direction.
    """
    from scipy.sparse.csgraph import connected_components

    check_choice(n_clusters, candidates, method)
    weights = affinity(embeddings, neighbours)
    first, number = np.unique(neighbours[:, 0], return_inverse=True)
    count = len(first)
    choices = sorted({min(k, max(1, count // ROWS_A_CLUSTER)) for k in candidates})
    most = max(choices) if n_clusters is None else min(n_clusters, count)
    components, component = connected_components(weights, directed=False)
    rank = max(RANK, most)
    main = _main_rows(component, most, rank)
    graph = weights if len(main) == count else weights[main][:, main]
    walk = diffusion_map(graph, rank, time=TIME, seed=seed)
    stability = None
    if n_clusters is None and len(choices) > 1:
        stability = choose_k(walk, choices, seed=seed, method=method)
    k = most if stability is None else stability.chosen
    labels = np.full(count, -1, dtype=np.int64)
    with one_thread():
        labels[main] = clusters_of(walk, k, method, seed)
    if len(main) < count:
        _join_nearest(embeddings, first, labels)
    assignment = by_size(labels[number.reshape(-1)])
    return SpectralClustering(
        assignment, int(assignment.max()) + 1, stability, walk.eigenvalues, int(components)
    )


def spectral_nmf(walk: DiffusionMap, k: int, *, seed: int = 0, iterations: int = 200) -> Ints:
    """Cluster the rows of a diffusion map by symmetric nonnegative matrix factorisation.

    Minimises ||A - H H^T||_F over H >= 0 of shape (n, k) by multiplicative updates with beta = 1/2 (*published*, Ding
    et al. 2005; Kuang et al. 2012); a row's label is its largest entry. *ours*: A = V diag(lambda^t) V^T of the map's
    eigenpairs is never formed, the start is k-means of its rows scaled to length one (of V diag(lambda^t)), and
    clusters that lose all rows are dropped.

    Parameters
    ----------
    walk
        Of k vectors or more; with k alone small tight groups take the clusters (see `RANK`).
    k
        Clusters.
    seed
        Of k-means.
    iterations
        Updates, at most.

    Returns
    -------
    ndarray, int64, shape (n,)
        In [0, clusters), the largest cluster first, ties by the first row; at most k of them. Rows that are all zero
        in the map, of components beyond its vectors, share one.
    """
    with one_thread():
        return clusters_of(walk, k, "nmf", seed, iterations)


def _indicator(labels: Ints, k: int) -> csr_matrix:
    from scipy.sparse import csr_matrix

    n = len(labels)
    return csr_matrix((np.ones(n), labels, np.arange(n + 1)), (n, k))


def _main_rows(component: NDArray[np.int32], clusters: int, rank: int) -> Ints:
    """Rows of the components that may have clusters of their own, at most one component for each eigenpair."""
    sizes = np.bincount(component)
    order = np.argsort(-sizes, kind="stable")[:rank]
    large = order[sizes[order] * max(SMALL_COMPONENT, 4 * clusters) >= len(component)]
    # Where so many are alike that none is large, the largest have the clusters.
    return np.flatnonzero(np.isin(component, large if large.size else order))


def _join_nearest(embeddings: Matrix, first: Ints, labels: Ints) -> None:
    """Give rows of label -1 the label whose mean direction is nearest, in place."""
    k = int(labels.max()) + 1
    view = RowView(embeddings, first)
    means = np.zeros((k, embeddings.shape[1]))
    for start, stop, block in iter_blocks(view):
        normalise_rows(block, start, matrix=view)
        known = labels[start:stop] >= 0
        means += _indicator(labels[start:stop][known], k).T @ block[known]
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-300)
    rest = np.flatnonzero(labels < 0)
    block = gather(view, rest)
    normalise_rows(block, rest, matrix=view)
    labels[rest] = (block @ means.T).argmax(axis=1)
