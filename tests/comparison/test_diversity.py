"""How diverse what is kept is, against a transcription of the released code and plain loops."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datapruner as dp
from datapruner.comparison import diversity as module
from datapruner.comparison.diversity import Pool, novelsum
from datapruner.signals import TARGET, Signals


def transcribed(pool, rows, neighbours=10, power=0.5):
    """NovelSum as published: cosine distances, inverse ranks, density among the distinct rows of the pool."""
    unit = pool / np.linalg.norm(pool, axis=1, keepdims=True)
    distinct = np.unique(unit, axis=0)
    values = []
    for row in unit[rows]:
        squares = np.sort(((distinct - row) ** 2).sum(axis=1))[1 : neighbours + 1]
        distances = np.sort(1 - unit[rows] @ row)
        weights = 1 / np.arange(1, len(rows) + 1)
        values.append(np.average(distances, weights=weights) / (squares.mean() + 1e-9) ** power)
    return float(np.mean(values))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(12, 40), st.data())
def test_novelsum_is_the_released_codes(seed, n, data):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 5)).astype(np.float32)
    copies = rng.integers(0, n, 3)
    vectors[copies] = vectors[0]
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
    signals = Signals(n, {"embedding": vectors})
    assert Pool(signals).of(rows).novelsum == pytest.approx(
        transcribed(vectors.astype(np.float64), rows), rel=1e-3, abs=1e-5
    )


def test_of_large_selections_a_sample_tells_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(600, 8)).astype(np.float32)
    rows, signals = np.arange(0, 600, 2), Signals(600, {"embedding": vectors})
    whole = Pool(signals).of(rows).novelsum
    monkeypatch.setattr(module, "JUDGED", 100)
    some = Pool(signals).of(rows).novelsum
    assert some != whole
    assert some == pytest.approx(whole, rel=0.03)
    monkeypatch.setattr(module, "AMONG", 200)
    assert Pool(signals).of(rows).novelsum == pytest.approx(whole, rel=0.1)
    assert Pool(Signals(600, {"embedding": vectors}, seed=1)).of(rows).novelsum != some


def test_blocks_do_not_change_it():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    density = rng.random(50)
    one = [novelsum(vectors, np.array([place]), density[[place]]) for place in range(50)]
    assert novelsum(vectors, np.arange(50), density) == pytest.approx(np.mean(one))
    assert np.isnan(novelsum(vectors, np.arange(0), density[:0]))


def test_spread_rows_are_more_diverse_than_copies_and_one_cluster():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 16))
    vectors = np.repeat(centres, 30, axis=0) + 0.1 * rng.normal(size=(300, 16))
    vectors[:30] = vectors[0]
    pool = Pool(Signals(300, {"embedding": vectors.astype(np.float32)}))
    spread, cluster, copies = (
        pool.of(rows).novelsum for rows in (np.arange(15, 300, 30), np.arange(30, 40), np.arange(10))
    )
    assert spread > cluster > copies == pytest.approx(0, abs=1e-3)


def test_similarity_to_a_target_is_that_of_the_nearest_kept_row():
    rng = np.random.default_rng(0)
    vectors, target = (rng.normal(size=(n, 6)).astype(np.float32) for n in (80, 9))
    rows = np.arange(3, 80, 7)
    found = Pool(Signals(80, {"embedding": vectors, TARGET: target})).of(rows).target_similarity
    cosines = target @ vectors[rows].T
    cosines /= np.outer(np.linalg.norm(target, axis=1), np.linalg.norm(vectors[rows], axis=1))
    assert found == pytest.approx(cosines.max(axis=1).mean(), rel=1e-5)


def test_a_comparison_tells_and_saves_it(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    vectors[40:] = vectors[20:40]
    rows = [{"text": f"row number {n}"} for n in range(60)]
    rows[1] = rows[0]
    found = dp.compare(rows, scorers="k_center", embeddings=vectors, keep=[0.2, 0.5], dedup=["exact"])
    frame = found.diversity_frame().set_index(["budget", "scorer"])["novelsum"]
    left = np.delete(np.arange(60), 1)
    for at in found.budgets:
        assert frame[at.label, "(all rows)"] == pytest.approx(
            transcribed(vectors[left], np.arange(59)), rel=1e-3
        )
        for name, selection in at.selections.items():
            kept = np.searchsorted(left, np.flatnonzero(selection.kept))
            assert frame[at.label, name] == pytest.approx(transcribed(vectors[left], kept), rel=1e-3)
        assert frame[at.label, "k_center"] > frame[at.label, "random"]
    assert "NovelSum" in found.describe()
    assert f"{frame['0.2 of the rows', 'k_center']:.3f}" in found.describe()
    found.save(tmp_path / "out")
    with (tmp_path / "out" / "diversity.csv").open() as file:
        assert [row["scorer"] for row in csv.DictReader(file)][:2] == ["(all rows)", "k_center"]


def test_without_vectors_nothing_is_told():
    rows = [{"text": f"row number {n}"} for n in range(20)]
    found = dp.compare(rows, scorers="length", keep=0.5)
    assert found.diversity_frame().empty
    assert "NovelSum" not in found.describe()
