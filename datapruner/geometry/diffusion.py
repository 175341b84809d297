"""Clusters of a graph of neighbours: a diffusion map, and nonnegative matrix factorisation of what it keeps.

PASER (arXiv 2502.12594, *published*) groups recovery data so: sentence embedding, diffusion kernel, NMF spectral
clustering, the number of clusters chosen from the data. Its code holds dense n x n matrices. *ours*: the kernel lives
on a graph of nearest neighbours, its leading eigenpairs come from Lanczos, the factorisation sees their low-rank
product without forming it, and the number of clusters is the most that bootstrap pairs still agree on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import (
    BLOCK_BYTES,
    Matrix,
    RowView,
    gather,
    iter_blocks,
    normalise_rows,
    require_matrix,
)
from datapruner.geometry.factorisation import kmeans, one_thread, symmetric_nmf

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Method = Literal["nmf", "kmeans"]

CODE_VERSION = 1
CANDIDATES = (5, 6, 8, 10, 12, 16, 20, 24)
SCALE_NEIGHBOUR = 7
"""Zelnik-Manor & Perona's."""
NEGLIGIBLE = 1e-9
"""A weight below this, beside a row's own weight of 1, is no edge: it would only make eigenvalues tie at 1."""
ROWS_A_CLUSTER = 10
"""Distinct rows that a cluster has on average, at least, where their number is chosen."""
SMALL_COMPONENT = 100
"""A component with fewer than one in so many of the rows gets no cluster of its own."""
DENSE_ROWS = 512
"""Up to here a component's eigenpairs are dense LAPACK's."""
RANK, TIME = 32, 8.0
"""Eigenpairs and time behind the clusters, of any number up to the rank (*ours*). NMF of only as many eigenpairs as
clusters puts two thirds of a real mixture into one; see benchmarks/diffusion.py."""


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


class Stability(NamedTuple):
    """How well two clusterings of overlapping subsamples agree, for several numbers of clusters.

    Attributes
    ----------
    k : ndarray, int64, shape (c,)
        Candidates, ascending.
    mean, error : ndarray, float64, shape (c,)
        Of the adjusted Rand index over the repeats: 1 is the same clustering, 0 is chance; and the mean's standard
        error. (Times the root of the repeats, the error is the deviation.)
    chosen : int
    """

    k: NDArray[np.int64]
    mean: Floats
    error: Floats
    chosen: int

    def as_array(self) -> Floats:
        """Columns k, mean, error; float64 (c, 3)."""
        return np.column_stack([self.k, self.mean, self.error]).astype(np.float64)


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

    assignment: NDArray[np.int64]
    n_clusters: int
    stability: Stability | None
    eigenvalues: Floats
    components: int

    @property
    def sizes(self) -> NDArray[np.int64]:
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

    _check_choice(n_clusters, candidates, method)
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
        labels[main] = _clusters(walk, k, method, seed)
    if len(main) < count:
        _join_nearest(embeddings, first, labels)
    assignment = _by_size(labels[number.reshape(-1)])
    return SpectralClustering(
        assignment, int(assignment.max()) + 1, stability, walk.eigenvalues, int(components)
    )


