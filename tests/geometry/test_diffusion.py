from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import adjusted_rand_score

from datapruner.errors import DataPrunerError
from datapruner.geometry import affinity as affinities
from datapruner.geometry import factorisation
from datapruner.geometry.diffusion import (
    DiffusionMap,
    affinity,
    choose_k,
    diffusion_map,
    spectral_clusters,
    spectral_nmf,
)
from datapruner.geometry.factorisation import symmetric_nmf
from datapruner.geometry.neighbours import neighbour_table
from tests.conftest import examples

SIZES = (40, 60, 80, 100, 50, 70)


def blobs(sizes=SIZES, columns=384, noise=0.04, seed=0):
    """Directions that are nearly orthogonal, in shuffled order; noise is a coordinate's."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = rng.standard_normal((len(sizes), columns))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rows = centres[label] + noise * rng.standard_normal((len(label), columns))
    return (rows * rng.uniform(0.5, 2, (len(rows), 1))).astype(np.float32), label


def table(rows, k=15):
    return neighbour_table(rows, k).indices


def dense_operator(weights):
    """D^-1/2 W D^-1/2 of the density-normalised weights, by the definition."""
    w = weights.toarray()
    q = w.sum(axis=1)
    w = w / np.outer(q, q)
    d = w.sum(axis=1)
    return w / np.sqrt(np.outer(d, d)), w, d


@pytest.mark.parametrize("k", [4, 15])
def test_affinity_against_a_loop(k):
    rows, _ = blobs((30, 20), noise=0.1)
    rows = np.concatenate([rows[:10], rows])  # ten rows twice
    near = table(rows, k)
    unit = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
    first = list(range(10)) + list(range(20, 60))
    place = {row: number for number, row in enumerate(first)}

    def distance(i, j):
        return np.linalg.norm(unit[i] - unit[j])

    scale = {i: distance(i, near[i][min(7, k - 1)]) for i in first}
    expected = np.zeros((50, 50))
    for i in first:
        for j in near[i]:
            value = np.exp(-(distance(i, j) ** 2) / (scale[i] * scale[j]))
            expected[place[i], place[j]] = expected[place[j], place[i]] = value
    found = affinity(rows, near)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5)
    np.testing.assert_array_equal(found.toarray(), found.toarray().T)
    np.testing.assert_array_equal(found.diagonal(), 1)


def test_affinity_in_many_blocks_and_from_a_file(tmp_path, monkeypatch):
    rows, _ = blobs((30, 20))
    near = table(rows)
    expected = affinity(rows, near).toarray()
    np.save(tmp_path / "rows.npy", rows)
    monkeypatch.setattr(affinities, "BLOCK_BYTES", 1)
    np.testing.assert_array_equal(
        affinity(np.load(tmp_path / "rows.npy", mmap_mode="r"), near).toarray(), expected
    )


@pytest.mark.parametrize("sizes", [(700,), (60, 50), (620, 610, 9)])
def test_eigenpairs_against_a_dense_solver(sizes):
    rows, _ = blobs(sizes, noise=0.2 if len(sizes) == 1 else 0.03)
    weights = affinity(rows, table(rows, 8))
    assert connected_components(weights)[0] == len(sizes)
    walk = diffusion_map(weights, 12)
    operator, _, d = dense_operator(weights)
    np.testing.assert_allclose(walk.eigenvalues, np.linalg.eigvalsh(operator)[::-1][:12], atol=1e-7)
    np.testing.assert_allclose(operator @ walk.vectors, walk.vectors * walk.eigenvalues, atol=1e-6)
    np.testing.assert_allclose(walk.vectors.T @ walk.vectors, np.eye(12), atol=1e-7)
    np.testing.assert_allclose(walk.stationary, d / d.sum())
    assert (walk.eigenvalues[: len(sizes)] == 1).all()
    assert (walk.vectors[np.abs(walk.vectors).argmax(axis=0), np.arange(12)] > 0).all()
    assert walk.vectors.tobytes() == diffusion_map(weights, 12).vectors.tobytes()


def test_eigenvalues_that_repeat_inside_a_component():
    n = 601  # a ring: every eigenvalue but the first is there twice
    ring = csr_matrix(np.eye(n) + np.roll(np.eye(n), 1, axis=0) + np.roll(np.eye(n), -1, axis=0))
    expected = (1 + 2 * np.cos(2 * np.pi * np.array([0, 1, 1, 2, 2, 3, 3]) / n)) / 3
    np.testing.assert_allclose(diffusion_map(ring, 7).eigenvalues, expected, atol=1e-9)


def test_equal_components_and_more_components_than_vectors():
    rows, _ = blobs((30,) * 3, noise=0.03)
    one = affinity(rows, table(rows, 6)).toarray()
    twice = np.block([[one, np.zeros_like(one)], [np.zeros_like(one), one]])
    walk = diffusion_map(csr_matrix(twice), 20)
    np.testing.assert_allclose(
        walk.eigenvalues, np.linalg.eigvalsh(dense_operator(csr_matrix(twice))[0])[::-1][:20], atol=1e-9
    )
    few = diffusion_map(csr_matrix(twice), 4)
    assert few.eigenvalues.tolist() == [1] * 4
    np.testing.assert_allclose(few.vectors.T @ few.vectors, np.eye(4), atol=1e-12)


@pytest.mark.parametrize("time", [1, 3])
def test_distances_of_coordinates_are_diffusion_distances(time):
    rows, _ = blobs((30, 25), noise=0.15)
    weights = affinity(rows, table(rows, 10))
    walk = diffusion_map(weights, len(rows), time=time)
    _, w, d = dense_operator(weights)
    steps = np.linalg.matrix_power(w / d[:, None], time) / np.sqrt(d / d.sum())
    expected = np.linalg.norm(steps[:, None] - steps[None], axis=2)
    placed = walk.coordinates
    np.testing.assert_allclose(np.linalg.norm(placed[:, None] - placed[None], axis=2), expected, atol=1e-7)


def low_rank(walk):
    return (walk.vectors * np.maximum(walk.eigenvalues, 0) ** walk.time) @ walk.vectors.T


@pytest.mark.parametrize("block", [7, 1 << 16])
def test_nmf_objective_by_brute_force_and_never_rising(block, monkeypatch):
    monkeypatch.setattr(factorisation, "NMF_BLOCK", block)
    rows, _ = blobs((40, 30, 20), noise=0.3, columns=8)
    walk = diffusion_map(affinity(rows, table(rows, 10)), 12, time=2)
    start = np.random.default_rng(0).integers(0, 5, len(rows))
    for steps in (0, 1, 7, 60):
        factor, objective = symmetric_nmf(walk, start, iterations=steps, tolerance=0)
        assert (factor >= 0).all()
        assert np.linalg.norm(low_rank(walk) - factor @ factor.T) ** 2 == pytest.approx(
            objective[-1], abs=1e-9
        )
    assert len(objective) > 20
    assert (np.diff(objective) <= 0).all()
    assert objective[-1] < 0.9 * objective[0]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_nmf_never_rises_whatever_the_matrix(n, rank, k, seed):
    rng = np.random.default_rng(seed)
    walk = DiffusionMap(rng.uniform(-1, 1, rank), rng.standard_normal((n, rank)), np.ones(n) / n, 1.0)
    factor, objective = symmetric_nmf(walk, rng.integers(0, k, n), tolerance=0)
    assert np.isfinite(factor).all()
    assert (np.diff(objective) <= 0).all()


@pytest.mark.parametrize("method", ["nmf", "kmeans"])
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_blobs_are_recovered_and_counted(method, seed):
    rows, label = blobs(seed=seed)
    near = table(rows)
    found = spectral_clusters(rows, near, 6, method=method, seed=seed)
    assert adjusted_rand_score(label, found.assignment) == 1
    assert found.sizes.tolist() == sorted(SIZES, reverse=True)
    assert found.stability is None
    chosen = spectral_clusters(rows, near, method=method, seed=seed)
    assert chosen.n_clusters == chosen.stability.chosen == 6
    assert adjusted_rand_score(label, chosen.assignment) == 1
    table_ = chosen.stability.as_array()
    assert table_.shape == (8, 3)
    assert table_[1].tolist() == [6, 1, 0]


def test_blobs_that_touch_are_recovered():
    rows, label = blobs(noise=0.11)
    near = table(rows, 30)
    assert connected_components(affinity(rows, near))[0] == 1
    assert adjusted_rand_score(label, spectral_clusters(rows, near, 6).assignment) == 1


def test_stability_by_hand():
    rows, _ = blobs((60, 40, 30), noise=0.2)
    walk = diffusion_map(affinity(rows, table(rows)), 8)
    found = choose_k(walk, (2, 3, 4), repeats=4, seed=5, max_rows=100)
    again = choose_k(walk, (4, 3, 2), repeats=4, seed=5, max_rows=100)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)
    best = found.mean.argmax()
    assert found.chosen == found.k[found.mean >= found.mean[best] - found.error[best] - 1e-12].max()
    assert ((found.mean > -1) & (found.mean <= 1)).all()
    with pytest.raises(DataPrunerError, match="2 repeats"):
        choose_k(walk, (2, 3), repeats=1)


def test_small_components_take_no_cluster():
    rows, label = blobs((600, 600), noise=0.04)
    rng = np.random.default_rng(7)
    # Ten families of nine, each a component, near the first blob's direction and far from the second's.
    centre = rows[label == 0].mean(axis=0)
    families = centre / np.linalg.norm(centre) + 0.08 * rng.standard_normal((10, 1, 384))
    families = (families + 0.0005 * rng.standard_normal((10, 9, 384))).reshape(90, 384).astype(np.float32)
    both = np.concatenate([rows, families])
    found = spectral_clusters(both, table(both, 8), 2)
    assert found.components >= 12
    assert adjusted_rand_score(np.concatenate([label, np.zeros(90, int)]), found.assignment) == 1


def test_so_many_components_that_none_is_large():
    rows, _ = blobs((12,) * 110, noise=0.002, columns=64)
    found = spectral_clusters(rows, table(rows, 8), 5)
    assert found.components == 110
    assert found.n_clusters == 5


def test_identical_rows_share_a_cluster_and_bytes_repeat():
    rows, _ = blobs(noise=0.15)
    again = np.concatenate([rows, rows[:50]])
    found = spectral_clusters(again, table(again), 8, seed=2)
    np.testing.assert_array_equal(found.assignment[400:], found.assignment[:50])
    assert found.assignment.dtype == np.int64
    same = spectral_clusters(again, table(again), 8, seed=2)
    assert found.assignment.tobytes() == same.assignment.tobytes()


@settings(max_examples=examples(60), deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(2, 15),
    st.one_of(st.none(), st.integers(1, 30)),
    st.integers(0, 2**32 - 1),
)
def test_small_and_odd_inputs(n, columns, values, k, wanted, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, values + 1, (n, columns)) * rng.choice([-1.0, 1.0], (n, columns))
    rows = rows.astype(np.float32)
    found = spectral_clusters(rows, table(rows, k), wanted, seed=seed)
    distinct, number = np.unique(rows, axis=0, return_inverse=True)
    assert found.assignment.shape == (n,)
    assert 1 <= found.n_clusters <= min(wanted or n, len(distinct))
    assert (found.sizes > 0).all()
    assert (np.diff(found.sizes) <= 0).all()
    for value in range(len(distinct)):
        assert len(set(found.assignment[number.reshape(-1) == value].tolist())) == 1
    assert np.isfinite(found.eigenvalues).all()


@pytest.mark.parametrize("n_clusters", [None, 1, 4])
def test_one_row_and_rows_that_are_all_equal(n_clusters):
    for rows in (np.ones((1, 3), np.float32), np.ones((9, 3), np.float32)):
        found = spectral_clusters(rows, table(rows), n_clusters)
        assert found.assignment.tolist() == [0] * len(rows)
        assert found.n_clusters == 1


def test_rows_of_one_direction_have_weight():
    rows = (np.arange(1, 31)[:, None] * np.array([[1.0, 2.0, 3.0]])).astype(np.float32)
    weights = affinity(rows, table(rows))
    assert np.isfinite(weights.data).all()
    assert spectral_clusters(rows, table(rows), 3).n_clusters <= 3


def test_refusals():
    rows, _ = blobs((20, 20))
    near = table(rows)
    for bad, message in (
        (near[:-1], r"must have shape \(40, k\)"),
        (near + 40, "outside the 40"),
        (near[:, ::-1], "neighbours are not itself"),
    ):
        with pytest.raises(DataPrunerError, match=message):
            affinity(rows, np.ascontiguousarray(bad))
    with pytest.raises(DataPrunerError, match="n_clusters = 0"):
        spectral_clusters(rows, near, 0)
    with pytest.raises(DataPrunerError, match="choose from"):
        spectral_clusters(rows, near, candidates=())
    with pytest.raises(DataPrunerError, match="'nmf' or 'kmeans'"):
        spectral_clusters(rows, near, method="agglomerative")
    with pytest.raises(DataPrunerError, match="scale_neighbour"):
        affinity(rows, near, scale_neighbour=0)
    walk = diffusion_map(affinity(rows, near), 3)
    with pytest.raises(DataPrunerError, match="k = 0 clusters"):
        spectral_nmf(walk, 0)
    with pytest.raises(DataPrunerError, match="1 dimension or more"):
        diffusion_map(affinity(rows, near), 0)
    with pytest.raises(DataPrunerError, match="Row 2 of the graph has no weight"):
        diffusion_map(csr_matrix(np.diag([1.0, 1.0, 0.0])), 2)
    broken = rows.copy()
    broken[3] = np.nan
    with pytest.raises(DataPrunerError, match="Row 3 "):
        affinity(broken, near)
