"""D2's graph and forward messages beside plain loops, and whole selections of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

import datapruner as dp
from datapruner.geometry.neighbours import Neighbours
from datapruner.scorers import D2, Prototypes
from datapruner.scorers.d2 import symmetrised
from datapruner.scores import load_scores
from datapruner.selection.selectors.message_passing import DISTANCES, NEIGHBOURS, MessagePassingSelector
from datapruner.signals import Signals
from datapruner.testing import example_signals

N = 90


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 12))
    return (centres[rng.integers(0, 6, size=N)] + 0.4 * rng.normal(size=(N, 12))).astype(np.float32)


def graph_in_loops(vectors, k):
    """Edge -> distance, for the k nearest of every row, in both directions."""
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    edges = {}
    for i in range(len(unit)):
        apart = [(float(np.linalg.norm(unit[i] - unit[j])), j) for j in range(len(unit)) if j != i]
        for distance, j in sorted(apart)[:k]:
            edges[i, j] = edges[j, i] = distance
    return edges


@pytest.mark.parametrize(("k", "gamma"), [(1, 1.0), (5, 0.3), (10, 4.0)])
def test_forward_messages_equal_plain_loops(vectors, k, gamma):
    signals = Signals(N, {"embedding": vectors}, 0)
    ranking = D2(n_neighbors=k, gamma_forward=gamma).score(signals)
    given = Prototypes().score(signals).values
    x = (given - given.min()) / (given.max() - given.min())
    edges = graph_in_loops(vectors, k)
    graph, apart = ranking.state[NEIGHBOURS], ranking.state[DISTANCES]
    assert {(i, int(j)) for i in range(N) for j in graph[i]} == set(edges)
    for i in range(N):
        np.testing.assert_allclose(apart[i], [edges[i, int(j)] for j in graph[i]], atol=1e-6)
    messages = [sum(math.exp(-gamma * edges[i, int(j)] ** 2) * x[j] for j in graph[i]) for i in range(N)]
    np.testing.assert_allclose(ranking.columns["difficulty"], x)
    np.testing.assert_allclose(ranking.columns["message_sum"], messages, atol=1e-5)
    np.testing.assert_allclose(ranking.values, x + messages, atol=1e-5)


def test_an_edge_is_listed_at_both_ends_once():
    found = Neighbours(np.array([[1], [0], [0]]), np.array([[0.5], [0.5], [0.7]], dtype=np.float32))
    graph, apart = symmetrised(found)
    assert [row.tolist() for row in graph] == [[1, 2], [0], [0]]
    np.testing.assert_allclose(np.concatenate(list(apart)), [0.5, 0.7, 0.5, 0.7])


def test_neighbours_are_source_positions(vectors):
    rows = np.arange(3, 3 + 2 * N, 2)
    ranking = D2(n_neighbors=4).score(Signals(N, {"embedding": vectors}, 0, rows))
    plain = D2(n_neighbors=4).score(Signals(N, {"embedding": vectors}, 0))
    placed = ranking.scatter(rows, 200)
    assert len(placed.state[NEIGHBOURS]) == 200
    assert not len(placed.state[NEIGHBOURS][0])
    for place, row in enumerate(rows.tolist()):
        assert placed.state[NEIGHBOURS][row].tolist() == rows[plain.state[NEIGHBOURS][place]].tolist()


def test_any_scorer_is_the_difficulty():
    signals = example_signals()
    scorer = D2(scorer={"name": "ifd", "parameters": {"keep": "low"}}, gamma_reverse=0.2)
    assert {"embedding", "log_ppl", "response_log_ppl"} <= scorer.requires
    ranking = scorer.score(signals)
    assert "ifd" in ranking.columns
    assert ranking.columns["difficulty"].min() == 0
    assert ranking.columns["difficulty"].max() == 1
    assert scorer.selector() == MessagePassingSelector(0.2)


def test_equal_difficulties_leave_the_graph_to_decide(vectors):
    signals = Signals(N, {"embedding": vectors, "num_supervised_tokens": np.full(N, 7)}, 0)
    ranking = D2(scorer="length").score(signals)
    assert (ranking.columns["difficulty"] == 1).all()
    assert np.ptp(ranking.values) > 0


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_rows_than_neighbours(vectors, n):
    ranking = D2().score(Signals(n, {"embedding": vectors[:n]}, 0))
    assert ranking.state[NEIGHBOURS].lengths.tolist() == [n - 1] * n


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"n_neighbors": 0}, "n_neighbors"),
        ({"gamma_forward": -1.0}, "gamma_forward"),
        ({"gamma_reverse": float("nan")}, "gamma_reverse"),
        ({"scorer": "prototype"}, "'prototypes'"),
        ({"scorer": {"parameters": {}}}, "d2: a scorer is a name"),
        ({"scorer": {"name": "prototypes", "parameters": {"keep": "Hard"}}}, "keep"),
    ],
)
def test_meaningless_parameters_are_refused(parameters, said):
    with pytest.raises(dp.DataPrunerError, match=said):
        D2(**parameters)


def test_copies_are_spread_and_saved_scores_select_the_same(tmp_path, vectors, cache):
    rows = [{"text": f"row {i}", "kind": "ab"[i % 2]} for i in range(N + 10)]
    given = np.concatenate([vectors, np.repeat(vectors[:1], 10, axis=0)])
    options = {"embeddings": given, "never_keep": [5, 17], "progress": False}
    selection = dp.prune(rows, scorer="d2", keep=30, **options)
    assert len(selection) == 30
    # Of eleven equal rows the messages leave few.
    assert selection.kept[[0, *range(N, N + 10)]].sum() <= 2
    scores = dp.score(rows, scorers="d2", **options)
    scores.save(tmp_path / "scores")
    again = load_scores(tmp_path / "scores", source=rows)
    for budget in ({"keep": 30}, {"keep": 0.5, "per_group": "kind"}):
        assert np.array_equal(scores.select(**budget).kept, again.select(**budget).kept)
    assert np.array_equal(again.select(keep=30).kept, selection.kept)
