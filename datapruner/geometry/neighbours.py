"""Nearest neighbours: exact in blocks, and among near clusters where there are too many rows for that."""

from __future__ import annotations

import logging
import math
from typing import Literal, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import (
    FloatBlock,
    Matrix,
    RowView,
    gather,
    iter_blocks,
    normalise_rows,
    require_finite,
    require_matrix,
)

logger = logging.getLogger(__name__)

Metric = Literal["cosine", "euclidean"]

EXACT_ROWS = 50_000
"""Up to here a graph of neighbours is exact: 2e12 operations at 384 dimensions, half a minute on two cores."""
PROBES = 16
RECALL_ROWS = 256

# Candidates beyond k. faiss ranks by |x|^2 + |y|^2 - 2xy, whose last digits are noise; the final order is
# decided among k + SLACK candidates on distances taken from the difference of the two rows.
SLACK = 16


def nearest_neighbours(
    queries: Matrix,
    base: Matrix,
    k: int,
    *,
    metric: Metric = "cosine",
    exclude_self: bool = False,
    memory_bytes: int = 512 << 20,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k nearest rows of ``base`` for every row of ``queries``, exactly.

    Blocks of queries meet blocks of the base, faiss proposes k + 16 candidates for each pair of blocks, and
    the candidates' distances are then taken again from the rows' difference in float32: identical rows are
    at distance 0 exactly, and small distances keep their digits. *ours*; no paper.

    Parameters
    ----------
    queries
        Shape (n, d).
    base
        Shape (N, d).
    k
        Neighbours a query.
    metric
        ``cosine``: 1 - cos, in [0, 2]. ``euclidean``: the distance itself, not its square.
    exclude_self
        Leave out base row i for query i; ``queries`` and ``base`` must then have the same rows.
    memory_bytes
        Working memory, in bytes, beside the result's 12 n k bytes. Never n x N.

    Returns
    -------
    indices
        int64 (n, k), nearest first; ties by the lower index (among more than 16 ties at the k-th place the
        choice is faiss's).
    distances
        float32 (n, k).

    Raises
    ------
    DataPrunerError
        When k is below 1 or above the rows there are, the shapes do not fit, or a row has no direction.
    """
    n, columns = _check(queries, base, k, metric, exclude_self)
    indices = np.full((n, k), -1, dtype=np.int64)
    distances = np.full((n, k), np.inf, dtype=np.float32)
    # Base rows and queries take an eighth each (every block exists twice while it is prepared), faiss's
    # product and the candidates the rest.
    share = max(1 << 16, memory_bytes // 8)
    centre = _centre(base, share, metric)
    wanted = k + SLACK + exclude_self
    query_bytes = max(4 * columns, min(share, 4 * columns * max(1, share // (16 * wanted))))
    for base_start, base_stop, base_block in iter_blocks(base, block_bytes=share):
        _prepare(base_block, base_start, base, metric, centre)
        # Queries are read again for every base block: the outer loop is the one with fewer turns.
        for start, stop, block in iter_blocks(queries, block_bytes=query_bytes):
            _prepare(block, start, queries, metric, centre)
            ids, squares = _candidates(block, base_block, min(wanted, base_stop - base_start), share)
            ids += base_start
            if exclude_self:
                squares[ids == np.arange(start, stop)[:, None]] = np.inf
            ids = np.concatenate([indices[start:stop], ids], axis=1)
            squares = np.concatenate([distances[start:stop], squares], axis=1)
            order = np.lexsort((ids, squares), axis=1)[:, :k]
            indices[start:stop] = np.take_along_axis(ids, order, axis=1)
            distances[start:stop] = np.take_along_axis(squares, order, axis=1)
    # Until here squared distances; for unit vectors |x - y|^2 = 2 (1 - cos).
    if metric == "cosine":
        distances *= np.float32(0.5)
    else:
        np.sqrt(distances, out=distances)
    return indices, distances


class Neighbours(NamedTuple):
    """The nearest other rows of every row.

    Attributes
    ----------
    indices : ndarray, int64, shape (n, k)
        Nearest first.
    distances : ndarray, float32, shape (n, k)
        Euclidean, between rows scaled to length one: sqrt(2 (1 - cos)).
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float32]


def knn_graph(
    embeddings: Matrix, k: int, *, seed: int = 0, exact_rows: int = EXACT_ROWS, probes: int = PROBES
) -> Neighbours:
    """Find the k nearest other rows of every row, by direction.

    Up to ``exact_rows`` rows exactly. Beyond, rows are clustered and each looks for its neighbours among the members
    of the ``probes`` clusters nearest to its own (*ours*: an inverted file joined with itself, list by list, so that
    all distances are matrix products); the share of true neighbours found by a sample of rows is logged.

    Parameters
    ----------
    embeddings
        Shape (n, d), of any length of rows.
    k
        Neighbours a row, itself not counted.
    seed
        Of the clustering.
    exact_rows, probes

    Returns
    -------
    Neighbours
    """
    n, columns = require_matrix(embeddings)
    if n <= exact_rows:
        found = nearest_neighbours(embeddings, embeddings, k, exclude_self=True)
        return Neighbours(found[0], _chord(found[1]))
    from datapruner.geometry.clustering import spherical_kmeans

    # Twice sqrt(n) lists of sqrt(n) / 2 rows: with 16 probes each row meets about 8 sqrt(n) others.
    clusters = spherical_kmeans(
        embeddings,
        round(2 * math.sqrt(n)),
        at_most=True,
        seed=seed,
        iterations=10,
        max_points_per_centroid=64,
    )
    order = np.argsort(clusters.assignment, kind="stable")
    edges = np.concatenate([[0], np.cumsum(clusters.sizes)])
    # In list order and in memory, at the precision it was given: half that of a float32 copy for float16.
    members = np.empty((n, columns), dtype=min(embeddings.dtype, np.dtype(np.float32)))
    step = max(1, (64 << 20) // (4 * columns))
    for start in range(0, n, step):
        members[start : start + step] = gather(embeddings, order[start : start + step])
    count = len(clusters.centroids)
    wanted = min(count, max(probes, math.ceil(count * 4 * (k + 1) / n)))
    near = nearest_neighbours(clusters.centroids, clusters.centroids, wanted)[0]
    indices = np.empty((n, k), dtype=np.int64)
    distances = np.empty((n, k), dtype=np.float32)
    for number in range(count):
        lists, own = near[number], slice(edges[number], edges[number + 1])
        while (edges[lists + 1] - edges[lists]).sum() <= k:  # tiny clusters: widen until there are k others
            wider = min(count, 2 * len(lists))
            lists = nearest_neighbours(clusters.centroids[[number]], clusters.centroids, wider)[0][0]
        places = np.concatenate([np.arange(edges[j], edges[j + 1]) for j in lists])
        found = nearest_neighbours(members[own], members[places], k + 1)
        rows = order[own]
        others, apart = order[places[found[0]]], found[1]
        # The row itself goes to the end and off; among many identical rows it may not be among the k + 1 at all.
        itself = others == rows[:, None]
        keep = np.argsort(itself, axis=1, kind="stable")[:, :k]
        indices[rows] = np.take_along_axis(others, keep, axis=1)
        distances[rows] = np.take_along_axis(apart, keep, axis=1)
    sample = np.sort(np.random.default_rng(seed).choice(n, min(n, RECALL_ROWS), replace=False))
    truth = nearest_neighbours(gather(embeddings, sample), embeddings, k + 1)[1][:, -1]
    recall = float((distances[sample] <= truth[:, None] * (1 + 1e-6)).mean())
    logger.info(
        "neighbours: %d lists, %d probes, %.1f %% of the true ones found by a sample",
        count,
        wanted,
        100 * recall,
    )
    return Neighbours(indices, _chord(distances))


def neighbour_table(embeddings: Matrix, n_neighbors: int, *, seed: int = 0) -> Neighbours:
    """Find the nearest other rows of every row among the distinct ones, itself first.

    Parameters
    ----------
    embeddings
        Shape (n, d).
    n_neighbors
        The row itself counted; all distinct rows where there are fewer.
    seed
        See :func:`knn_graph`.

    Returns
    -------
    Neighbours
        Column 0 is the first row equal to the row, at distance 0; the others are first rows too. Equal rows have equal
        entries.
    """
    first, number = distinct_rows(embeddings)
    rows = embeddings if len(first) == len(number) else RowView(embeddings, first)
    k = min(n_neighbors, len(first)) - 1
    found = (
        knn_graph(rows, k, seed=seed)
        if k
        else Neighbours(np.empty((len(first), 0), np.int64), np.empty((len(first), 0), np.float32))
    )
    indices = np.column_stack([first, first[found.indices]])
    distances = np.column_stack([np.zeros(len(first), np.float32), found.distances])
    return Neighbours(indices[number], distances[number])


def distinct_rows(embeddings: Matrix) -> tuple[Ints, Ints]:
    """Find identical rows.

    Returns
    -------
    first, number : ndarray, int64
        The first place of every distinct row, ascending, shape (u,); and which of them each row is, shape (n,).
    """
    keys = np.empty(embeddings.shape[0], dtype="S16")
    for start, _, block in iter_blocks(embeddings):
        for place, row in enumerate(block + np.float32(0)):  # -0.0 equals 0.0
            keys[start + place] = xxhash.xxh3_128_digest(row.data)
    # A bytes array drops trailing zeros when compared as text does; as numbers it does not.
    _, first, number = np.unique(
        keys.view([("a", "u8"), ("b", "u8")]), return_index=True, return_inverse=True
    )
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return first[order].astype(np.int64), rank[number.reshape(-1)]


def _chord(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sqrt(2 * distances, dtype=np.float32)


def _check(queries: Matrix, base: Matrix, k: int, metric: str, exclude_self: bool) -> tuple[int, int]:
    """Return the number of queries and of dimensions."""
    n, columns = require_matrix(queries)
    total, base_columns = require_matrix(base)
    if metric not in ("cosine", "euclidean"):
        raise DataPrunerError(f"The metric must be 'cosine' or 'euclidean', got {metric!r}.")
    if columns != base_columns:
        raise DataPrunerError(
            f"Queries have {columns} dimensions and the base has {base_columns}; "
            "embed both with the same model."
        )
    if exclude_self and n != total:
        raise DataPrunerError(
            f"exclude_self needs the same rows on both sides, got {n} queries and {total} base rows."
        )
    available = total - exclude_self
    if not 1 <= k <= available:
        raise DataPrunerError(f"k = {k} neighbours were asked for, and there are {available}; lower k.")
    return n, columns


def _centre(base: Matrix, block_bytes: int, metric: Metric) -> NDArray[np.float32]:
    """Choose a point near the data: it changes no distance, but faiss then cancels fewer digits."""
    start, _, block = next(iter_blocks(base, block_bytes=min(block_bytes, 4 << 20)))
    if metric == "cosine":
        normalise_rows(block, start, matrix=base)
    return np.asarray(block.mean(axis=0, dtype=np.float64), dtype=np.float32)


def _prepare(
    block: FloatBlock, start: int, matrix: Matrix, metric: Metric, centre: NDArray[np.float32]
) -> None:
    if metric == "cosine":
        normalise_rows(block, start, matrix=matrix)
    else:
        require_finite(block, start, matrix=matrix)
    block -= centre


def _candidates(
    queries: FloatBlock, base: FloatBlock, count: int, memory_bytes: int
) -> tuple[Ints, NDArray[np.float32]]:
    """Faiss's nearest ``count`` base rows, with squared distances from the rows' difference."""
    import faiss

    ids: Ints = faiss.knn(queries, base, count, metric=faiss.METRIC_L2)[1].astype(np.int64, copy=False)
    squares = np.empty(ids.shape, dtype=np.float32)
    step = max(1, memory_bytes // (8 * count * base.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        difference = base[ids[part]]
        difference -= queries[part, None, :]
        np.einsum("ijk,ijk->ij", difference, difference, out=squares[part])
    return ids, squares
