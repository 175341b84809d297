from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from datapruner.errors import DataPrunerError
from datapruner.geometry.manifold import (
    check_neighbours,
    content_hash,
    manifold,
    principal_components,
)
from datapruner.geometry.neighbours import (
    distinct_rows,
    knn_graph,
    nearest_neighbours,
    neighbour_table,
)


def blobs(n=300, d=20, k=4, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    return (rng.normal(size=(k, d))[label] * 3 + rng.normal(size=(n, d))).astype(dtype), label


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_principal_components_equal_sklearns():
    rows, _ = blobs()
    theirs = PCA(3).fit_transform(unit(rows.astype(np.float64)))
    ours = principal_components(rows, 3)
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-5)


def test_components_point_the_same_way_whatever_the_order():
    rows, _ = blobs()
    order = np.random.default_rng(1).permutation(len(rows))
    np.testing.assert_allclose(
        principal_components(rows, 2)[order], principal_components(rows[order], 2), atol=1e-5
    )


@pytest.mark.parametrize("method", ["umap", "pca"])
def test_is_standardised_repeats_and_joins_identical_rows(method):
    rows, _ = blobs()
    again = np.concatenate([rows, rows[:40], -0.0 * rows[:0]])
    placed = manifold(again, method=method)
    assert placed.shape == (340, 2)
    assert placed.dtype == np.float64
    np.testing.assert_allclose(placed[:300].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(placed[:300].std(axis=0), 1)
    np.testing.assert_array_equal(placed[300:], placed[:40])
    assert placed.tobytes() == manifold(again, method=method).tobytes()
    assert placed[:300].tobytes() == manifold(rows, method=method).tobytes()


def test_umap_keeps_neighbours_and_separates_blobs():
    rows, label = blobs(400)
    placed = manifold(rows)
    assert trustworthiness(unit(rows), placed, n_neighbors=10) > 0.85
    near = nearest_neighbours(placed, placed, 5, metric="euclidean", exclude_self=True)[0]
    assert (label[near] == label[:, None]).mean() > 0.97


@pytest.mark.parametrize("method", ["umap", "pca"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
def test_few_rows(method, n):
    rows, _ = blobs(n)
    placed = manifold(rows, method=method)
    assert placed.shape == (n, 2)
    assert np.isfinite(placed).all()


def test_all_equal_rows_are_one_point():
    placed = manifold(np.ones((7, 4), np.float32))
    np.testing.assert_array_equal(placed, np.zeros((7, 2)))


def test_a_component_of_rounding_alone_stays_a_point():
    rows, _ = blobs(2)
    placed = manifold(rows, method="pca")
    np.testing.assert_allclose(np.abs(placed[:, 0]), 1)
    np.testing.assert_array_equal(placed[:, 1], 0)


def test_few_rows_beyond_the_limit_of_exact_neighbours():
    rows, _ = blobs(200, 8)
    near = knn_graph(rows, 5, exact_rows=100)
    assert near.indices.shape == (200, 5)


def test_distinct_rows_against_numpy():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 3, size=(500, 4)).astype(np.float32)
    rows[rows == 0] *= -1.0
    first, number = distinct_rows(rows)
    expected, index = np.unique(rows + 0.0, axis=0, return_index=True)
    np.testing.assert_array_equal(first, np.sort(index))
    assert len(first) == len(expected)
    np.testing.assert_array_equal(rows[first][number], rows)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3)])
def test_a_table_of_neighbours_of_another_shape_is_refused(shape):
    with pytest.raises(DataPrunerError, match=r"must have shape \(4, 4\)"):
        check_neighbours(np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.arange(4), 4)


def test_a_table_of_neighbours_that_umap_would_misread_is_refused():
    rows, _ = blobs(50)
    own = np.arange(50)
    indices, distances = neighbour_table(rows, 5)
    check_neighbours(indices, distances, own, 5)
    with pytest.raises(DataPrunerError, match="Row 0's neighbours"):
        check_neighbours(indices[:, ::-1], distances, own, 5)
    broken = distances.copy()
    broken[3, 2] = np.nan
    with pytest.raises(DataPrunerError, match="Row 3's neighbours"):
        check_neighbours(indices, broken, own, 5)


