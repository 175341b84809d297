"""Semantic duplicates against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from datapruner.cleaning.steps.semantic import semantic_duplicates
from datapruner.errors import DataPrunerError


def semantic_truth(vectors, assignment, centroids, rows, *, eps, keep_rule, protected):
    """SemDeDup with full similarity matrices."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    centres = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    dropped = {}
    for c in range(len(centroids)):
        members = [i for i in rows if assignment[i] == c]
        distance = {i: 1 - float((unit[i] * centres[c]).sum()) for i in members}
        members.sort(key=lambda i: (not protected[i], -distance[i], i))
        earlier = []
        for j in members:
            cosine = unit[earlier] @ unit[j] if earlier else np.array([-9.0])
            if cosine.max() > 1 - eps and not protected[j]:
                dropped[j] = (
                    cosine.max(),
                    [earlier[i] for i in np.flatnonzero(cosine > cosine.max() - 1e-6)],
                )
                if keep_rule == "kept":
                    continue
            earlier.append(j)
    return dropped


def cloud(rng, n, k, d=16):
    centroids = rng.normal(size=(k, d)).astype(np.float32)
    assignment = rng.integers(0, k, n)
    vectors = centroids[assignment] + rng.normal(scale=0.25, size=(n, d)).astype(np.float32)
    # Copies, exact and scaled: ties in distance and cosines of one.
    for _ in range(n // 10):
        i, j = rng.integers(0, n, 2)
        vectors[i], assignment[i] = vectors[j] * rng.choice([1, 4]), assignment[j]
    return vectors.astype(np.float32), assignment, centroids


class TestSemantic:
    @pytest.mark.parametrize("keep_rule", ["kept", "any"])
    @pytest.mark.parametrize("block_size", [2048, 33])
    def test_equals_brute_force(self, keep_rule, block_size):
        rng = np.random.default_rng(2)
        vectors, assignment, centroids = cloud(rng, 5000, 12)
        assignment[rng.random(5000) < 0.02] = -1
        rows = np.flatnonzero(rng.random(5000) < 0.95)
        protected = rng.random(5000) < 0.03
        truth = semantic_truth(
            vectors, assignment, centroids, rows, eps=0.1, keep_rule=keep_rule, protected=protected
        )
        vetoes = semantic_duplicates(
            vectors, assignment, centroids, rows,
            eps=0.1, keep_rule=keep_rule, block_size=block_size, protected=protected,
        )  # fmt: skip
        assert len(truth) > 500
        assert vetoes.rows.tolist() == sorted(truth)
        for row, other, measure in zip(vetoes.rows, vetoes.others, vetoes.measures, strict=True):
            assert measure == pytest.approx(truth[row][0], abs=1e-6)
            assert other in truth[row][1]

    def test_a_chain_does_not_vanish_under_the_default(self):
        angles = np.radians([40, 30, 20, 10])
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        arguments = (vectors, np.zeros(4, dtype=int), np.array([[1.0, 0.0]]), np.arange(4))
        eps = 1 - np.cos(np.radians(12))
        assert semantic_duplicates(*arguments, eps=eps).rows.tolist() == [1, 3]
        assert semantic_duplicates(*arguments, eps=eps, keep_rule="any").rows.tolist() == [1, 2, 3]

    def test_of_equal_vectors_the_first_row_stays(self):
        vectors = np.tile(np.random.default_rng(0).normal(size=7), (50, 1)).astype(np.float16)
        vetoes = semantic_duplicates(
            vectors, np.zeros(50, dtype=int), vectors[:1], np.arange(50), block_size=8
        )
        assert vetoes.rows.tolist() == list(range(1, 50))
        assert set(vetoes.others.tolist()) == {0}

    def test_reads_a_memmap_and_keeps_clusters_apart(self, tmp_path):
        vectors, assignment, centroids = cloud(np.random.default_rng(4), 300, 5)
        np.save(tmp_path / "e.npy", vectors)
        mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
        rows = np.arange(300)
        vetoes = semantic_duplicates(mapped, assignment, centroids, rows, eps=0.1)
        direct = semantic_duplicates(vectors, assignment, centroids, rows, eps=0.1)
        assert len(vetoes) > 10
        assert vetoes.rows.tolist() == direct.rows.tolist()
        assert (assignment[vetoes.rows] == assignment[vetoes.others]).all()
        assert np.array_equal(vectors, mapped)  # the input is not scaled in place

    def test_zero_vectors_and_rows_without_cluster_stay(self):
        vectors = np.array([[0, 0], [0, 0], [1, 0], [1, 0]], dtype=np.float32)
        assert len(semantic_duplicates(vectors, [0, 0, -1, -1], np.ones((1, 2)), np.arange(4))) == 0

    def test_not_a_number_names_the_row(self):
        vectors = np.ones((3, 2))
        vectors[2, 1] = np.nan
        with pytest.raises(DataPrunerError, match="row 2 is not finite"):
            semantic_duplicates(vectors, np.zeros(3, dtype=int), np.ones((1, 2)), np.arange(3))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"eps": 0}, "eps"),
            ({"keep_rule": "best"}, "keep_rule"),
            ({"block_size": 0}, "block_size"),
            ({"assignment": [0, 0]}, "needs one of both"),
            ({"assignment": [0, 0, 3]}, "Cluster 3 has no centroid"),
            ({"rows": [0, 5]}, "needs one of both"),
        ],
    )
    def test_wrong_arguments(self, change, message):
        arguments = {
            "embeddings": np.ones((3, 2)),
            "assignment": [0] * 3,
            "centroids": np.ones((1, 2)),
            "rows": [0, 1, 2],
        }
        with pytest.raises(DataPrunerError, match=message):
            semantic_duplicates(**(arguments | change))
