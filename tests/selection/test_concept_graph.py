"""The concept consistency graph: a constructed set with known conflicts, and a matrix of all pairs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datapruner.selection.concept_graph import ConceptGraph

TREE, GRAPH, SORT, HEAP, CAKE, OVEN = range(6)
ROWS = st.lists(st.lists(st.integers(0, 7), max_size=5), max_size=25)


def walk(rows):
    """Go through rows and accept each that is in no conflict with those before: the pairs in conflict."""
    graph, pairs = ConceptGraph(), []
    for row in rows:
        pairs.append(graph.conflict(row))
        if pairs[-1] is None:
            graph.add(row)
    return graph, pairs


def test_constructed_conflicts_are_named_and_repeated_concepts_kept():
    rows = [
        ([TREE, GRAPH], None),
        ([SORT, HEAP], None),  # all new
        ([CAKE], None),
        ([GRAPH, TREE], None),  # the same again, whatever the order
        ([OVEN, TREE, SORT], (TREE, SORT)),  # both known, never together
        ([OVEN, CAKE], None),  # the row before was not accepted: OVEN is new
        ([HEAP, CAKE, SORT, TREE], (HEAP, CAKE)),  # the first of several in the row's order
        ([HEAP, HEAP], None),
        ([], None),
        ([TREE], None),
        ([OVEN, TREE], (OVEN, TREE)),
    ]
    assert walk([row for row, _ in rows])[1] == [pair for _, pair in rows]


def test_order_decides():
    assert walk([[TREE, GRAPH], [TREE], [GRAPH]])[1] == [None, None, None]
    assert walk([[TREE], [GRAPH], [TREE, GRAPH]])[1] == [None, None, (TREE, GRAPH)]


def test_asking_changes_nothing():
    graph = ConceptGraph()
    assert graph.conflict([TREE, GRAPH]) is None
    graph.add([TREE])
    graph.add([GRAPH])
    assert graph.conflict([TREE, GRAPH]) == (TREE, GRAPH)
    assert graph.conflict([GRAPH, TREE]) == (GRAPH, TREE)
    graph.add([TREE, GRAPH])
    assert graph.conflict(np.array([GRAPH, TREE])) is None


@given(ROWS)
def test_equals_a_matrix_of_all_pairs(rows):
    met = np.zeros((8, 8), dtype=bool)  # the diagonal says which concepts are known
    graph = ConceptGraph()
    for row in rows:
        apart = [
            (row[i], row[j])
            for i in range(len(row))
            for j in range(i + 1, len(row))
            if met[row[i], row[i]] and met[row[j], row[j]] and not met[row[i], row[j]]
        ]
        pair = graph.conflict(row)
        assert pair == (apart[0] if apart else None)
        if pair is None:
            graph.add(row)
            met[np.ix_(row, row)] = True


@given(ROWS)
def test_accepted_rows_stay_free_of_conflict(rows):
    graph, pairs = walk(rows)
    accepted = [row for row, pair in zip(rows, pairs, strict=True) if pair is None]
    assert all(graph.conflict(row) is None for row in accepted)
    for one, other in [(row[0], row[1]) for row in accepted if len(row) > 1]:
        assert graph.conflict([one, other]) is None


def test_large_numbers_do_not_collide():
    graph = ConceptGraph()
    top = 2**32 - 1
    graph.add([0, top])
    graph.add([top - 1])
    assert graph.conflict([0, top]) is None
    assert graph.conflict([top, top - 1]) == (top, top - 1)
