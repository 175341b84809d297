"""Nearest neighbours: exact in blocks, and among near clusters where there are too many rows for that."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.geometry.blocks import (
    Matrix,
    RowView,
    gather,
    iter_blocks,
    require_matrix,
)
from datapruner.geometry.clustering import spherical_kmeans
from datapruner.geometry.search import nearest_neighbours

__all__ = ["Neighbours", "distinct_rows", "knn_graph", "nearest_neighbours", "neighbour_table"]

logger = logging.getLogger(__name__)


EXACT_ROWS = 50_000
"""Up to here a graph of neighbours is exact: 2e12 operations at 384 dimensions, half a minute on two cores."""
PROBES = 16
RECALL_ROWS = 256


class Neighbours(NamedTuple):
    """The nearest other rows of every row.

    Attributes
    ----------
    indices : ndarray, int64, shape (n, k)
        Nearest first.
    distances : ndarray, float32, shape (n, k)
        Euclidean, between rows scaled to length one: sqrt(2 (1 - cos)).
    """

    indices: Ints
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
