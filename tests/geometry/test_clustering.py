from __future__ import annotations

import faiss
import numpy as np
import pytest

from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import RowView
from datapruner.geometry.clustering import default_k, inter_distance, intra_distance, spherical_kmeans


def blobs(rows=2000, columns=32, groups=10, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((groups, columns))
    return (centres[rng.integers(0, groups, rows)] + noise * rng.standard_normal((rows, columns))).astype(
        np.float32
    )


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 7, 60])
def test_every_row_has_its_nearest_centroid(k):
    rows = blobs()
    result = spherical_kmeans(rows * 3, k)
    assert result.centroids.dtype == np.float32
    assert result.assignment.dtype == np.int64
    assert result.distance.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(result.centroids, axis=1), 1, atol=1e-6)
    distances = 1 - unit(rows) @ result.centroids.T.astype(np.float64)
    own = np.take_along_axis(distances, result.assignment[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(own, distances.min(axis=1), atol=1e-6)
    np.testing.assert_allclose(result.distance, own, atol=1e-6)
    assert (result.sizes > 0).all()
    assert result.sizes.sum() == len(rows)


def test_quality_is_that_of_faiss():
    rows = blobs(4000, groups=40, noise=0.8)
    ours = spherical_kmeans(rows, 40).distance.mean()
    sample = unit(rows).astype(np.float32)
    theirs = faiss.Kmeans(32, 40, spherical=True, niter=20, seed=0)
    theirs.train(sample)
    assert ours <= 1.03 * (1 - theirs.index.search(sample, 1)[0]).mean()


def test_same_bytes_for_the_same_seed_however_the_rows_are_stored(tmp_path):
    rows = blobs().astype(np.float16)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    first = spherical_kmeans(rows, 20, seed=3, max_points_per_centroid=40)
    for other in (rows, mapped, RowView(mapped, np.arange(len(rows))), rows.astype(np.float64)):
        again = spherical_kmeans(other, 20, seed=3, max_points_per_centroid=40)
        for name in ("centroids", "assignment", "distance"):
            assert getattr(first, name).tobytes() == getattr(again, name).tobytes()
    assert spherical_kmeans(rows, 20, seed=4).centroids.tobytes() != first.centroids.tobytes()


def test_intra_and_inter_distance_against_brute_force():
    rows = blobs(groups=30)
    for k in (2, 15, 30):
        result = spherical_kmeans(rows, k)
        cosines = unit(rows) @ unit(result.centroids).T
        expected = [(1 - cosines[result.assignment == j, j]).mean() for j in range(len(result.centroids))]
        np.testing.assert_allclose(intra_distance(result), expected, atol=1e-6)
        between = np.sort(1 - unit(result.centroids) @ unit(result.centroids).T, axis=1)[:, 1:]
        np.testing.assert_allclose(inter_distance(result.centroids), between[:, :20].mean(axis=1), atol=1e-6)
        np.testing.assert_allclose(inter_distance(result.centroids, neighbours=1), between[:, 0], atol=1e-6)
    assert inter_distance(result.centroids[:1]).tolist() == [0.0]


def test_default_k():
    assert [default_k(n) for n in (1, 5, 8, 100, 128, 200, 20_000, 10**7)] == [1, 5, 8, 8, 8, 10, 100, 1000]
    assert len(spherical_kmeans(blobs(800)).centroids) <= 20


def test_identical_rows():
    rows = np.repeat(blobs(1), 1000, axis=0)
    with pytest.raises(DataPrunerError, match=r"k = 5 clusters .* 1000 rows hold only 1 distinct"):
        spherical_kmeans(rows, 5)
    for k in (None, 1):
        result = spherical_kmeans(rows, k)
        assert len(result.centroids) == 1
        np.testing.assert_allclose(result.distance, 0, atol=1e-6)
        assert len(np.unique(result.distance)) == 1


def test_as_many_clusters_as_distinct_rows():
    distinct = blobs(12, noise=2)
    rows = np.repeat(distinct, 50, axis=0)[np.random.default_rng(0).permutation(600)]
    for k in (None, 12):
        result = spherical_kmeans(rows, k)
        assert len(result.centroids) == 12
        np.testing.assert_allclose(result.distance, 0, atol=1e-6)
    with pytest.raises(DataPrunerError, match="hold only 12 distinct"):
        spherical_kmeans(rows, 13)


def test_rare_distinct_rows_outside_the_sample_are_found():
    rows = np.repeat(blobs(1), 5000, axis=0)
    rows[[17, 900, 4999]] = blobs(3, noise=3, seed=5)
    result = spherical_kmeans(rows, 4, max_points_per_centroid=4)
    assert sorted(result.sizes.tolist()) == [1, 1, 1, 4997]
    assert len(spherical_kmeans(rows, max_points_per_centroid=1).centroids) == 4
    with pytest.raises(DataPrunerError, match="hold only 4 distinct"):
        spherical_kmeans(rows, 5, max_points_per_centroid=4)


def test_identical_rows_get_identical_distances():
    rows = blobs(3000, columns=384, noise=1)
    rows[::3] = rows[0]
    result = spherical_kmeans(rows, 30)
    assert len(np.unique(result.distance[::3])) == 1


def test_one_row_opposite_rows_and_k_equal_n():
    one = spherical_kmeans(np.array([[3.0, 4.0]]))
    np.testing.assert_allclose(one.centroids, [[0.6, 0.8]], atol=1e-6)
    assert one.assignment.tolist() == [0]
    opposite = spherical_kmeans(np.array([[1.0, 0.0], [-1.0, 0.0]]), 1)
    np.testing.assert_allclose(np.linalg.norm(opposite.centroids, axis=1), 1)
    assert sorted(opposite.distance.tolist()) == [0, 2]
    rows = blobs(30, noise=2)
    assert sorted(spherical_kmeans(rows, 30).assignment.tolist()) == list(range(30))


def test_the_sample_obeys_its_memory():
    rows = blobs(3000)
    small = spherical_kmeans(rows, 10, memory_bytes=4 * 32 * 100)
    assert len(small.centroids) == 10


@pytest.mark.parametrize("k", [0, -1, 2001])
def test_k_out_of_range(k):
    with pytest.raises(DataPrunerError, match=f"k = {k} clusters .* 2000 rows"):
        spherical_kmeans(blobs(), k)


@pytest.mark.parametrize("value", [0, np.nan])
def test_bad_rows_are_named(value):
    rows = blobs(5000)
    rows[4321] = value
    with pytest.raises(DataPrunerError, match=r"^Row 4321 "):
        spherical_kmeans(rows, 3, max_points_per_centroid=20)
    with pytest.raises(DataPrunerError, match=r"^Row 4321 "):
        spherical_kmeans(RowView(rows, np.arange(1, 5000)), 3)
    with pytest.raises(DataPrunerError, match="must be 1 or more"):
        spherical_kmeans(rows, 3, iterations=0)
