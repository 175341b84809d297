"""Clusterings and graphs are made once for all who ask for the same, and to the bit what each would have made."""

from __future__ import annotations

import gc
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.geometry import clustering, neighbours
from datapruner.geometry.clustering import default_k, spherical_kmeans
from datapruner.geometry.neighbours import knn_graph, neighbour_table
from datapruner.ragged import Ragged
from datapruner.scorers import make_scorer
from datapruner.signals import Signals
from datapruner.signals.shared import Shared
from tests.conftest import command


@pytest.fixture
def made(monkeypatch):
    """Count clusterings and graphs."""
    count = Counter()

    def counted(module, name):
        whole = getattr(module, name)

        def call(*arguments, **options):
            count[name] += 1
            return whole(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    counted(clustering, "spherical_kmeans")
    counted(neighbours, "knn_graph")
    return count


def vectors(n=300, d=16, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(12, d))[rng.integers(0, 12, n)] + 0.4 * rng.normal(size=(n, d))).astype(
        np.float32
    )


def test_a_comparison_of_eight_scorers_clusters_once_and_makes_one_graph(made, tmp_path):
    rows = [{"text": f"the {i} th text of {i % 7} kinds"} for i in range(300)]
    eight = [
        "concept_complexity",
        "prototypes",
        "k_center",
        "d2",
        "topoprune",
        "length",
        "random",
        dp.scorers.Combined(scorers=["prototypes", "length"], within="cluster"),
    ]
    options = {"embeddings": vectors(), "manifold": "pca", "cache": tmp_path, "progress": False}
    found = dp.compare(rows, scorers=eight, dedup=["semantic"], semantic_eps=1e-6, **options)
    assert made == {"spherical_kmeans": 1, "knn_graph": 1}
    for scorer in eight:  # on its own, each makes what it needs itself
        alone = dp.score(rows, scorers=scorer, **options)
        (name,) = alone.rankings
        np.testing.assert_array_equal(alone.rankings[name].values, found.scores.rankings[name].values)
    assert made["spherical_kmeans"] > 4


def test_hard_easy_and_random_rows_are_those_of_one_clustering(made):
    signals = Signals(300, {"embedding": vectors()})
    found = {
        keep: make_scorer("concept_complexity", {"keep": keep}).score(signals)
        for keep in ("hard", "easy", "random")
    }
    assert made["spherical_kmeans"] == 1
    for ranking in found.values():
        np.testing.assert_array_equal(ranking.groups, found["hard"].groups)
        np.testing.assert_array_equal(ranking.group_weights, found["hard"].group_weights)
    np.testing.assert_array_equal(found["easy"].values, -found["hard"].values)


@pytest.mark.parametrize("keep", ["hard", "easy", "random"])
def test_each_of_them_is_reached_from_the_command_line(keep, tmp_path, monkeypatch):
    x = vectors(60)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "row {i} of many"}}\n' for i in range(60)))
    line = [
        "prune",
        tmp_path / "rows.jsonl",
        "--embeddings",
        tmp_path / "x.npy",
        "--scorer",
        "concept_complexity",
    ]
    assert command(monkeypatch, *line, "--set", f"keep={keep}", "--keep", 20, "-o", tmp_path / "out") == 0
    found = pq.read_table(tmp_path / "out" / "selection.parquet").to_pandas()
    own = make_scorer("concept_complexity", {"keep": keep}).score(Signals(60, {"embedding": x}))
    np.testing.assert_array_equal(found["cluster"], own.groups)
    np.testing.assert_array_equal(found["score"], own.values)