def test_the_manifold_takes_a_table_that_is_known():
    rows, _ = blobs(200)
    rows = np.concatenate([rows, rows[:50]])
    table = neighbour_table(rows, 15)
    assert manifold(rows, neighbours=table).tobytes() == manifold(rows).tobytes()
    with pytest.raises(DataPrunerError, match="must have shape"):
        manifold(rows, neighbours=neighbour_table(rows, 9))


def test_equal_rows_share_their_neighbours_among_distinct_ones():
    rows, _ = blobs(200)
    again = np.concatenate([rows, rows[:60]])
    alone, both = neighbour_table(rows, 7), neighbour_table(again, 7)
    np.testing.assert_array_equal(both.indices[:200], alone.indices)
    np.testing.assert_array_equal(both.indices[200:], alone.indices[:60])
    np.testing.assert_array_equal(both.indices[:, 0], np.r_[np.arange(200), np.arange(60)])
    assert neighbour_table(rows[:3], 7).indices.shape == (3, 3)
    assert neighbour_table(rows[[5, 5, 5]], 7).indices.tolist() == [[0], [0], [0]]


def test_refuses_bad_parameters():
    rows, _ = blobs(30)
    for bad in (
        {"method": "tsne"},
        {"dimensions": 0},
        {"dimensions": 21},
        {"n_neighbors": 1},
        {"min_dist": 1.0},
    ):
        with pytest.raises(DataPrunerError):
            manifold(rows, **bad)
    rows[3] = np.nan
    with pytest.raises(DataPrunerError, match="Row 3 "):
        manifold(rows, method="pca")


def test_content_hash_tells_rows_order_and_shape_apart():
    rows, _ = blobs(30)
    assert content_hash(rows) == content_hash(rows.astype(np.float64))
    others = [rows[::-1], rows[:29], rows.reshape(60, 10)]
    assert len({content_hash(rows), *(content_hash(other) for other in others)}) == 4


def test_neighbours_among_near_clusters():
    rows, _ = blobs(4000, 16, 30)
    exact = knn_graph(rows, 10)
    near = knn_graph(rows, 10, exact_rows=1000)
    truth = nearest_neighbours(unit(rows), unit(rows), 10, metric="euclidean", exclude_self=True)
    np.testing.assert_allclose(exact.distances, truth[1], atol=1e-5)
    assert (near.indices != np.arange(4000)[:, None]).all()
    assert (np.diff(near.distances, axis=1) >= 0).all()
    apart = np.linalg.norm(unit(rows)[near.indices] - unit(rows)[:, None], axis=2)
    np.testing.assert_allclose(near.distances, apart, atol=1e-5)
    found = (
        np.mean([len(np.intersect1d(a, b)) for a, b in zip(near.indices, exact.indices, strict=True)]) / 10
    )
    assert found > 0.9


def test_neighbours_among_near_clusters_with_many_copies():
    rows, _ = blobs(60, 8, 5)
    rows = np.repeat(rows, 40, axis=0)
    near = knn_graph(rows, 12, exact_rows=100)
    assert (near.distances == 0).all()
    assert (near.indices // 40 == np.arange(len(rows))[:, None] // 40).all()
    assert all(len(set(row)) == 12 for row in near.indices.tolist())


def test_it_runs_where_nothing_compiled_can_be_kept_and_with_other_steps(monkeypatch):
    from umap import layouts, umap_

    from datapruner.geometry import manifold as module

    class Unwritable:
        def __init__(self, own):
            self.own = own

        def __call__(self, *given, **more):
            return self.own(*given, **more)

        def enable_caching(self):
            raise RuntimeError("cannot cache function: no locator available")

    data, _ = blobs(60)
    before = manifold(data)
    monkeypatch.setattr(umap_, "smooth_knn_dist", Unwritable(umap_.smooth_knn_dist))
    renamed = layouts._nb_optimize_layout_euclidean_single_epoch
    monkeypatch.delattr(layouts, "_nb_optimize_layout_euclidean_single_epoch")
    module._keep_compiled.cache_clear()
    module._keep_compiled()
    monkeypatch.setattr(layouts, "_nb_optimize_layout_euclidean_single_epoch", renamed, raising=False)
    np.testing.assert_array_equal(manifold(data), before)
