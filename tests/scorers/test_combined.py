"""Joined scorers against scipy's ranks, pymcdm and loops over groups."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata

import datapruner as dp
from datapruner.geometry.clustering import spherical_kmeans
from datapruner.scorers import IFD, Combined, Length, Perplexity
from datapruner.scorers.base import Ranking
from datapruner.testing import example_signals

N = 200
THREE = ["perplexity", {"name": "ifd", "parameters": {"keep": "low"}}, {"name": "length"}]


@pytest.fixture(scope="module")
def signals():
    made = example_signals(N)
    rng = np.random.default_rng(0)
    more = {
        # Rounded, so that there are ties.
        "log_ppl": np.round(made["log_ppl"], 1),
        # 3 is empty: cleaning may leave no row of a value.
        "column:kind": rng.choice([0, 1, 2, 4], size=N, p=[0.6, 0.3, 0.07, 0.03]),
        "column:cluster": np.arange(N) % 2,
    }
    return replace(made, measured={**made.measured, **more})


def scores_of(signals):
    return np.column_stack(
        [scorer.score(signals).values for scorer in (Perplexity(), IFD(keep="low"), Length())]
    )


def joined(scores, by):
    from pymcdm.methods import TOPSIS  # which imports pyplot

    ranks = np.column_stack([(rankdata(column) - 0.5) / len(scores) for column in scores.T])
    if by == "mean_rank":
        return ranks.mean(axis=1)
    if by == "worst_rank":
        return ranks.min(axis=1)
    k = scores.shape[1]
    return TOPSIS()(scores, np.full(k, 1 / k), np.ones(k), validation=False)


@pytest.mark.parametrize("by", ["worst_rank", "mean_rank", "topsis"])
@pytest.mark.parametrize("within", [None, "kind", "cluster", "column:cluster"])
def test_equals_a_loop_over_the_groups(signals, by, within):
    ranking = Combined(THREE, by=by, within=within, n_clusters=5 if within == "cluster" else None).score(
        signals
    )
    scores = scores_of(signals)
    expected = joined(scores, by)
    groups = {
        None: None,
        "kind": signals["column:kind"],
        "cluster": spherical_kmeans(signals["embedding"], 5, seed=0).assignment,
        "column:cluster": signals["column:cluster"],
    }[within]
    if groups is not None:
        for group in set(groups.tolist()):
            rows = np.flatnonzero(groups == group)
            if len(rows) >= 10:
                expected[rows] = joined(scores[rows], by)
        assert np.array_equal(ranking.groups, groups)
    else:
        assert ranking.groups is None
    assert ranking.group_weights is None
    np.testing.assert_allclose(ranking.values, expected, rtol=0, atol=2e-9)


def test_small_groups_are_ranked_in_the_whole_set(signals):
    whole = Combined(THREE).score(signals)
    groups = signals["column:kind"]
    sizes = np.bincount(groups)
    assert 2 <= sizes[4] < 10 <= sizes[2]
    inside = Combined(THREE, within="kind").score(signals)
    assert np.array_equal(inside.values[groups == 4], whole.values[groups == 4])
    assert not np.array_equal(inside.values[groups == 2], whole.values[groups == 2])
    exactly = Combined(THREE, within="kind", min_group=int(sizes[2])).score(signals)
    assert np.array_equal(exactly.values, inside.values)
    every = Combined(THREE, within="kind", min_group=1).score(signals)
    assert not np.array_equal(every.values[groups == 4], whole.values[groups == 4])
    np.testing.assert_allclose(every.columns["length_rank"][groups == 4].mean(), 0.5)
    none = Combined(THREE, within="kind", min_group=1000).score(signals)
    assert np.array_equal(none.values, whole.values)


def test_equal_worst_ranks_are_told_apart_by_the_mean_rank():
    # Rows 2 and 3 change places in the first two columns; the third decides.
    held = {
        "el2n": np.array([1.0, 2.0, 4.0, 3.0]),
        "log_ppl": np.array([4.0, 3.0, 2.0, 1.0]),
        "grad_norm": np.array([1.0, 2.0, 3.0, 4.0]),
    }
    signals = replace(example_signals(4), measured=held)
    two = Combined(["el2n", "perplexity"]).score(signals).values
    np.testing.assert_allclose(two, [0.125, 0.375, 0.625, 0.625], atol=2e-9)
    assert two[2] == two[3]
    three = Combined(["el2n", "perplexity", "grad_norm"]).score(signals).values
    np.testing.assert_allclose(three, two, atol=2e-9)
    assert three[3] > three[2]


def test_the_second_key_never_overturns_the_worst_rank(signals):
    ranking = Combined(THREE, within="kind").score(signals)
    worst = np.min([ranking.columns[f"{name}_rank"] for name in ("perplexity", "ifd", "length")], axis=0)
    order = np.argsort(ranking.values)
    assert (np.diff(worst[order]) >= -1e-9).all()
    assert (np.abs(ranking.values - worst) < 1e-9).all()
    assert ((ranking.values > 0) & (ranking.values < 1)).all()


def test_columns_tell_every_scorers_part(signals):
    ranking = Combined(THREE, within="kind").score(signals)
    assert list(ranking.columns) == [
        *(f"{name}_{part}" for name in ("perplexity", "ifd", "length") for part in ("score", "rank")),
        *("log_ppl", "ifd", "response_log_ppl", "num_supervised_tokens"),
    ]
    scores = scores_of(signals)
    for number, name in enumerate(("perplexity", "ifd", "length")):
        sign = 1 if name == "length" else -1  # low is kept, and what is shown is the quantity itself
        assert np.array_equal(ranking.columns[f"{name}_score"], sign * scores[:, number])
    assert np.array_equal(ranking.columns["perplexity_score"], signals["log_ppl"])
    assert np.array_equal(ranking.columns["ifd"], IFD().score(signals).columns["ifd"])
    assert "cluster" in Combined(THREE, within="cluster").score(signals).columns


def test_a_scorer_twice_gets_a_number(signals):
    scorer = Combined(["ifd", {"name": "ifd", "parameters": {"keep": "low"}}, "length"], by="mean_rank")
    assert list(scorer.members) == ["ifd", "ifd_2", "length"]
    ranking = scorer.score(signals)
    assert np.array_equal(ranking.columns["ifd_score"], IFD().score(signals).values)
    assert np.array_equal(ranking.columns["ifd_2_score"], -IFD(keep="low").score(signals).values)


def test_requires_and_promises_follow_from_the_scorers():
    assert Combined().requires == {"log_ppl", "response_log_ppl"}
    assert Combined(within="cluster").requires == {"log_ppl", "response_log_ppl", "embedding"}
    assert Combined(within="kind").requires == {"log_ppl", "response_log_ppl", "column:kind"}
    assert Combined(within="column:cluster").requires == {"log_ppl", "response_log_ppl", "column:cluster"}
    finite = {"name": "donod", "parameters": {"step_size": 0.1}}
    assert "weight_norm" in Combined(["length", finite]).requires
    assert "weight_norm" not in Combined(["length", "donod"]).requires
    assert Combined().promises == Combined(within="kind").promises == {"permutation", "duplicates"}
    assert Combined(within="cluster").promises == {"duplicates"}
    assert Combined(["length", "prototypes"]).promises == {"duplicates"}
    assert Combined(["length", "random"]).promises == frozenset()


def test_a_row_bad_by_either_scorer_comes_last():
    signals = example_signals(100)
    held = {name: np.array(signals[name]) for name in ("log_ppl", "response_log_ppl")}
    held["log_ppl"][:] = np.linspace(1, 2, 100)
    held["response_log_ppl"][:] = 2 * held["log_ppl"]
    held["log_ppl"][3] = 9.0  # improbable
    held["response_log_ppl"][3] = 18.0
    held["response_log_ppl"][5] = 0.9  # its prompt hinders
    values = Combined().score(replace(signals, measured=held)).values
    assert set(np.argsort(values)[:2].tolist()) == {3, 5}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"scorers": ["length"]}, "two scorers"),
        ({"scorers": []}, "two scorers"),
        ({"scorers": ["length", "lenght"]}, "Did you mean 'length'"),
        ({"scorers": ["length", {"name": "ifd", "parameters": {"kep": "low"}}]}, "no parameter 'kep'"),
        ({"scorers": ["length", {"name": "ifd", "parameters": {"keep": "Low"}}]}, "'ifd': keep"),
        ({"scorers": ["length", {"name": "ifd", "keep": "low"}]}, "`name` and `parameters`"),
        ({"scorers": ["length", {"parameters": {}}]}, "`name` and `parameters`"),
        ({"scorers": ["length", {"name": "ifd", "parameters": "low"}]}, "`name` and `parameters`"),
        ({"scorers": ["length", {"name": 3}]}, "a scorer is a name"),
        ({"scorers": ["length", 3]}, "scorers"),
        ({"scorers": "length"}, "scorers"),
        ({"by": "best_rank"}, "'combined': by"),
        ({"n_clusters": 3}, "n_clusters is for within=cluster"),
        ({"n_clusters": 3, "within": "kind"}, "n_clusters is for within=cluster"),
        ({"within": ""}, "within"),
        ({"within": "column:"}, "within"),
        ({"min_group": 0}, "min_group"),
    ],
)
def test_meaningless_parameters_are_refused_at_construction(parameters, said):
    with pytest.raises(dp.DataPrunerError, match=said):
        Combined(**parameters)


def test_a_missing_column_has_its_sentence(signals):
    with pytest.raises(dp.DataPrunerError, match="column:colour"):
        Combined(THREE, within="colour").score(signals)


def test_an_error_of_a_scorer_passes_through(signals):
    broken = np.array(signals["log_ppl"])
    broken[7] = np.inf
    with pytest.raises(dp.DataPrunerError, match=r"log_ppl.*row 7"):
        Combined(THREE).score(replace(signals, measured={**signals.measured, "log_ppl": broken}))


def test_many_rows_and_groups_take_little_time():
    rng = np.random.default_rng(0)
    n = 200_000
    held = {
        "el2n": rng.random(n),
        "log_ppl": rng.random(n),
        "column:kind": rng.integers(0, 2000, size=n),
    }
    signals = replace(example_signals(20), num_rows=n, measured=held)
    start = time.process_time()
    assert isinstance(Combined(["el2n", "perplexity"], within="kind").score(signals), Ranking)
    assert time.process_time() - start < 5


def test_a_recipe_holds_it(tmp_path):
    data = [{"prompt": f"question {row}", "completion": "word " * (row % 7 + 1)} for row in range(40)]
    scorers = [{"name": "length", "parameters": {"shortest": True}}, "length", "random"]
    scorer = Combined(scorers, by="mean_rank")
    scores = dp.score(data, scorers=scorer)
    scores.save(tmp_path / "scores")
    assert "shortest: true" in (tmp_path / "scores" / "recipe.yaml").read_text()
    from datapruner.scores import load_scores

    again = load_scores(tmp_path / "scores", source=data)
    assert again.scorers["combined"] == scorer
    assert np.array_equal(again.select(keep=10).kept, scores.select(keep=10).kept)
    explained = again.select(keep=10).explain(0)
    assert explained["length_rank"] + explained["length_2_rank"] == pytest.approx(1)
