"""Rows that choosers take in turn, beside the plain thing; and turns by share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.geometry.blocks import normalise_rows
from datapruner.geometry.turns import shared_turns, take_turns


def plainly(similarity, turns):
    """The whole table: whoever's turn it is takes its best row that is left, of equals the first."""
    left = set(range(len(turns)))
    rows = []
    for who in turns:
        row = min(left, key=lambda row: (-similarity[row][who], row))
        left.remove(row)
        rows.append(row)
    return rows


@given(st.integers(0, 10**9))
@settings(max_examples=200)
def test_it_is_the_plain_thing_however_little_is_kept_in_mind(seed):
    rng = np.random.default_rng(seed)
    n, m, d = int(rng.integers(1, 50)), int(rng.integers(1, 9)), int(rng.integers(4, 8))
    # Of length 2: halves of ones and minus ones, whose products are exact and equal for many.
    kinds = np.zeros((n + m, d), dtype=np.float32)
    for row in kinds:
        row[rng.permutation(d)[:4]] = rng.choice([-1, 1], 4)
    if rng.random() < 0.4:
        kinds = rng.normal(size=kinds.shape).astype(np.float32)
    rows, queries = kinds[:n], kinds[n:] / np.linalg.norm(kinds[n:], axis=1, keepdims=True)
    rows[rng.random(n) < 0.3] = rows[0]
    turns = rng.integers(0, m, size=n)
    unit = rows.copy()
    normalise_rows(unit)
    table = (unit.astype(np.float64) @ queries.T).astype(np.float32)
    found, similarity = take_turns(
        rows,
        lambda block: block.astype(np.float64) @ queries.T,
        m,
        turns,
        candidates=int(rng.integers(1, 60)),
    )
    assert found.tolist() == plainly(table.tolist(), turns.tolist())
    np.testing.assert_array_equal(similarity, table[found, turns])


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(300, 5)).astype(np.float32), rng.normal(size=(7, 5))
    rows[100:150] = rows[:50]
    turns = np.arange(300) % 7

    def taken(**how):
        return take_turns(rows, lambda block: block @ queries.T, 7, turns, **how)[0].tolist()

    whole = taken()
    monkeypatch.setattr("datapruner.geometry.turns.BLOCK", 7 * 11)
    monkeypatch.setattr("datapruner.geometry.turns.CHUNK", 3)
    assert taken() == taken(candidates=70) == taken(candidates=1) == whole


@pytest.mark.parametrize(
    ("weights", "first"),
    [([1, 1, 1], [0, 1, 2, 0, 1, 2]), ([2, 1], [0, 1, 0, 0, 1, 0]), ([0, 1], [1, 1, 1]), ([3], [0, 0])],
)
def test_turns_go_round(weights, first):
    assert sorted(shared_turns(weights, len(first)).tolist()) == sorted(first)
    if len(set(weights)) == 1:
        assert shared_turns(weights, len(first)).tolist() == first


@given(st.lists(st.integers(0, 40), min_size=1, max_size=7).filter(any), st.integers(0, 150))
def test_nobody_is_ever_a_whole_turn_from_its_share(weights, n):
    turns = shared_turns(weights, n)
    assert len(turns) == n
    for place, weight in enumerate(weights):
        had = np.cumsum(turns == place)
        # In whole numbers: |had - weight / total * so far| < 1.
        assert (np.abs(had * sum(weights) - weight * np.arange(1, n + 1)) < sum(weights)).all()