def affinity(embeddings: Matrix, neighbours: Ints, *, scale_neighbour: int = SCALE_NEIGHBOUR) -> csr_matrix:
    """Weigh the edges of a graph of neighbours by a self-tuned Gaussian.

    w_ij = exp(-d_ij^2 / (s_i s_j)) where either row is a neighbour of the other; s_i is the distance to the row's 7th
    neighbour (*published*, Zelnik-Manor & Perona 2004; the neighbours only are *ours*). A row's weight with itself is
    1, as in a full Gaussian kernel, so that no row is without weight.

    Parameters
    ----------
    embeddings
        Shape (n, d), scaled to length one here.
    neighbours
        int64 (n, k): the first row equal to the row, then others, nearest first, all of them first rows.
    scale_neighbour
        The last column where there are fewer.

    Returns
    -------
    csr_matrix
        float64 (u, u) over the u distinct rows, in the order of their first places; symmetric. Weights below 1e-9 are
        left out.

    Raises
    ------
    DataPrunerError
        The table is not one of these rows, or a row has no direction.
    """
    from scipy.sparse import csr_matrix

    n, _ = require_matrix(embeddings)
    if scale_neighbour < 1:
        raise DataPrunerError(f"scale_neighbour must be 1 or more, got {scale_neighbour}.")
    first, table = _distinct_table(neighbours, n)
    count, width = table.shape
    distances = _distances(embeddings, first, table)
    scale = _scales(distances, scale_neighbour)
    weights = np.exp(-(distances**2) / (scale[:, None] * scale[table]))
    weights[weights < NEGLIGIBLE] = 0
    graph = csr_matrix(
        (weights.ravel(), table.ravel(), np.arange(0, count * width + 1, width)), (count, count)
    )
    graph = graph.maximum(graph.T).tocsr()
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


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


def spectral_nmf(walk: DiffusionMap, k: int, *, seed: int = 0, iterations: int = 200) -> NDArray[np.int64]:
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
        return _clusters(walk, k, "nmf", seed, iterations)


def choose_k(
    walk: DiffusionMap,
    candidates: Sequence[int],
    *,
    repeats: int = 10,
    seed: int = 0,
    max_rows: int = 2_500,
    method: Method = "nmf",
) -> Stability:
    """Choose the number of clusters by bootstrap stability.

    Two subsamples of 80 % of the rows are clustered independently of one another, and the adjusted Rand index is taken
    over the rows in both. The choice is the largest k whose mean lies within one standard error (that of the best) of
    the best mean (*ours*: the error of NMF has no minimum inside a range, and real mixtures have no gap in their
    eigenvalues).

    Parameters
    ----------
    walk
        Of at least max(candidates) vectors, better more. The map itself is not drawn again for a subsample, so that
        what varies is the clustering and not the graph.
    candidates
        Numbers of clusters, at least one.
    repeats
        Pairs, 2 or more.
    seed
        Of the subsamples and of k-means.
    max_rows
        A larger map is replaced by a random choice of so many of its rows.
    method
        See :func:`spectral_clusters`.

    Returns
    -------
    Stability

    Raises
    ------
    DataPrunerError
        A parameter has no meaning.
    """
    from sklearn.metrics import adjusted_rand_score

    _check_choice(None, candidates, method)
    if repeats < 2:
        raise DataPrunerError(f"Stability needs 2 repeats or more, not {repeats}.")
    rng = np.random.default_rng(seed)
    n = len(walk.vectors)
    pool = np.sort(rng.choice(n, min(n, max_rows), replace=False))
    size = max(1, round(0.8 * len(pool)))
    ks = np.unique(np.asarray(candidates, dtype=np.int64))
    scores = np.empty((len(ks), repeats))
    with one_thread():
        for repeat in range(repeats):
            pair = [np.sort(rng.choice(pool, size, replace=False)) for _ in range(2)]
            left, right = np.isin(pair[0], pair[1]), np.isin(pair[1], pair[0])
            found = [
                _for_comparison(walk.subset(rows), ks.tolist(), method, seed + 2 * repeat + half)
                for half, rows in enumerate(pair)
            ]
            for place, (one, other) in enumerate(zip(*found, strict=True)):
                scores[place, repeat] = adjusted_rand_score(one[left], other[right])
    mean = scores.mean(axis=1)
    error = scores.std(axis=1, ddof=1) / np.sqrt(repeats)
    best = int(mean.argmax())
    chosen = int(ks[mean >= mean[best] - error[best] - 1e-12].max())
    return Stability(ks, mean, error, chosen)


