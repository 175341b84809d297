"""The weighted graph of a table of neighbours: a Gaussian that every row scales for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import BLOCK_BYTES, Matrix, gather, normalise_rows, require_matrix

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


SCALE_NEIGHBOUR = 7
"""Zelnik-Manor & Perona's."""


NEGLIGIBLE = 1e-9
"""A weight below this, beside a row's own weight of 1, is no edge: it would only make eigenvalues tie at 1."""


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
    scale = scales_of(distances, scale_neighbour)
    weights = np.exp(-(distances**2) / (scale[:, None] * scale[table]))
    weights[weights < NEGLIGIBLE] = 0
    graph = csr_matrix(
        (weights.ravel(), table.ravel(), np.arange(0, count * width + 1, width)), (count, count)
    )
    graph = graph.maximum(graph.T).tocsr()
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


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


def scales_of(distances: Floats, neighbour: int) -> Floats:
    """Distance to the neighbour of that number; where it is 0, the nearest that is not, or 1."""
    scale = distances[:, min(neighbour, distances.shape[1] - 1)].copy()
    # Below 1e-6 a distance of float32 rows is rounding: rows of one direction and other lengths.
    zero = scale < 1e-6
    others = np.where(distances[zero] < 1e-6, np.inf, distances[zero]).min(axis=1, initial=np.inf)
    scale[zero] = np.where(np.isfinite(others), others, 1.0)
    return scale
