"""What the clusters of a diffusion map are made of: k-means, and symmetric nonnegative matrix factorisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints

if TYPE_CHECKING:
    from datapruner.geometry.diffusion_map import DiffusionMap

Reals = NDArray[np.floating[Any]]

STARTS = 4
KMEANS_ROWS = 20_000
NMF_BLOCK = 1 << 16


def kmeans(rows: Reals, sizes: Sequence[int], seed: int) -> list[Ints]:
    """Label rows scaled to length one: k-means of a sample, the best of a few starts, for each number of clusters.

    The starts are drawn once, by k-means++ for the largest number; smaller ones take the first of these rows.
    """
    import warnings

    from sklearn.cluster import KMeans, kmeans_plusplus
    from sklearn.exceptions import ConvergenceWarning

    n = len(rows)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    points = rows / np.where(length > 0, length, 1)
    random = np.random.RandomState(seed & 0x7FFFFFFF)
    sample = points if n <= KMEANS_ROWS else points[np.sort(random.choice(n, KMEANS_ROWS, replace=False))]
    most = min(max(sizes), n)
    # Centred, as sklearn draws them itself.
    centred = sample - sample.mean(axis=0)
    drawn = [kmeans_plusplus(centred, most, random_state=random)[1] for _ in range(STARTS)]
    labels = []
    with warnings.catch_warnings():
        # Fewer distinct points than clusters: fewer clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for k in sizes:
            model = KMeans(min(k, n), init=_prefixes(drawn), n_init=STARTS, max_iter=50).fit(sample)
            labels.append(np.asarray(model.predict(points), dtype=np.int64))
    return labels


def _prefixes(drawn: list[Ints]) -> Callable[[Reals, int, object], Reals]:
    """Give k-means its next start at each call."""
    left = iter(drawn)
    return lambda points, k, random_state: points[next(left)[:k]]


def symmetric_nmf(
    walk: DiffusionMap,
    labels: Ints,
    *,
    iterations: int = 200,
    tolerance: float = 3e-4,
    dtype: type[np.float64 | np.float32] = np.float64,
) -> tuple[Reals, list[float]]:
    """Factorise A = V diag(lambda^t) V^T, never formed, as H H^T with H >= 0.

    H starts at the labels' indicator + 0.2, columns of one length, scaled as one to fit A best. An update is
    H (1/2 + max(A H, 0) / (2 H H^T H)); A's negative eigenvalues count as 0, so that it is positive semidefinite. The
    objective has no proof of descent for this update, and one for H cbrt(max(A H, 0) / (H H^T H)), which minimises a
    bound of it: -tr H^T A H lies below its tangent, and ||H H^T||^2 below sum (H0 H0^T H0) H^4 / H0^3. Where the
    first has raised the objective, it is taken back and the second is used (*derived*).

    Parameters
    ----------
    walk
        n rows, m vectors.
    labels
        int64 (n,), in [0, k).
    iterations
        At most.
    tolerance
        Ends when the objective falls by less than this of ||A||_F^2.
    dtype
        Of the computation and the factor; the labels of float32 are nearly always those of float64.

    Returns
    -------
    factor : ndarray, shape (n, k)
    objective : list of float
        ||A - H H^T||_F^2 before the first and after every update; it never rises.
    """
    size = int(labels.max()) + 1
    low: Reals = walk.vectors * np.maximum(walk.eigenvalues, 0) ** (walk.time / 2)  # A = low low^T
    low = low.astype(dtype, copy=False)
    gram = low.T @ low
    norm = float((gram**2).sum())
    factor = np.full((len(labels), size), 0.2, dtype=dtype)
    factor[np.arange(len(labels)), labels] += 1
    factor /= np.linalg.norm(factor, axis=0)
    across, inner = low.T @ factor, factor.T @ factor
    factor *= np.sqrt(max((across**2).sum(), _floor(low)) / (inner**2).sum())
    across, inner = low.T @ factor, factor.T @ factor
    objective = [norm - 2 * float((across**2).sum()) + float((inner**2).sum())]
    for _ in range(iterations):
        for exponent in (None, 1 / 3):
            new = _updated(factor, low, across, inner, exponent)
            new_across, new_inner = low.T @ new, new.T @ new
            value = norm - 2 * float((new_across**2).sum()) + float((new_inner**2).sum())
            if value <= objective[-1]:
                break
        else:
            break  # converged to rounding
        factor, across, inner = new, new_across, new_inner
        objective.append(value)
        if objective[-2] - value < tolerance * norm:
            break
    return factor, objective


def _updated(factor: Reals, low: Reals, across: Reals, inner: Reals, exponent: float | None) -> Reals:
    """One update of every entry; beta = 1/2 without an exponent. Rows depend on sums alone, hence in blocks."""
    out = np.empty_like(factor)
    for start in range(0, len(factor), NMF_BLOCK):
        part = slice(start, start + NMF_BLOCK)
        ratio = low[part] @ across
        np.maximum(ratio, 0, out=ratio)
        ratio /= np.maximum(factor[part] @ inner, _floor(low))
        if exponent is None:
            ratio *= 0.5
            ratio += 0.5
        else:
            ratio **= exponent
        np.multiply(factor[part], ratio, out=out[part])
    return out


def _floor(low: Reals) -> float:
    """Keep a denominator above 0: 1e-300 or so, in float32 1e-30."""
    return float(np.finfo(low.dtype).tiny) * 1e8
