"""Ranks, over all rows or group by group, and TOPSIS: several columns joined into one value a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from datapruner.arrays import Floats, Ints

Normalization = Literal["vector", "minmax"]


def average_ranks(values: Floats) -> Floats:
    """Rank from 1 (lowest) to n; equal values share the mean of their ranks; float64 (n,)."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def places_in_groups(values: Floats, groups: Ints) -> Ints:
    """Give each row's place in its group, 0 for the highest value; of equal values the earlier row; int64 (n,)."""
    order = np.lexsort((np.arange(len(values)), -values, groups))
    sorted_groups = groups[order]
    first = np.r_[True, sorted_groups[1:] != sorted_groups[:-1]][: len(order)]
    start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order)) - start
    return places


def rows_of_groups(groups: Ints) -> list[Ints]:
    """Give the rows of every group that has any, ascending."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def spearman(first: Floats, second: Floats) -> float:
    """Correlate two columns' ranks; 0 where either column is constant or there is one row (*ours*)."""
    a, b = average_ranks(first), average_ranks(second)
    a -= a.mean()
    b -= b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else 0.0


def rank_correlation(ranks: Sequence[Floats]) -> Floats:
    """Correlate every pair of rankings; NaN where one has all rows equal.

    Parameters
    ----------
    ranks : sequence of s ndarrays, float64, shape (m,)
        Average ranks, on any scale.

    Returns
    -------
    ndarray, float64, shape (s, s)
    """
    held = np.stack(ranks)
    held -= held.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(held, axis=1)
    # Ranks that are all equal differ from their mean by rounding at most.
    norms[np.ptp(held, axis=1) == 0] = np.nan
    found: Floats = np.clip(held @ held.T / np.outer(norms, norms), -1, 1)
    return found


def _near_one(values: Floats) -> Floats:
    """Divide every column by a power of two, which rounds nothing, so that no square leaves the range of floats."""
    scaled: Floats = np.ldexp(values, -np.frexp(np.abs(values).max(axis=0, initial=0))[1])
    return scaled


def topsis(
    matrix: Floats, weights: Sequence[float], benefit: Sequence[bool], normalization: Normalization = "vector"
) -> Floats:
    """Score rows by how near they come to the best of every column, and how far from the worst.

    Parameters
    ----------
    matrix : ndarray, float64, shape (n, k)
        One row an alternative, one column a criterion; of any sign.
    weights : sequence of float, length k
        Only their proportions matter.
    benefit : sequence of bool, length k
        Whether high is good in this column.
    normalization : {"vector", "minmax"}
        Columns are divided by their Euclidean norm, or by their range.

    Returns
    -------
    ndarray
        Closeness, float64 (n,), in [0, 1]; higher is better. A constant column decides nothing, and where all
        columns are constant every row gets 0.5 (*ours*: the textbook divides zero by zero).
    """
    matrix, share = (_near_one(np.asarray(given, dtype=np.float64)) for given in (matrix, weights))
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    scale = np.sqrt(np.einsum("ij,ij->j", matrix, matrix)) if normalization == "vector" else high - low
    unit = np.divide(share, scale, out=np.zeros(len(scale)), where=scale > 0)
    to_best, to_worst = (
        np.sqrt((((matrix - ideal) * unit) ** 2).sum(axis=1))
        for ideal in (np.where(benefit, high, low), np.where(benefit, low, high))
    )
    total = to_best + to_worst
    closeness: Floats = np.divide(to_worst, total, out=np.full(len(matrix), 0.5), where=total > 0)
    return closeness
