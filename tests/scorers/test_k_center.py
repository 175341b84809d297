"""Farthest-first traversal beside brute force, and its guarantee beside the best centres there are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

import datapruner as dp
from datapruner.scorers import KCenter
from datapruner.scorers.k_center import farthest_first
from datapruner.signals import Signals


def clouds(n, seed, d=6):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(4, d))[rng.integers(0, 4, size=n)] + 0.5 * rng.normal(size=(n, d))).astype(
        np.float32
    )


def distances(vectors):
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.linalg.norm(unit[:, None] - unit[None], axis=2)


def in_loops(apart, count, start):
    centres = [start]
    while len(centres) < count:
        nearest = [min(apart[i, c] for c in centres) if i not in centres else -1.0 for i in range(len(apart))]
        centres.append(int(np.argmax(nearest)))
    return centres


@pytest.mark.parametrize("pool_rows", [1, 3, 30, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_the_order_equals_brute_force(seed, pool_rows):
    vectors = clouds(80, seed)
    apart = distances(vectors)
    for count in (1, 2, 25, 80):
        centres, distance = farthest_first(vectors, count, 7, pool_rows=pool_rows)
        assert centres.tolist() == in_loops(apart, count, 7)
        rest = np.setdiff1d(np.arange(80), centres)
        np.testing.assert_allclose(distance[rest], apart[rest][:, centres].min(axis=1), atol=1e-3)
        for place in range(1, count):
            before = apart[centres[place], centres[:place]].min()
            np.testing.assert_allclose(distance[centres[place]], before, atol=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_never_worse_than_twice_the_best_centres(seed):
    apart = distances(vectors := clouds(11, seed, d=3))
    for k in (1, 2, 3):
        best = min(apart[:, list(some)].min(axis=1).max() for some in combinations(range(11), k))
        for start in range(11):
            centres, _ = farthest_first(vectors, k, start)
            assert apart[:, centres].min(axis=1).max() <= 2 * best + 1e-6


def test_values_are_the_order_and_then_the_distance():
    vectors = clouds(100, 0)
    ranking = KCenter(centres=0.2).score(Signals(100, {"embedding": vectors}, 3))
    order, distance = ranking.columns["center_order"], ranking.columns["center_distance"]
    best = np.argsort(-ranking.values, kind="stable")
    assert order[best[:20]].tolist() == list(range(20))
    assert (order[best[20:]] == -1).all()
    assert (np.diff(distance[best[20:]]) <= 0).all()
    assert best[0] == np.random.default_rng(3).integers(100)
    # The first picks do not depend on how far the order is computed.
    longer = KCenter(centres=1.0).score(Signals(100, {"embedding": vectors}, 3))
    assert np.argsort(-longer.values, kind="stable")[:20].tolist() == best[:20].tolist()
    assert sorted(longer.columns["center_order"].tolist()) == list(range(100))


def test_selections_are_nested_and_cover():
    vectors = clouds(200, 1)
    apart = distances(vectors)
    rows = [{"text": str(row)} for row in range(200)]
    scores = dp.score(rows, scorers="k_center", embeddings=vectors, progress=False)
    small, large = (scores.select(keep=keep) for keep in (20, 50))
    assert (large.kept | ~small.kept).all()
    random = np.random.default_rng(0).permutation(200)[:20]
    assert apart[:, small.indices].min(axis=1).max() < apart[:, random].min(axis=1).max()


def test_copies_of_centres_come_last():
    vectors = np.concatenate([clouds(20, 2)] * 3)
    assert len(farthest_first(vectors, 60, 0, pool_rows=7)[0]) == 20
    ranking = KCenter(centres=1.0).score(Signals(60, {"embedding": vectors}, 0))
    order = ranking.columns["center_order"]
    assert (order >= 0).sum() == 20
    assert (ranking.columns["center_distance"][order < 0] == 0).all()
    kept = np.argsort(-ranking.values, kind="stable")[:20] % 20
    assert sorted(kept.tolist()) == list(range(20))


@pytest.mark.parametrize("centres", [0, -3, 0.0, 1.5, float("nan"), "all"])
def test_meaningless_numbers_of_centres_are_refused(centres):
    with pytest.raises(dp.DataPrunerError, match="centres"):
        KCenter(centres=centres)


def test_more_centres_than_rows_names_both():
    with pytest.raises(dp.DataPrunerError, match=r"31 centres.*30 rows"):
        KCenter(centres=31).score(Signals(30, {"embedding": clouds(30, 0)}))


def test_the_time_is_estimated(caplog):
    with caplog.at_level("INFO"):
        farthest_first(clouds(30, 0), 12, 0, pool_rows=5)
    assert "12 centres among 30 rows" in caplog.text
