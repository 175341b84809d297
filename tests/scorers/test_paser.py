"""PASER's groups, shares and order against plain loops over the same signals."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.scorers import Paser
from datapruner.selection.budget_rows import Portion
from datapruner.signals import Signals
from datapruner.testing import check_scorer, example_signals

SKILLS = np.array([0, 0, 0, 1, 1, 1, 1, 3], dtype=np.int64)  # a column keeps its numbers: 2 has no row left


def small(**more):
    """Eight rows in the groups of a column."""
    rng = np.random.default_rng(4)
    measured = {
        "column:skill": SKILLS,
        "jsd": np.log(2) * rng.random(8),
        "num_tokens": rng.integers(1, 900, size=8),
        "num_supervised_tokens": np.array([7, 1, 12, 90, 3, 3, 40, 5]),
        "text": [f"teapot kettle {row}" for row in range(8)],
        "log_ppl": rng.random(8) + 1,
        "pruned_log_ppl": rng.random(8) + 1.2,
    }
    return Signals(8, measured | more)


def by_skill(**parameters):
    return Paser(within="skill", concepts=0, **parameters)


def means(values, groups, k):
    """The mean of every group, 0 for one without rows, in plain loops."""
    held = [[float(v) for v, g in zip(values, groups, strict=True) if g == j] for j in range(k)]
    return [math.fsum(of) / len(of) if of else 0.0 for of in held]


@pytest.mark.parametrize("n_clusters", [None, 3])
def test_clusters_are_weighed_by_their_mean_divergence(n_clusters):
    signals = example_signals()
    ranking = Paser(n_clusters=n_clusters).score(signals)
    k = len(ranking.group_weights)
    assert n_clusters is None or k == n_clusters
    assert set(ranking.groups.tolist()) == set(range(k))
    expected = means(signals["jsd"], ranking.groups, k)
    np.testing.assert_allclose(ranking.group_weights, expected, rtol=1e-12)
    np.testing.assert_allclose(ranking.columns["degradation"], np.take(expected, ranking.groups), rtol=1e-12)
    np.testing.assert_array_equal(ranking.columns["jsd"], signals["jsd"])
    np.testing.assert_array_equal(ranking.columns["cluster"], ranking.groups)
    assert ("cluster_stability" in ranking.state) == (n_clusters is None)


def test_clusters_are_those_that_were_planted():
    """Damage was planted by cluster: the mean of a beta distribution of 1 + cluster and 6."""
    rng = np.random.default_rng(0)
    planted = np.repeat([0, 1, 2], [60, 30, 30])
    embedding = (8 * np.eye(16)[planted] + 0.3 * rng.normal(size=(120, 16))).astype(np.float32)
    signals = example_signals()
    from datapruner.geometry.neighbours import neighbour_table

    held = {
        **signals.measured,
        "embedding": embedding,
        "neighbours": neighbour_table(embedding, 8).indices,
        "jsd": 0.1 * (1 + planted) + 0.01 * rng.random(120),
    }
    ranking = Paser(n_clusters=3).score(replace(signals, measured=held))
    assert len(set(zip(planted.tolist(), ranking.groups.tolist(), strict=True))) == 3
    assert ranking.groups[np.argmax(planted == 2)] == np.argmax(ranking.group_weights)


def test_the_value_is_divergence_by_the_logarithm_of_squared_tokens():
    signals = example_signals()
    expected = [
        jsd / math.log1p(tokens * tokens)
        for jsd, tokens in zip(signals["jsd"].tolist(), signals["num_tokens"].tolist(), strict=True)
    ]
    np.testing.assert_allclose(Paser(n_clusters=3).score(signals).values, expected, rtol=1e-14)
    # A row of no token costs what one of one does, and is no division by zero.
    none = small(num_tokens=np.zeros(8, np.int64))
    np.testing.assert_allclose(by_skill().score(none).values, none["jsd"] / math.log(2), rtol=1e-14)


def test_the_other_orders():
    signals = small()
    jsd, rise = signals["jsd"], signals["pruned_log_ppl"] - signals["log_ppl"]
    cost = [math.log1p(int(tokens) ** 2) for tokens in signals["num_tokens"]]
    np.testing.assert_array_equal(by_skill(efficiency="jsd").score(signals).values, jsd)
    np.testing.assert_allclose(by_skill(efficiency="loss").score(signals).values, rise)
    np.testing.assert_allclose(by_skill(efficiency="loss_per_cost").score(signals).values, rise / cost)
    typical = by_skill(efficiency="typical").score(signals).values
    for group in set(SKILLS.tolist()):
        of = np.flatnonzero(np.equal(SKILLS, group))
        np.testing.assert_allclose(typical[of], [-abs(jsd[row] - np.median(jsd[of])) for row in of])
    drawn = by_skill(efficiency="random").score(signals).values
    other = by_skill(efficiency="random").score(replace(signals, seed=1)).values
    assert sorted(drawn) != sorted(other)


def test_the_loss_as_damage_is_the_mean_rise_and_never_below_zero():
    signals = small()
    signals.measured["pruned_log_ppl"][SKILLS == 1] = signals["log_ppl"][SKILLS == 1] - 0.2
    expected = means(signals["pruned_log_ppl"] - signals["log_ppl"], SKILLS, 4)
    assert expected[1] == pytest.approx(-0.2)
    found = by_skill(degradation="loss").score(signals)
    np.testing.assert_allclose(found.group_weights, np.maximum(expected, 0), rtol=1e-12)
    assert found.columns.keys() >= {"log_ppl", "pruned_log_ppl"}


def test_gradients_are_compared_by_the_correlation_of_their_traces():
    """Matrices are made, and their products written out; the scorer sees norms and inner products alone."""
    rng = np.random.default_rng(7)
    first = rng.normal(size=(8, 5, 6))
    second = first * np.array([1, 1, 1, 0.2, 0.2, 0.2, 0.2, -1])[:, None, None] + 0.3 * rng.normal(
        size=first.shape
    )
    signals = small(
        grad_norm=np.array([np.linalg.norm(one) for one in first]),
        pruned_grad_norm=np.array([np.linalg.norm(one) for one in second]),
        gradient_dot=np.array([(one * two).sum() for one, two in zip(first, second, strict=True)]),
    )

    def trace(left, right, of):
        return np.trace(np.mean([left[row] @ right[row].T for row in of], axis=0))

    expected = np.zeros(4)
    for group in (0, 1, 3):
        of = np.flatnonzero(np.equal(SKILLS, group))
        expected[group] = 1 - trace(first, second, of) / np.sqrt(
            trace(first, first, of) * trace(second, second, of)
        )
    assert expected[3] > 1  # gradients that point away from each other
    np.testing.assert_allclose(
        by_skill(degradation="gradient").score(signals).group_weights, expected, rtol=1e-10, atol=1e-12
    )
    still = small(grad_norm=np.zeros(8), pruned_grad_norm=np.zeros(8), gradient_dot=np.zeros(8))
    assert by_skill(degradation="gradient").score(still).group_weights.tolist() == [3, 4, 0, 1]


def test_budgets():
    signals = small()
    damage, sizes = np.array(means(signals["jsd"], SKILLS, 4)), np.array([3, 4, 0, 1])
    for budget, expected in {
        "degradation": damage,
        "degradation_size": damage * sizes,
        "size": sizes,
        "uniform": np.array([1, 1, 0, 1]),
    }.items():
        np.testing.assert_allclose(by_skill(budget=budget).score(signals).group_weights, expected, rtol=1e-12)


def of_tokens(jsd, tokens, groups, k):
    """The mean of every group's tokens, each of which has its row's divergence, token by token."""
    long = [
        (value, group) for value, many, group in zip(jsd, tokens, groups, strict=True) for _ in range(many)
    ]
    return np.array(means([value for value, _ in long], [group for _, group in long], k))


@pytest.mark.parametrize("degradation", ["jsd", "loss"])
def test_budgets_by_tokens(degradation):
    signals = small()
    lost = signals["jsd"] if degradation == "jsd" else signals["pruned_log_ppl"] - signals["log_ppl"]
    tokens = signals["num_supervised_tokens"]
    damage = np.maximum(of_tokens(lost, tokens, SKILLS, 4), 0)
    sizes = np.array([20, 136, 0, 5])
    for budget, expected in {
        "token_degradation": damage,
        "token_degradation_size": damage * sizes,
        "token_size": sizes,
    }.items():
        found = by_skill(budget=budget, degradation=degradation).score(signals)
        np.testing.assert_allclose(found.group_weights, expected, rtol=1e-12)
        np.testing.assert_allclose(found.columns["degradation"], damage[SKILLS], rtol=1e-12)
    assert "num_supervised_tokens" in by_skill(budget="token_size").requires
    assert "num_supervised_tokens" not in by_skill().requires
    with pytest.raises(DataPrunerError, match="compares rows"):
        by_skill(budget="token_degradation", degradation="gradient")
    # A row whose loss counts no token is damaged in none; a group of such rows has no share.
    none = small(num_supervised_tokens=np.where(SKILLS == 3, 0, 4))
    assert by_skill(budget="token_degradation").score(none).group_weights[3] == 0


PIECES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(2, 60), st.floats(0.001, 0.69), st.integers(1, 59)),
    min_size=2,
    max_size=25,
)


@given(PIECES)
@settings(max_examples=60, deadline=None)
def test_where_a_text_is_cut_into_rows_moves_no_share_of_tokens(pieces):
    """Each row in two, of the same divergence a token: shares by tokens stay, shares by rows would not."""
    groups, tokens, jsd, cut = (np.array(held) for held in zip(*pieces, strict=True))
    cut = np.minimum(cut, tokens - 1)

    def weights(budget, groups, tokens, jsd):
        held = {"column:skill": groups, "jsd": jsd, "num_tokens": tokens, "num_supervised_tokens": tokens}
        scorer = by_skill(budget=budget, efficiency="jsd")
        return scorer.score(Signals(len(groups), held)).group_weights

    halves = np.concatenate([groups, groups]), np.concatenate([cut, tokens - cut]), np.concatenate([jsd, jsd])
    for budget in ("token_degradation", "token_degradation_size", "token_size"):
        np.testing.assert_allclose(weights(budget, groups, tokens, jsd), weights(budget, *halves), rtol=1e-12)


@given(PIECES, st.floats(0.05, 0.95), st.sampled_from(["token_degradation", "token_degradation_size"]))
@settings(max_examples=60, deadline=None)
def test_a_token_budget_is_shared_exactly_by_the_damage_of_tokens(pieces, share, budget):
    """Beside fractions: rows of one token, so that every share can be spent to the token."""
    groups, tokens, jsd, _ = (np.array(held) for held in zip(*pieces, strict=True))
    groups, jsd = np.repeat(groups, tokens), np.repeat(jsd, tokens)
    ones = np.ones(len(groups), np.int64)
    held = {"column:skill": groups, "jsd": jsd, "num_tokens": ones, "num_supervised_tokens": ones}
    scorer = by_skill(budget=budget, efficiency="jsd")
    ranking = scorer.score(Signals(len(groups), held))
    total = max(1, int(share * len(groups)))
    portion = Portion(np.arange(len(groups)), ones, total, "", "tokens")
    kept = scorer.selector().select(ranking, portion, np.random.default_rng(0)).kept
    spent = np.bincount(groups[kept], minlength=len(ranking.group_weights))
    assert spent.sum() == total
    # Fill in proportion; whoever is full leaves the rest to the others.
    caps = np.bincount(groups, minlength=len(spent)).tolist()
    weights = [Fraction(float(weight)) for weight in ranking.group_weights]
    full: set[int] = {j for j, cap in enumerate(caps) if not cap}
    while True:
        left = total - sum(caps[j] for j in full)
        open_ = sum(weights[j] for j in range(len(caps)) if j not in full)
        over = {j for j in range(len(caps)) if j not in full and weights[j] * left >= caps[j] * open_}
        if not over:
            break
        full |= over
    for j, cap in enumerate(caps):
        exact = Fraction(cap) if j in full else weights[j] * left / open_
        assert abs(int(spent[j]) - exact) < 1


def test_weights():
    signals = small()
    plain = by_skill().score(signals).group_weights
    weighed = by_skill(weights={"0": 3.0, "3": 0.0}).score(signals).group_weights
    np.testing.assert_allclose(weighed, plain * [3, 1, 1, 0], rtol=1e-15)


@pytest.mark.parametrize("name", ["4", "-1", "math", "", "01", "²", "1.0", "9" * 5000])
def test_a_group_that_is_not_there_is_refused(name):
    with pytest.raises(DataPrunerError, match="named by their number, 0 to 3"):
        by_skill(weights={name: 2.0}).score(small())


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(DataPrunerError, match="weights must be finite and 0 or above"):
        Paser(weights={"0": weight})


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"concepts": -1}, "concepts must be 0 or more, not -1"),
        ({"within": "skill", "n_clusters": 3}, "the groups are 'skill'"),
        ({"degradation": "kl"}, "degradation"),
        ({"budget": "even"}, "budget"),
        ({"efficiency": "cheap"}, "efficiency"),
        ({"weights": {"0": "much"}}, "weights"),
    ],
)
def test_parameters_without_meaning_are_refused(parameters, said):
    with pytest.raises(DataPrunerError, match=said):
        Paser(**parameters)


def test_the_target_s_rows_vote():
    signals = example_signals()
    plain = Paser(n_clusters=3).score(signals)
    unit = signals["embedding"] / np.linalg.norm(signals["embedding"], axis=1, keepdims=True)
    centres = np.array([unit[plain.groups == group].mean(axis=0) for group in range(3)])
    target = signals["target_embedding"]
    votes = np.zeros(3)
    for row in target / np.linalg.norm(target, axis=1, keepdims=True):
        votes[np.argmin([np.linalg.norm(row - centre) for centre in centres])] += 1 / len(target)
    assert (votes > 0).sum() >= 2
    weighed = Paser(n_clusters=3, target=True).score(signals)
    np.testing.assert_array_equal(weighed.groups, plain.groups)
    np.testing.assert_allclose(weighed.group_weights, plain.group_weights * votes, rtol=1e-9)


def test_what_it_reads():
    assert Paser().requires == Paser.needs
    assert "text" not in Paser(concepts=0).requires
    assert by_skill(efficiency="jsd").requires == {"jsd", "column:skill"}
    assert by_skill(degradation="gradient").requires >= {"grad_norm", "pruned_grad_norm", "gradient_dot"}
    assert by_skill(efficiency="loss").requires >= {"log_ppl", "pruned_log_ppl"}
    assert Paser(target=True, within="cluster").requires >= {"target_embedding", "embedding"}


def test_without_concepts_no_text_is_needed_and_no_graph_is_kept():
    signals = small()
    textless = replace(
        signals, measured={name: held for name, held in signals.measured.items() if name != "text"}
    )
    ranking = by_skill().score(textless)
    assert "concepts" not in ranking.state
    with pytest.raises(DataPrunerError, match="'text' was not measured"):
        Paser(within="skill").score(textless)
    held = Paser(within="skill", concepts=2).score(signals).state
    assert held["concepts"].lengths.max() <= 2
    assert {str(held["concept_names"][one]) for one in held["concepts"][0]} <= {
        "teapot kettle",
        "teapot",
        "kettle",
    }


def test_without_damage_the_budget_is_shared_by_size(caplog):
    ranking = by_skill().score(small(jsd=np.zeros(8)))
    assert ranking.group_weights.tolist() == [3, 4, 0, 1]
    assert "no group is damaged" in caplog.text
    rows = [{"text": f"row {row}", "skill": "aaab"[row % 4]} for row in range(40)]
    kept = dp.prune(rows, scorer=by_skill(efficiency="jsd"), keep=8, divergences=np.zeros(40)).indices
    assert sum(rows[row]["skill"] == "a" for row in kept) == 6


@pytest.mark.parametrize(
    "scorer",
    [
        Paser(n_clusters=2, concepts=0, efficiency="random"),
        Paser(within="cluster", n_clusters=3, degradation="loss", efficiency="loss_per_cost"),
        Paser(within="label", degradation="gradient", budget="degradation_size", efficiency="typical"),
        Paser(within="label", target=True, budget="uniform", efficiency="jsd", weights={"1": 2.5}),
    ],
    ids=lambda scorer: f"{scorer.within}-{scorer.degradation}-{scorer.efficiency}",
)
def test_it_passes_the_contract(scorer):
    check_scorer(scorer)
