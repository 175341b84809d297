"""Rows of random tokens, as a model is fed."""

from __future__ import annotations

import numpy as np

from datapruner.samples.rendered import Rendered


def rendered(rng, vocabulary, count=6, longest=20):
    return [
        Rendered(
            rng.integers(3, vocabulary, n).astype(np.int32),
            np.arange(n) >= n // 2,
            False,
            np.zeros((0, 3)),
            False,
        )
        for n in rng.integers(6, longest, count).tolist()
    ]
