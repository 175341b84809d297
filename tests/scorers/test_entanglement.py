"""Entanglement against every walk, planted wrong labels, and TopoPrune's value of that name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.geometry.neighbours import neighbour_table
from datapruner.scorers import Entanglement, TopoPrune
from datapruner.scorers._topology import entanglement
from datapruner.selection.budget_rows import Portion
from tests.conftest import examples
from tests.scorers.test_topoprune import blobs, signals


def walk_by_loops(neighbours, groups, walk):
    """Follow every walk of the graph, weighted by its chance."""
    out = []
    for row in range(len(groups)):
        chance = {int(to): 1 / (neighbours.shape[1] - 1) for to in neighbours[row, 1:]}
        for _ in range(walk):
            after = {}
            for at, weight in chance.items():
                after[at] = after.get(at, 0) + weight / 2
                for to in neighbours[at, 1:].tolist():
                    after[to] = after.get(to, 0) + weight / 2 / (neighbours.shape[1] - 1)
            chance = after
        out.append(sum(weight for at, weight in chance.items() if groups[at] != groups[row]))
    return np.array(out)


@pytest.mark.parametrize("walk", [0, 1, 3])
@pytest.mark.parametrize("k", [2, 40])
def test_entanglement_equals_following_every_walk(walk, k):
    rows, label = blobs(150, k=k, spread=2.0)
    near = neighbour_table(rows, 6).indices
    np.testing.assert_allclose(entanglement(near, label, walk), walk_by_loops(near, label, walk), atol=1e-12)


def test_entanglement_of_equal_rows_in_two_groups_is_shared():
    near = np.array([[0, 1], [1, 0], [0, 1], [0, 1]])
    # Rows 0, 2 and 3 are one point: twice group 0, once group 1. Row 1's neighbour is that point.
    found = entanglement(near, np.array([0, 1, 0, 1]), 0)
    np.testing.assert_allclose(found, [1, 2 / 3, 1, 0])


def test_planted_wrong_labels_are_the_most_entangled():
    rows, label = blobs(400, k=4, spread=0.7)
    wrong = np.random.default_rng(1).choice(400, 30, replace=False)
    planted = label.copy()
    planted[wrong] = (label[wrong] + 1) % 4
    found = entanglement(neighbour_table(rows, 15).indices, planted, 2)
    assert set(np.argsort(-found)[:30].tolist()) == set(wrong.tolist())


@given(st.integers(0, 2**31), st.integers(2, 90), st.integers(1, 5), st.sampled_from([None, "cluster"]))
@settings(max_examples=examples(25), deadline=None)
def test_what_topoprune_called_its_value_is_this_scorer_row_for_row(seed, n, k, within):
    """Recipes of before name topoprune and the value; moving to the new name changes nothing that is kept."""
    rows, label = blobs(n, k=k, seed=seed, spread=2.0)
    rows[: n // 4] = rows[0]
    options = {"within": within, "keep": "low" if seed % 2 else "high", "walk": seed % 3}
    held = signals(rows, label, seed)
    old, new = TopoPrune(value="entanglement", **options), Entanglement(**options)
    before, now = old.score(held), new.score(held)
    np.testing.assert_array_equal(before.values, now.values)
    for name in now.columns:
        np.testing.assert_array_equal(before.columns[name], now.columns[name])
    portion = Portion(np.arange(n), np.ones(n, np.int64), max(1, n // 3))
    kept = [
        scorer.selector().select(ranking, portion, np.random.default_rng(0)).kept.tolist()
        for scorer, ranking in ((old, before), (new, now))
    ]
    assert kept[0] == kept[1]


def test_density_and_parameters():
    rows, label = blobs(120, spread=2.0)
    plain, dense = (Entanglement(density_weight=w).score(signals(rows, label)) for w in (0.0, 1.0))
    assert not np.array_equal(plain.values, dense.values)
    np.testing.assert_array_equal(plain.columns["entanglement"], dense.columns["entanglement"])
    for bad in ({"walk": -1}, {"density_weight": -0.5}, {"keep": "middle"}):
        with pytest.raises(DataPrunerError):
            Entanglement(**bad)
    deep = signals(rows, label)
    deep.measured["manifold"] = rows[:, :4].astype(np.float64)
    with pytest.raises(DataPrunerError, match="manifold_dimensions=2"):
        Entanglement().score(deep)


def test_nothing_is_optimised():
    """No step of an optimiser, so that torch stays unloaded."""
    code = (
        "import sys; from datapruner.testing import example_signals; from datapruner.scorers import Entanglement; "
        "Entanglement().score(example_signals(40)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
