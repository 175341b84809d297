"""How many clusters a diffusion map has: the most that bootstrap pairs still agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.diffusion_map import DiffusionMap
from datapruner.geometry.factorisation import kmeans, symmetric_nmf
from datapruner.geometry.threads import one_thread

Method = Literal["nmf", "kmeans"]


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

    k: Ints
    mean: Floats
    error: Floats
    chosen: int

    def as_array(self) -> Floats:
        """Columns k, mean, error; float64 (c, 3)."""
        return np.column_stack([self.k, self.mean, self.error]).astype(np.float64)


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

    check_choice(None, candidates, method)
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


def check_choice(n_clusters: int | None, candidates: Sequence[int], method: str) -> None:
    """Refuse a method, or numbers of clusters, without a meaning."""
    if method not in ("nmf", "kmeans"):
        raise DataPrunerError(f"The clustering's method must be 'nmf' or 'kmeans', got {method!r}.")
    if n_clusters is not None and n_clusters < 1:
        raise DataPrunerError(f"n_clusters = {n_clusters} clusters were asked for; ask for 1 or more.")
    if n_clusters is None and (not len(candidates) or min(candidates) < 1):
        raise DataPrunerError(
            f"The numbers of clusters to choose from must be 1 or more, got {list(candidates)}."
        )


def clusters_of(walk: DiffusionMap, k: int, method: Method, seed: int, iterations: int = 200) -> Ints:
    """Cluster the rows of a map: k-means, and from there NMF where that is the method; the largest cluster first."""
    if k < 1:
        raise DataPrunerError(f"k = {k} clusters were asked for; ask for 1 or more.")
    labels = kmeans(walk.placed, [k], seed)[0]
    if method == "nmf":
        labels = symmetric_nmf(walk, labels, iterations=iterations)[0].argmax(axis=1)
    return by_size(labels)


def _for_comparison(walk: DiffusionMap, ks: Sequence[int], method: Method, seed: int) -> list[Ints]:
    """Cluster for each k, for agreement only: labels are not renumbered, and NMF is in float32."""
    labels = kmeans(walk.placed, ks, seed)
    if method == "nmf":
        labels = [symmetric_nmf(walk, start, dtype=np.float32)[0].argmax(axis=1) for start in labels]
    return labels


def by_size(labels: Ints) -> Ints:
    """Renumber clusters by size, the largest first, ties by the first row; empty ones vanish."""
    _, first, number, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(first))
    return rank[number.reshape(-1)]