def _check_choice(n_clusters: int | None, candidates: Sequence[int], method: str) -> None:
    if method not in ("nmf", "kmeans"):
        raise DataPrunerError(f"The clustering's method must be 'nmf' or 'kmeans', got {method!r}.")
    if n_clusters is not None and n_clusters < 1:
        raise DataPrunerError(f"n_clusters = {n_clusters} clusters were asked for; ask for 1 or more.")
    if n_clusters is None and (not len(candidates) or min(candidates) < 1):
        raise DataPrunerError(
            f"The numbers of clusters to choose from must be 1 or more, got {list(candidates)}."
        )


def _distinct_table(neighbours: Ints, n: int) -> tuple[Ints, Ints]:
    """First places of the distinct rows, and their neighbours' numbers among these."""
    if neighbours.ndim != 2 or neighbours.shape[0] != n or not neighbours.shape[1]:
        raise DataPrunerError(
            f"The neighbours must have shape ({n}, k) for {n} rows, and have {neighbours.shape}."
        )
    first = np.unique(neighbours[:, 0])
    if not 0 <= first[0] <= first[-1] < n:
        raise DataPrunerError(
            f"The neighbours name rows outside the {n} there are; make the table of these rows."
        )
    among = neighbours[first]
    table = np.minimum(np.searchsorted(first, among), len(first) - 1).astype(np.int64, copy=False)
    bad = (first[table] != among).any(axis=1) | (among[:, 0] != first)
    if bad.any():
        raise DataPrunerError(
            f"Row {int(first[bad.argmax()])}'s neighbours are not itself and then others, all first of their kind; "
            "make the table with neighbour_table."
        )
    return first, table


def _distances(embeddings: Matrix, first: Ints, table: Ints) -> Floats:
    """Euclidean distances of rows of length one to their neighbours, from the rows' difference, in blocks."""
    out = np.empty(table.shape)
    step = max(1, BLOCK_BYTES // (4 * embeddings.shape[1] * table.shape[1]))
    for start in range(0, len(table), step):
        part = slice(start, start + step)
        needed, place = np.unique(table[part], return_inverse=True)
        place = place.reshape(table[part].shape)
        block = gather(embeddings, first[needed])
        normalise_rows(block, first[needed], matrix=embeddings)
        difference = block[place]
        difference -= block[place[:, :1]]
        out[part] = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))
    return out


def _scales(distances: Floats, neighbour: int) -> Floats:
    """Distance to the neighbour of that number; where it is 0, the nearest that is not, or 1."""
    scale = distances[:, min(neighbour, distances.shape[1] - 1)].copy()
    # Below 1e-6 a distance of float32 rows is rounding: rows of one direction and other lengths.
    zero = scale < 1e-6
    others = np.where(distances[zero] < 1e-6, np.inf, distances[zero]).min(axis=1, initial=np.inf)
    scale[zero] = np.where(np.isfinite(others), others, 1.0)
    return scale


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


def _clusters(
    walk: DiffusionMap, k: int, method: Method, seed: int, iterations: int = 200
) -> NDArray[np.int64]:
    if k < 1:
        raise DataPrunerError(f"k = {k} clusters were asked for; ask for 1 or more.")
    labels = kmeans(walk.placed, [k], seed)[0]
    if method == "nmf":
        labels = symmetric_nmf(walk, labels, iterations=iterations)[0].argmax(axis=1)
    return _by_size(labels)


def _for_comparison(walk: DiffusionMap, ks: Sequence[int], method: Method, seed: int) -> list[Ints]:
    """Cluster for each k, for agreement only: labels are not renumbered, and NMF is in float32."""
    labels = kmeans(walk.placed, ks, seed)
    if method == "nmf":
        labels = [symmetric_nmf(walk, start, dtype=np.float32)[0].argmax(axis=1) for start in labels]
    return labels


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


def _by_size(labels: Ints) -> Ints:
    """Renumber clusters by size, the largest first, ties by the first row; empty ones vanish."""
    _, first, number, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(first))
    return rank[number.reshape(-1)]