def test_what_is_shared_is_closed():
    signals = Signals(300, {"embedding": vectors()})
    with pytest.raises(ValueError, match="read-only"):
        signals.clusters().assignment[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        signals.graph(5).indices[0] = 1


def test_other_arguments_are_another_clustering(made):
    signals = Signals(300, {"embedding": vectors(), "other": vectors(seed=1)}, seed=3)
    first = signals.clusters()
    assert signals.clusters() is first
    assert signals.clusters(5) is not first
    assert signals.clusters(iterations=3) is not first
    assert signals.clusters(of="other") is not first
    assert made["spherical_kmeans"] == 4
    np.testing.assert_array_equal(first.assignment, spherical_kmeans(vectors(), seed=3).assignment)


def test_a_number_of_clusters_that_was_asked_for_is_refused_where_the_default_is_not():
    few = np.repeat(vectors(3), 100, axis=0)
    signals = Signals(300, {"embedding": few})
    assert len(signals.clusters().centroids) == 3
    with pytest.raises(DataPrunerError, match="only 3 distinct"):
        signals.clusters(default_k(300))


@pytest.mark.parametrize("wider", [14, 40])
def test_a_wider_graph_serves_where_it_gives_the_same(made, wider):
    x = vectors()
    shared = Shared()
    shared.graph(x, wider, seed=0)
    found = shared.graph(x, 10, seed=5)
    assert made["knn_graph"] == 1
    expected = knn_graph(x, 10)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_a_wider_graph_does_not_serve_where_rows_are_alike(made):
    x = vectors(60)
    x[20:60] = x[0]
    shared = Shared()
    shared.graph(x, 20, seed=0)
    found = shared.graph(x, 5, seed=0)
    assert made["knn_graph"] == 2
    np.testing.assert_array_equal(found.indices, knn_graph(x, 5).indices)


def test_the_graph_of_a_table_is_taken_over_where_rows_are_distinct(made):
    x = vectors()
    shared = Shared()
    shared.add_table(x, neighbour_table(x, 15), seed=0)
    made.clear()
    np.testing.assert_array_equal(shared.graph(x, 14, seed=0).indices, knn_graph(x, 14).indices)
    assert not made["spherical_kmeans"]
    twice = np.concatenate([x, x[:1]])
    shared.add_table(twice, neighbour_table(twice, 15), seed=0)
    before = made["knn_graph"]
    shared.graph(twice, 14, seed=0)
    assert made["knn_graph"] == before + 1


def test_no_more_is_held_than_the_last_few(made):
    signals = Signals(300, {"embedding": vectors()})
    for k in range(2, 12):
        signals.clusters(k)
    signals.clusters(11)
    assert made["spherical_kmeans"] == 10
    signals.clusters(2)
    assert made["spherical_kmeans"] == 11


def test_vectors_that_are_gone_take_theirs_along(made):
    shared = Shared()
    for seed in range(5):
        x = vectors(seed=seed)
        shared.clusters(x, seed=0)
        shared.graph(x, 5, seed=0)
        del x
        gc.collect()
    assert not shared._clusterings
    assert not shared._graphs
    assert made["spherical_kmeans"] == 5


SIGNALS = Signals(
    2,
    {
        "log_ppl": np.zeros(2),
        "token_nll": Ragged(np.zeros(3, np.float32), np.array([0, 1, 3])),
        "embedding": np.zeros((2, 4), np.float32),
        "neighbours": np.zeros((2, 1), np.int64),
        "text": ["a", "b"],
    },
)


@pytest.mark.parametrize("how", ["column", "ragged", "matrix", "table", "texts"])
def test_a_signal_is_read_as_what_it_is(how):
    kinds = dict(zip(SIGNALS.measured, ["column", "ragged", "matrix", "table", "texts"], strict=True))
    for name, kind in kinds.items():
        if kind == how:
            assert getattr(SIGNALS, how)(name) is SIGNALS.measured[name]
        else:
            with pytest.raises(
                DataPrunerError, match=rf"'{name}' is .*: read it with signals\.{kind}\('{name}'\)"
            ):
                getattr(SIGNALS, how)(name)
    with pytest.raises(DataPrunerError, match="was not measured"):
        getattr(SIGNALS, how)("jsd")
