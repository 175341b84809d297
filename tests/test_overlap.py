"""Overlap of selections: figures against scipy and scikit-learn, chance against draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import jaccard_score

from datapruner.overlap import chance, correlation, jaccard


def test_jaccard_and_spearman_are_the_libraries():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.random((2, 50)) < 0.4
        assert jaccard(a, b) == pytest.approx(jaccard_score(a, b))
        x, y = rng.integers(8, size=(2, 50)).astype(float)
        x[:5] = np.nan
        assert correlation(x, y) == pytest.approx(spearmanr(x[5:], y[5:]).statistic)
    assert correlation(np.ones(5), np.arange(5.0)) is None


def test_chance_is_what_random_selections_share():
    rng = np.random.default_rng(0)
    eligible = rng.random((2, 300)) < 0.9
    forced = (rng.random(300) < 0.1) & eligible.all(axis=0)
    found = []
    for _ in range(2000):
        kept = np.tile(forced, (2, 1))
        for side in range(2):
            free = np.flatnonzero(eligible[side] & ~forced)
            kept[side, rng.choice(free, 90 - forced.sum(), replace=False)] = True
        found.append(kept.all(axis=0).sum() / kept.any(axis=0).sum())
    assert chance((90, 90), tuple(eligible), forced) == pytest.approx(np.mean(found), abs=0.002)
    every, none = np.ones(100, bool), np.zeros(100, bool)
    assert chance((30, 30), (every, every), none) == pytest.approx(30 / 170)
    assert chance((100, 100), (every, every), none) == 1
    assert chance((30, 30), (every, every), np.arange(100) < 30) == 1
