"""A low-dimensional picture of all rows at once, on which topology is computed and people look.

UMAP (McInnes et al., arXiv 1802.03426, *published*) from neighbours that faiss found, or principal components: fast
and the same on every machine up to rounding. TopoPrune (arXiv 2602.02739) says that it takes a topology-aware manifold
approximation of the whole dataset, and that it is standardised; method, dimensions and neighbours are *ours*.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import cache
from typing import Any, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import Matrix, RowView, iter_blocks, normalise_rows, require_matrix
from datapruner.geometry.neighbours import Neighbours, distinct_rows, neighbour_table

logger = logging.getLogger(__name__)

Method = Literal["umap", "pca"]

CODE_VERSION = 1
SPREAD = 10.0
"""UMAP starts from principal components of this size, as it starts from a spectral layout."""
EPOCHS = ((10_000, 500), (500_000, 200))
"""UMAP's own choice; beyond that we take 100 rounds (*ours*): at a million rows a round takes seconds."""
NEGATIVES = 5


def manifold(
    embeddings: Matrix,
    *,
    method: Method = "umap",
    dimensions: int = 2,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    neighbours: Neighbours | None = None,
) -> Floats:
    """Place every row in a few dimensions, each of mean 0 and deviation 1 over the distinct rows.

    Parameters
    ----------
    embeddings
        Shape (n, d); rows are scaled to length one, so that their cosines count.
    method : {"umap", "pca"}
    dimensions : int
        1 to 3 can be looked at and have an alpha complex.
    n_neighbors : int
        UMAP's neighbours, the row itself among them.
    min_dist : float
        UMAP's least distance between neighbours, before coordinates are standardised.
    seed : int
        Of UMAP; the same data, seed, versions and CPU type give the same bytes.
    neighbours : Neighbours, optional
        What :func:`datapruner.geometry.neighbours.neighbour_table` gives, where it is known already.

    Returns
    -------
    ndarray, float64, shape (n, dimensions)
        Identical rows, which have the same numbers, are one point. Rows of one direction and different length are at
        distance zero of each other, and may be placed apart: scale them first where that matters.

    Raises
    ------
    DataPrunerError
        A parameter has no meaning, or a row is zero, NaN or infinite.
    """
    _, columns = require_matrix(embeddings)
    if method not in ("umap", "pca"):
        raise DataPrunerError(f"The manifold's method must be 'umap' or 'pca', got {method!r}.")
    if not 1 <= dimensions <= columns:
        raise DataPrunerError(f"The manifold can have 1 to {columns} dimensions here, not {dimensions}.")
    if n_neighbors < 2 or not 0 <= min_dist < 1:
        raise DataPrunerError(
            f"UMAP needs n_neighbors of 2 or more and min_dist in [0, 1), not {n_neighbors}, {min_dist}."
        )
    first, number = distinct_rows(embeddings)
    rows = embeddings if len(first) == len(number) else RowView(embeddings, first)
    flat = principal_components(rows, dimensions)
    if method == "umap" and len(first) > max(dimensions + 2, 3):
        table = neighbours or neighbour_table(embeddings, n_neighbors, seed=seed)
        check_neighbours(table.indices, table.distances, first[number], min(n_neighbors, len(first)))
        among = Neighbours(number[table.indices[first]], table.distances[first])
        flat = _umap(among, flat, min_dist, seed)
    return _standardised(flat)[number]


def content_hash(embeddings: Matrix) -> bytes:
    """Hash all rows as float32, in order; 16 bytes."""
    digest = xxhash.xxh3_128(repr(tuple(embeddings.shape)).encode())
    for _, _, block in iter_blocks(embeddings):
        digest.update(block.data)
    return digest.digest()


