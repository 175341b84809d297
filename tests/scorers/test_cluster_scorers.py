"""Concept complexity and prototypes against brute-force numpy."""

from __future__ import annotations

import numpy as np
import pytest

import datapruner as dp
from datapruner.scorers import ConceptComplexity, Prototypes, Stratified
from datapruner.selection.budget_rows import Portion
from datapruner.signals import Signals

N, K = 600, 30


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 24))
    spread = rng.uniform(0.1, 0.8, size=40)
    of = rng.choice(40, size=N, p=rng.dirichlet(np.ones(40)))
    return (centres[of] + spread[of, None] * rng.normal(size=(N, 24))).astype(np.float32)


def unit(x):
    x = np.asarray(x, dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def ranked(vectors, **parameters):
    return ConceptComplexity(n_clusters=K, **parameters).score(Signals(N, {"embedding": vectors}, 0))


def centroids_of(vectors, groups):
    """The scorer does not hand out its centroids; the clustering does, for the same seed."""
    from datapruner.geometry.clustering import spherical_kmeans

    clusters = spherical_kmeans(vectors, K, seed=0)
    assert np.array_equal(clusters.assignment, groups)
    return unit(clusters.centroids)


def test_complexity_equals_brute_force(vectors):
    ranking = ranked(vectors, temperature=0.1)
    x, c = unit(vectors), centroids_of(vectors, ranking.groups)
    similarity = x @ c.T
    # Every row sits with the centroid it is nearest to.
    own = similarity[np.arange(N), ranking.groups]
    assert (own >= similarity.max(axis=1) - 1e-6).all()
    intra = np.array(
        [np.mean([1 - x[i] @ c[j] for i in np.flatnonzero(ranking.groups == j)]) for j in range(len(c))]
    )
    inter = np.array(
        [np.sort([1 - c[j] @ c[m] for m in range(len(c)) if m != j])[:20].mean() for j in range(len(c))]
    )
    np.testing.assert_allclose(ranking.state["d_intra"], intra, atol=1e-6)
    np.testing.assert_allclose(ranking.state["d_inter"], inter, atol=1e-6)
    np.testing.assert_allclose(ranking.state["complexity"], intra * inter, atol=1e-6)
    expected = np.exp(intra * inter / 0.1)
    np.testing.assert_allclose(ranking.group_weights, expected / expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(ranking.values, 1 - own, atol=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_counts_equal_a_quadratic_program(vectors, share):
    from scipy.optimize import minimize

    ranking = ranked(vectors, temperature=0.05)
    budget = round(share * N)
    selector = ConceptComplexity().selector()
    kept = selector.select(
        ranking, Portion(np.arange(N), np.ones(N, np.int64), budget), np.random.default_rng(0)
    ).kept
    counts = np.bincount(ranking.groups, kept, K)
    sizes = np.bincount(ranking.groups, minlength=K)
    low = np.minimum(sizes - 1, int(0.5 * budget / K))
    target = budget * ranking.group_weights
    found = minimize(
        lambda x: ((x - target) ** 2).sum() / budget,
        np.clip(target, low, sizes),
        jac=lambda x: 2 * (x - target) / budget,
        bounds=list(zip(low, sizes, strict=True)),
        constraints={"type": "eq", "fun": lambda x: x.sum() - budget, "jac": np.ones_like},
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-9},
    )
    assert found.success
    assert counts.sum() == budget
    assert np.abs(counts - found.x).max() < 1 + 1e-3
    # Inside a cluster, the rows farthest from the centroid.
    for j in range(K):
        members = np.flatnonzero(ranking.groups == j)
        if 0 < counts[j] < len(members):
            assert (
                ranking.values[members[kept[members]]].min() >= ranking.values[members[~kept[members]]].max()
            )


def test_easy_is_the_other_way_round_and_random_is_seeded(vectors):
    hard, easy = ranked(vectors), ranked(vectors, keep="easy")
    assert np.array_equal(hard.values, -easy.values)
    first = ConceptComplexity(K, keep="random").score(Signals(N, {"embedding": vectors}, 1)).values
    again = ConceptComplexity(K, keep="random").score(Signals(N, {"embedding": vectors}, 1)).values
    other = ConceptComplexity(K, keep="random").score(Signals(N, {"embedding": vectors}, 2)).values
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_prototypes_rank_by_distance_with_a_floor(vectors):
    scorer = Prototypes(n_clusters=K, balance=0.5)
    ranking = scorer.score(Signals(N, {"embedding": vectors}, 0))
    x, c = unit(vectors), centroids_of(vectors, ranking.groups)
    np.testing.assert_allclose(ranking.values, 1 - (x @ c.T).max(axis=1), atol=1e-6)
    kept = (
        scorer.selector()
        .select(ranking, Portion(np.arange(N), np.ones(N, np.int64), 120), np.random.default_rng(0))
        .kept
    )
    sizes, counts = np.bincount(ranking.groups), np.bincount(ranking.groups, kept)
    assert (counts >= np.floor(0.5 * sizes * 120 / N)).all()


@pytest.mark.parametrize("parameters", [{"temperature": 0}, {"temperature": float("nan")}])
def test_meaningless_parameters_are_refused(parameters):
    with pytest.raises(dp.DataPrunerError, match="temperature"):
        ConceptComplexity(**parameters)
    with pytest.raises(dp.DataPrunerError, match="balance"):
        Prototypes(balance=2)


def test_a_misspelt_choice_is_refused_and_does_not_turn_the_ranking_round():
    with pytest.raises(dp.DataPrunerError, match="'prototypes': keep"):
        Prototypes(keep="Hard")
    with pytest.raises(dp.DataPrunerError, match="n_clusters"):
        ConceptComplexity(n_clusters="ten")


def test_k_above_the_number_of_rows_names_both():
    with pytest.raises(dp.DataPrunerError, match=r"k = 50.*20 rows"):
        ConceptComplexity(n_clusters=50).score(
            Signals(20, {"embedding": np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)})
        )


def test_stratified_is_random_in_equal_shares():
    """Four kinds of rows, one of them smaller than its share: the others split what it cannot spend, at random."""
    rng = np.random.default_rng(0)
    sizes = [10, 90, 150, 250]
    blob = np.repeat(np.arange(4), sizes)
    vectors = np.eye(4, dtype=np.float32)[blob]
    scorer = Stratified(n_clusters=4)
    kept = []
    for seed in range(40):
        ranking = scorer.score(Signals(500, {"embedding": vectors}, seed=seed))
        chosen = scorer.selector().select(ranking, Portion(np.arange(500), np.ones(500, np.int64), 100), rng)
        kept.append(chosen.kept)
        assert sorted(np.bincount(blob, chosen.kept).tolist()) == [10, 30, 30, 30]
    often = np.mean(kept, axis=0)
    for of, count in enumerate(sizes):
        # Every row of a kind has the same chance: 40 draws deviate from it as a binomial does.
        chance = min(1, 30 / count)
        deviation = np.sqrt(chance * (1 - chance) / 40)
        assert often[blob == of].mean() == pytest.approx(chance)
        assert often[blob == of].std() == pytest.approx(deviation, abs=0.02)
