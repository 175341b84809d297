from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from datapruner.geometry.diffusion import DiffusionMap
from datapruner.geometry.factorisation import kmeans, symmetric_nmf


def planted(n=300, k=6, noise=0.15, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    return np.eye(8)[label] + noise * rng.standard_normal((n, 8)), label


def test_one_number_of_clusters_is_sklearn_s_own_k_means():
    rows, _ = planted(noise=0.5)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    own = KMeans(5, n_init=4, max_iter=50, random_state=np.random.RandomState(3)).fit(unit)
    np.testing.assert_array_equal(kmeans(rows, [5], 3)[0], own.predict(unit))


@pytest.mark.parametrize("sizes", [(2, 6, 9), (9, 6, 2)])
def test_several_numbers_of_clusters_share_their_starts(sizes):
    rows, label = planted()
    found = dict(zip(sizes, kmeans(rows, sizes, 0), strict=True))
    assert [len(np.unique(found[k])) for k in (2, 6, 9)] == [2, 6, 9]
    assert adjusted_rand_score(label, found[6]) == 1
    few = kmeans(rows[:4], sizes, 0)
    assert all(len(np.unique(labels)) == min(k, 4) for k, labels in zip(sizes, few, strict=True))


def test_float32_factorises_as_float64_does():
    rows, label = planted()
    vectors, values, _ = np.linalg.svd(rows, full_matrices=False)
    walk = DiffusionMap(values / values[0], vectors, np.full(300, 1 / 300), 1.0)
    start = np.where(np.random.default_rng(1).random(300) < 0.2, 0, label)
    double, objective = symmetric_nmf(walk, start)
    single, rounded = symmetric_nmf(walk, start, dtype=np.float32)
    assert (double.dtype, single.dtype) == (np.float64, np.float32)
    dense = (vectors * walk.eigenvalues) @ vectors.T
    single = single.astype(np.float64)
    assert np.linalg.norm(dense - single @ single.T) ** 2 == pytest.approx(rounded[-1], abs=1e-4)
    assert rounded[-1] == pytest.approx(objective[-1], rel=1e-2)
    assert adjusted_rand_score(double.argmax(axis=1), single.argmax(axis=1)) > 0.99
