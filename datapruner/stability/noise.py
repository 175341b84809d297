"""Measurements under another seed, or with noise on the vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datapruner.geometry.blocks import iter_blocks

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.measuring.measure import Measured


def deviations(vectors: Matrix) -> NDArray[np.float32]:
    """Give the standard deviation of every dimension over the rows; float32 (d,)."""
    n, d = vectors.shape
    mean, square = np.zeros((2, d))
    for _, _, block in iter_blocks(vectors):
        mean += block.sum(axis=0, dtype=np.float64) / n
    for _, _, block in iter_blocks(vectors):
        square += ((block - mean) ** 2).sum(axis=0) / n
    return np.sqrt(square).astype(np.float32)


def with_noise(vectors: Matrix, scale: NDArray[np.float32], seed: int, draw: int) -> NDArray[np.float32]:
    """Add Gaussian noise; a draw has the same shape at every scale, so that levels differ in the level alone.

    Parameters
    ----------
    vectors : Matrix, shape (n, d)
    scale : ndarray, float32, shape (d,)
        Standard deviation in every dimension.
    seed, draw : int
    """
    rng = np.random.default_rng([seed, draw])
    out = np.empty(vectors.shape, dtype=np.float32)
    for start, stop, block in iter_blocks(vectors):
        out[start:stop] = block + scale * rng.standard_normal(block.shape, dtype=np.float32)
    return out


def varied_measurement(held: Measured, *, seed: int | None = None, vectors: Matrix | None = None) -> Measured:
    """Give the same measurements under another seed or with other vectors; what follows from these is made again."""
    from datapruner.signals.shape import measure_shape

    recipe = held.recipe if seed is None else held.recipe.model_copy(update={"seed": seed})
    measured = dict(held.signals.measured)
    if vectors is not None:
        measured["embedding"] = vectors
    again = {name: name in measured for name in ("neighbours", "manifold")}
    if any(again.values()):
        measured |= measure_shape(
            recipe, measured["embedding"], held.store, **again, shared=held.signals.shared
        )
    return held._replace(recipe=recipe, signals=replace(held.signals, measured=measured, seed=recipe.seed))
