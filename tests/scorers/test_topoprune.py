"""TopoPrune against loops, finite differences, planted truths, and its promises end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.geometry.neighbours import neighbour_table
from datapruner.geometry.persistence import merge_order, pairs
from datapruner.scorers import TopoPrune
from datapruner.scorers._displacement import loss, optimise
from datapruner.signals import Signals
from tests.conftest import command, without_progress


def blobs(n=240, d=12, k=3, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    return (rng.normal(size=(k, d))[label] * 3 + spread * rng.normal(size=(n, d))).astype(np.float32), label


def signals(rows, label, seed=0):
    return Signals(
        len(rows),
        {
            "embedding": rows,
            "neighbours": neighbour_table(rows, 10).indices,
            "manifold": rows[:, :2].astype(np.float64),
            "label": label,
        },
        seed,
    )


@pytest.mark.parametrize("weights", [(1.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.5, 2.0, 0.3), (0.0, 1.0, 0.1)])
def test_one_step_is_the_gradient_of_the_loss(weights):
    points = np.random.default_rng(0).normal(size=(40, 2))
    groups = np.repeat([0, 1], 20)
    moved = optimise(points, groups, steps=1, step_size=0.1, weights=weights)
    tiny = 1e-6
    for rows in (np.arange(20), np.arange(20, 40)):
        own = points[rows]
        unit = np.median(minimum_spanning_tree(squareform(pdist(own))).data)
        scaled = own / unit

        def value(at, start=scaled):
            found = pairs(at)
            return loss(torch.from_numpy(at), torch.from_numpy(start), [found], weights).item()

        gradient = np.zeros_like(scaled)
        for place in np.ndindex(*scaled.shape):
            up, down = scaled.copy(), scaled.copy()
            up[place] += tiny
            down[place] -= tiny
            gradient[place] = (value(up) - value(down)) / (2 * tiny)
        np.testing.assert_allclose(
            moved.displacement[rows], 0.1 * np.linalg.norm(gradient, axis=1), atol=1e-6
        )


def test_optimising_shortens_the_tree_and_opens_the_loops():
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 60)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) + 0.05 * np.random.default_rng(1).normal(
        size=(60, 2)
    )
    groups = np.zeros(60, np.int64)
    tree = optimise(ring, groups, steps=20, step_size=0.05, weights=(1.0, 0.0, 0.0))
    hole = optimise(ring, groups, steps=20, step_size=0.05, weights=(0.0, 1.0, 0.0))

    def deaths(diagram, dimension):
        own = diagram[diagram[:, 1] == dimension]
        return own[:, 3] - own[:, 2]

    assert deaths(tree.after, 0).sum() < deaths(tree.before, 0).sum()
    assert deaths(hole.after, 1).max() > deaths(hole.before, 1).max() > 0.5


def test_scale_of_a_group_does_not_matter_but_its_shape_does():
    points = np.random.default_rng(3).normal(size=(80, 2))
    both = np.concatenate([points, 1000 * points + 5])
    moved = optimise(both, np.repeat([0, 1], 80), steps=5, step_size=0.1).displacement
    np.testing.assert_allclose(moved[:80], moved[80:], rtol=1e-6)


def test_rows_explain_themselves():
    rows, label = blobs()
    held = TopoPrune().score(signals(rows, label))
    # What carries the paper's name scores by what the paper names.
    np.testing.assert_array_equal(held.values, held.columns["displacement"])
    assert held.values.std() > 0
    for name in (
        "topology_group",
        "displacement",
        "entanglement",
        "h0_death",
        "h1_birth",
        "h1_death",
        "walk_place",
    ):
        assert name in held.columns
    np.testing.assert_array_equal(held.columns["topology_group"], label)
    np.testing.assert_array_equal(held.columns["manifold_2"], rows[:, 1])
    own = pairs(rows[label == 1, :2].astype(np.float64))
    points = rows[label == 1, :2].astype(np.float64)
    ends = np.linalg.norm(points[own.merges[:, 0]] - points[own.merges[:, 1]], axis=1) / 2
    longest = [ends[(own.merges == place).any(axis=1)].max() for place in range(len(points))]
    np.testing.assert_allclose(held.columns["h0_death"][label == 1], longest)
    loops = set(np.concatenate([own.births, own.deaths], axis=1).reshape(-1).tolist())
    taking_part = held.columns["h1_death"][label == 1] > 0
    assert set(np.flatnonzero(taking_part).tolist()) == loops


def test_the_walk_keeps_neighbours_together():
    points = np.random.default_rng(0).random((2000, 2))
    order = merge_order(2000, pairs(points))
    assert sorted(order.tolist()) == list(range(2000))
    steps = np.linalg.norm(np.diff(points[order], axis=0), axis=1)
    by_chance = np.linalg.norm(points[1:] - points[:-1], axis=1)
    assert np.median(steps) < 0.1 * np.median(by_chance)


def test_groups_come_from_labels_then_clusters_then_a_column():
    rows, label = blobs()
    assert len(np.unique(TopoPrune().score(signals(rows, label)).groups)) == 3
    clustered = TopoPrune(n_clusters=5).score(signals(rows, np.zeros_like(label))).groups
    assert len(np.unique(clustered)) == 5
    assert TopoPrune(within="kind").requires == {"manifold", "neighbours", "column:kind"}
    assert TopoPrune(within="cluster").requires == {"manifold", "neighbours", "embedding"}


@pytest.mark.parametrize("value", ["displacement", "entanglement"])
def test_tiny_and_equal_groups(value):
    rows, label = blobs(30)
    label[:] = 0
    label[3], label[4:6] = 7, 9
    rows[10:20] = rows[10]
    held = TopoPrune(value=value).score(signals(rows, label))
    assert np.isfinite(held.values).all()
    assert held.columns["displacement"][3] == 0
    assert len(set(held.values[10:20].tolist())) == 1


def test_parameters_without_meaning_are_refused():
    for bad in (
        {"steps": 0},
        {"walk": -1},
        {"step_size": 0.0},
        {"anchor": -1.0},
        {"h0_weight": 0.0, "h1_weight": 0.0},
        {"value": "depth"},
    ):
        with pytest.raises(DataPrunerError):
            TopoPrune(**bad)
    rows, label = blobs()
    flat = signals(rows, label)
    deep = Signals(240, {**flat.measured, "manifold": rows[:, :4].astype(np.float64)})
    with pytest.raises(DataPrunerError, match="manifold_dimensions=2"):
        TopoPrune().score(deep)


@pytest.fixture
def source(tmp_path):
    rows, label = blobs(200)
    rows[150:160] = rows[:10]
    label[150:160] = label[:10]
    data = [
        {"embedding": row.tolist(), "label": f"kind {kind}"} for row, kind in zip(rows, label, strict=True)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    return path


@pytest.mark.parametrize("manifold", ["umap", "pca"])
def test_end_to_end_same_bytes_and_equal_scores_of_duplicates(source, tmp_path, monkeypatch, manifold):
    """In this process; tests/signals/test_embedding.py compares its bytes with those of another one."""
    monkeypatch.setenv("DATAPRUNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    line = ["prune", source, "--scorer", "topoprune", "--manifold", manifold, "--keep", "0.3"]
    assert command(monkeypatch, *line, "-o", "one") == 0
    (tmp_path / "cache").rename(tmp_path / "elsewhere")  # nothing is taken from the first run
    assert command(monkeypatch, *line, "-o", "two") == 0
    assert command(monkeypatch, "run", "one/recipe.yaml", "-o", "three") == 0  # what it reads is in the cache
    for file in ("selection.parquet", "data/train-00000-of-00001.parquet", "README.md"):
        texts = [(tmp_path / name / file).read_bytes() for name in ("one", "two", "three")]
        assert texts[0] == texts[1] == texts[2], file
    told = dp.explain(tmp_path / "one", 3)
    copy = dp.explain(tmp_path / "one", 153)
    assert told["score"] == copy["score"]
    assert told["walk_place"] == copy["walk_place"]
    assert "stratum" in told["reason"] or "highest scores" in told["reason"]
    assert {"displacement", "h0_death", "h1_birth", "h1_death", "topology_group"} <= told.keys()


def test_the_manifold_is_measured_once(source, tmp_path, monkeypatch):
    from datapruner.geometry import manifold as manifolds
    from datapruner.geometry import neighbours

    calls = []
    for module, name in ((manifolds, "manifold"), (neighbours, "neighbour_table")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, o=original, n=name, **k: calls.append(n) or o(*a, **k))
    options = {"cache": tmp_path / "cache", "progress": False}
    first = dp.prune(str(source), scorer="topoprune", keep=0.3, **options)
    second = dp.prune(str(source), scorer="topoprune", keep=0.3, **options)
    assert sorted(calls) == ["manifold", "neighbour_table"]
    assert first.kept.tolist() == second.kept.tolist()


def test_one_row_and_few_rows(tmp_path):
    for n in (1, 2, 3, 5):
        rows, label = blobs(n)
        data = Dataset.from_dict({"embedding": rows.tolist(), "label": label.tolist()})
        selection = dp.prune(data, scorer="topoprune", keep=1, cache=tmp_path, progress=False)
        assert len(selection) == 1


def test_more_dimensions_than_there_are_is_one_sentence(source, tmp_path, monkeypatch, capfd):
    line = [
        "prune",
        source,
        "--scorer",
        "topoprune",
        "--manifold",
        "pca",
        "--keep",
        5,
        "-o",
        tmp_path / "out",
    ]
    for dimensions, said in ((13, "1 to 12 dimensions"), (4, "--manifold-dimensions 2")):
        assert command(monkeypatch, *line, "--manifold-dimensions", dimensions) == 2
        err = capfd.readouterr().err
        assert said in err
        assert len(without_progress(err).splitlines()) == 1
        assert not (tmp_path / "out").exists()
