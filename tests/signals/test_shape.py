"""The records of a whole set of vectors: found again for the same set, and in nobody else's way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.geometry.neighbours import neighbour_table
from datapruner.recipe import Recipe
from datapruner.signals.shape import measure_shape
from datapruner.signals.store import SignalStore
from tests.conftest import examples

VECTORS = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
VECTORS[20:] = VECTORS[:4]
RECIPE = Recipe(source="rows.jsonl", keep=0.5, n_neighbors=6, manifold="pca")


def measured(folder, vectors):
    store = SignalStore(folder)
    return measure_shape(RECIPE, vectors, store, neighbours=True, manifold=True), store.computed


def test_sets_of_fewer_distinct_rows_than_neighbours_do_no_harm_to_others(tmp_path, caplog):
    sets = [VECTORS[:3], VECTORS, np.ones((24, 5), np.float32), VECTORS[[0, 1, 0, 1]], VECTORS[:3] * 2]
    first = [measured(tmp_path, vectors)[0] for vectors in sets]
    again = [measured(tmp_path, vectors) for vectors in sets]
    assert [computed for _, computed in again] == [0] * len(sets)
    assert not caplog.records
    for vectors, one, (other, _) in zip(sets, first, again, strict=True):
        np.testing.assert_array_equal(one["neighbours"], neighbour_table(vectors, 6).indices)
        for name in ("neighbours", "manifold"):
            np.testing.assert_array_equal(one[name], other[name])
    assert first[0]["neighbours"].shape == (3, 3)
    assert first[2]["neighbours"].shape == (24, 1)


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), min_size=2, max_size=6))
def test_any_sets_in_any_order_share_a_cache(tmp_path_factory, sets):
    shared = tmp_path_factory.mktemp("shared")
    for rows, distinct in sets:
        vectors = VECTORS[np.arange(rows) % distinct]
        fresh = measured(tmp_path_factory.mktemp("fresh"), vectors)[0]
        held = measured(shared, vectors)[0]
        assert {name: value.tobytes() for name, value in held.items()} == {
            name: value.tobytes() for name, value in fresh.items()
        }
