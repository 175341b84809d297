from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import RowView
from datapruner.geometry.neighbours import nearest_neighbours

RNG = np.random.default_rng(0)


def oracle(queries, base, k, metric):
    model = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(base.astype(np.float64))
    return model.kneighbors(queries.astype(np.float64))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("memory", [1 << 10, 512 << 20])
@pytest.mark.parametrize("shift", [0, 30])
def test_agrees_with_sklearn(metric, memory, shift):
    queries = (RNG.standard_normal((1100, 24)) + shift).astype(np.float32)
    base = (RNG.standard_normal((1700, 24)) + shift).astype(np.float32)
    distances, indices = oracle(queries, base, 10, metric)
    found, measured = nearest_neighbours(queries, base, 10, metric=metric, memory_bytes=memory)
    assert found.dtype == np.int64
    assert measured.dtype == np.float32
    np.testing.assert_allclose(measured, distances, rtol=1e-4, atol=1e-6)
    assert (found == indices).mean() > (0.99 if metric == "cosine" and shift else 0.9999)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_exclude_self(metric):
    rows = RNG.standard_normal((900, 16)).astype(np.float32)
    distances, indices = oracle(rows, rows, 6, metric)
    found, measured = nearest_neighbours(
        rows, rows, 5, metric=metric, exclude_self=True, memory_bytes=1 << 10
    )
    np.testing.assert_array_equal(found, indices[:, 1:])
    np.testing.assert_allclose(measured, distances[:, 1:], rtol=1e-4, atol=1e-6)
    every = nearest_neighbours(rows[:5], rows[:5], 4, metric=metric, exclude_self=True)[0]
    assert [sorted(row) for row in every.tolist()] == [[j for j in range(5) if j != i] for i in range(5)]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_identical_rows_are_at_zero_and_in_order(metric):
    rows = np.repeat(RNG.standard_normal((40, 33)) + 5, 4, axis=0).astype(np.float32)
    found, measured = nearest_neighbours(rows, rows, 8, metric=metric)
    assert (measured[:, :4] == 0).all()
    np.testing.assert_array_equal(found[:, :4], np.arange(160)[:, None] // 4 * 4 + np.arange(4))
    assert (np.diff(found[:, 4:], axis=1) == 1).all()  # the next nearest quadruple ties too
    alone = nearest_neighbours(rows, rows, 3, metric=metric, exclude_self=True)[0]
    assert not (alone == np.arange(160)[:, None]).any()
    assert (alone // 4 == np.arange(160)[:, None] // 4).all()


def test_small_distances_keep_their_digits():
    base = np.array([[1000.0, 1000.0], [1000.0, 1001.0]], dtype=np.float32)
    query = np.array([[1000.0, 1000.0078125]], dtype=np.float32)
    measured = nearest_neighbours(query, base, 1, metric="euclidean")[1]
    np.testing.assert_allclose(measured, [[0.0078125]], rtol=1e-6)


def test_mapped_half_precision_and_views(tmp_path):
    rows = RNG.standard_normal((500, 16)).astype(np.float16)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    keep = np.arange(0, 500, 2)
    expected = nearest_neighbours(rows[keep], rows, 3)
    actual = nearest_neighbours(RowView(mapped, keep), mapped, 3, memory_bytes=1 << 10)
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_allclose(actual[1], expected[1], atol=1e-6)


def test_errors():
    rows = np.ones((4, 3), dtype=np.float32)
    for k, options in ((5, {}), (0, {}), (4, {"exclude_self": True})):
        with pytest.raises(DataPrunerError, match=f"k = {k} neighbours"):
            nearest_neighbours(rows, rows, k, **options)
    with pytest.raises(DataPrunerError, match="same model"):
        nearest_neighbours(rows, rows[:, :2], 1)
    with pytest.raises(DataPrunerError, match="same rows"):
        nearest_neighbours(rows, rows[:3], 1, exclude_self=True)
    with pytest.raises(DataPrunerError, match="metric"):
        nearest_neighbours(rows, rows, 1, metric="dot")
    for metric in ("cosine", "euclidean"):
        bad = rows.copy()
        bad[2, 1] = np.nan
        with pytest.raises(DataPrunerError, match=r"^Row 2 "):
            nearest_neighbours(bad, rows, 1, metric=metric)
    bad[2] = 0
    with pytest.raises(DataPrunerError, match=r"^Row 2 .*no direction"):
        nearest_neighbours(rows, bad, 1)
    nearest_neighbours(rows, bad, 1, metric="euclidean")