def principal_components(embeddings: Matrix, dimensions: int) -> Floats:
    """Project rows of length one onto their first principal components.

    Every component points where its largest loading is positive, so that the result does not turn over between
    machines. Two passes over the data, in blocks.

    Returns
    -------
    ndarray, float64, shape (n, dimensions)
    """
    n, columns = require_matrix(embeddings)
    total, products = np.zeros(columns), np.zeros((columns, columns))
    for start, _, block in iter_blocks(embeddings):
        normalise_rows(block, start, matrix=embeddings)
        total += block.sum(axis=0, dtype=np.float64)
        products += block.T @ block  # of at most 64 MiB in float32, then summed in float64
    mean = total / n
    _, vectors = np.linalg.eigh(products / n - np.outer(mean, mean))
    components = vectors[:, ::-1][:, :dimensions]
    components *= np.where(
        components[np.abs(components).argmax(axis=0), np.arange(dimensions)] < 0, -1.0, 1.0
    )
    out = np.empty((n, dimensions))
    for start, stop, block in iter_blocks(embeddings):
        normalise_rows(block, start, matrix=embeddings)
        out[start:stop] = (block - mean.astype(np.float32)) @ components.astype(np.float32)
    return out


def _umap(near: Neighbours, start: Floats, min_dist: float, seed: int) -> Floats:
    """Run UMAP's own steps on our neighbours.

    They are called one by one, as scanpy does: the class ignores a neighbour table whose shape it does not like with a
    mere warning, copies the data, and lays out by a spectral method that takes longer than all the rest.
    """
    import umap.umap_ as umap

    _keep_compiled()
    n = len(start)
    unread = np.empty((n, 1), np.float32)  # stands for the data, of which only the number of rows is read
    random = np.random.RandomState(seed)
    graph = umap.fuzzy_simplicial_set(
        unread,
        near.indices.shape[1],
        random,
        "euclidean",
        knn_indices=near.indices,
        knn_dists=near.distances,
    )[0]
    a, b = umap.find_ab_params(1.0, min_dist)
    epochs = next((rounds for limit, rounds in EPOCHS if n <= limit), 100)
    size = np.abs(start).max() or 1.0
    begin = (start * (SPREAD / size) + random.normal(scale=1e-4, size=start.shape)).astype(np.float32)
    placed, _ = umap.simplicial_set_embedding(
        unread,
        graph,
        start.shape[1],
        1.0,
        a,
        b,
        1.0,
        NEGATIVES,
        epochs,
        begin,
        random,
        "euclidean",
        {},
        densmap=False,
        densmap_kwds={},
        output_dens=False,
        parallel=False,
    )
    return np.asarray(placed, dtype=np.float64)


@cache
def _keep_compiled() -> None:
    """Let numba keep what UMAP compiles on its way, which takes every process seven seconds otherwise."""
    from umap import layouts, umap_

    steps = ("smooth_knn_dist", "compute_membership_strengths", "_nb_optimize_layout_euclidean_single_epoch")
    for name in steps:
        compiled: Any = getattr(umap_, name, None) or getattr(layouts, name, None)
        # Another version of umap may have other steps; and neither the package's folder nor the user's may be
        # writable. It compiles anew then.
        with suppress(AttributeError, RuntimeError):
            compiled.enable_caching()


def check_neighbours(indices: Ints, distances: NDArray[np.float32], own: Ints, k: int) -> None:
    """Refuse a table of neighbours that UMAP would misread without a word.

    Parameters
    ----------
    indices, distances : ndarray, shape (n, k)
    own : ndarray, int64, shape (n,)
        What must come first in every row.
    k : int

    Raises
    ------
    DataPrunerError
        It is not (n, k), a row is not its own first neighbour, or distances are not finite and ascending from 0.
    """
    n = len(own)
    if indices.shape != (n, k) or distances.shape != (n, k):
        raise DataPrunerError(
            f"The neighbours must have shape ({n}, {k}), and have {indices.shape} and {distances.shape}."
        )
    bad = (
        (indices[:, 0] != own)
        | (distances[:, 0] != 0)
        | ~np.isfinite(distances).all(axis=1)
        | (np.diff(distances, axis=1) < 0).any(axis=1)
        | (indices < 0).any(axis=1)
        | (indices >= n).any(axis=1)
    )
    if bad.any():
        raise DataPrunerError(
            f"Row {int(np.argmax(bad))}'s neighbours are not itself first and then others at ascending distances."
        )


def _standardised(points: Floats) -> Floats:
    spread = points.std(axis=0)
    flat = spread <= 1e-6 * spread.max(initial=0)  # a component of rounding alone stays one point
    return np.where(flat, 0.0, (points - points.mean(axis=0)) / np.where(flat, 1.0, spread))
