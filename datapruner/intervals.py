"""Intervals of a mean, by the bootstrap."""

from __future__ import annotations

import numpy as np

from datapruner.arrays import Floats

RESAMPLES = 1000
FEWEST = 5
"""Of fewer rows no interval is given: resampling so few says next to nothing of rows that were not seen."""
NORMAL_ROWS = 20_000
"""More rows get the normal interval, which theirs no longer differs from."""


def mean_interval(values: Floats, seed: int) -> tuple[float, float] | None:
    """Give the 95 % percentile bootstrap interval of a mean; None of fewer than five values."""
    n = len(values)
    if n < FEWEST:
        return None
    if n > NORMAL_ROWS:
        half = 1.96 * float(values.std(ddof=1)) / np.sqrt(n)
        return float(values.mean()) - half, float(values.mean()) + half
    rng = np.random.default_rng(seed)
    means = np.array([values[rng.integers(0, n, n)].mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def with_interval(mean: float, low: float | None, high: float | None) -> str:
    """Write a mean with its interval, where there is one."""
    return f"{mean:.4f}" if low is None or high is None else f"{mean:.4f} [{low:.4f}, {high:.4f}]"
