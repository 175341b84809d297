"""Exact nearest neighbours, in blocks."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import (
    FloatBlock,
    Matrix,
    iter_blocks,
    normalise_rows,
    require_finite,
    require_matrix,
)

Metric = Literal["cosine", "euclidean"]


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
) -> tuple[Ints, NDArray[np.float32]]:
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
