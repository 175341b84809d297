"""What reads one forward pass, against other computations of the same: pymcdm, scipy, weights moved by hand."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pymcdm import normalizations
from pymcdm.methods import TOPSIS
from scipy.stats import rankdata, spearmanr

import datapruner as dp
from datapruner.ranks import average_ranks, spearman, topsis
from datapruner.scorers import EL2N, IFD, Donod, GradNorm, MidPerplexity, Perplexity
from datapruner.scorers.donod import weight_delta
from datapruner.signals import Signals
from datapruner.testing import example_signals
from tests.conftest import examples

NORMALIZATIONS = {
    "vector": normalizations.vector_normalization,
    "minmax": normalizations.minmax_normalization,
}
HALVES = st.integers(-8, 8).map(lambda x: x / 2)


def pymcdm_topsis(matrix, weights, benefit, normalization):
    types = np.where(benefit, 1, -1)
    weights = np.asarray(weights) / np.sum(weights)
    return TOPSIS(NORMALIZATIONS[normalization])(matrix, weights, types, validation=False)


def measured(**columns):
    n = len(next(iter(columns.values())))
    return Signals(n, {name: np.asarray(column) for name, column in columns.items()})


def order(ranking):
    return np.argsort(-ranking.values, kind="stable").tolist()


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@settings(max_examples=examples(100), deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(2, 200),
    columns=st.integers(1, 6),
    shift=st.floats(-3, 3),
)
def test_topsis_equals_pymcdm(normalization, seed, rows, columns, shift):
    rng = np.random.default_rng(seed)
    matrix = (rng.normal(size=(rows, columns)) + shift) * 10.0 ** rng.integers(-6, 6, columns)
    weights, benefit = rng.random(columns) + 0.01, rng.random(columns) < 0.5
    expected = pymcdm_topsis(matrix, weights, benefit, normalization)
    np.testing.assert_allclose(topsis(matrix, weights, benefit, normalization), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@settings(max_examples=examples(100), deadline=None)
@given(
    matrix=arrays.arrays(np.float64, st.tuples(st.integers(2, 8), st.integers(2, 3)), elements=HALVES),
    data=st.data(),
)
def test_topsis_equals_pymcdm_on_ties(normalization, matrix, data):
    benefit = data.draw(st.lists(st.booleans(), min_size=matrix.shape[1], max_size=matrix.shape[1]))
    ours = topsis(matrix, [1.0] * matrix.shape[1], benefit, normalization)
    assert ((ours >= 0) & (ours <= 1)).all()
    with np.errstate(invalid="ignore"):
        theirs = pymcdm_topsis(matrix, np.ones(matrix.shape[1]), benefit, normalization)
    # Where pymcdm divides zero by zero it has no answer: a column of zeros, or only constant ones.
    if np.isfinite(theirs).all() and (np.ptp(matrix, axis=0) > 0).any():
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_topsis_of_any_size(normalization):
    matrix = np.random.default_rng(0).normal(size=(20, 3))
    expected = pymcdm_topsis(matrix, [0.2, 0.3, 0.5], [True, False, True], normalization)
    for large in (1e200, 1e-200, np.array([1e300, 1, 1e-300])):
        for weights in ([0.2, 0.3, 0.5], [2e250, 3e250, 5e250], [2e-300, 3e-300, 5e-300]):
            values = topsis(matrix * large, weights, [True, False, True], normalization)
            np.testing.assert_allclose(values, expected, atol=1e-12)
    plain = topsis(matrix, [0.2, 0.3, 0.5], [True, False, True], normalization)
    scaled = topsis(matrix * 2.0**900, [0.2, 0.3, 0.5], [True, False, True], normalization)
    assert plain.tobytes() == scaled.tobytes()


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_topsis_is_defined_where_nothing_differs(normalization):
    assert topsis(np.ones((4, 2)), (1, 1), (True, False), normalization).tolist() == [0.5] * 4
    assert topsis(np.zeros((1, 2)), (1, 1), (True, False), normalization).tolist() == [0.5]
    # A column of zeros, or a constant one, leaves the decision to the other.
    for constant in (0.0, 3.0):
        matrix = np.column_stack([np.full(3, constant), [1.0, 2.0, 3.0]])
        assert topsis(matrix, (1, 1), (True, False), normalization).tolist() == [1, 0.5, 0]


@settings(max_examples=examples(100), deadline=None)
@given(first=st.lists(HALVES, min_size=1, max_size=30), seed=st.integers(0, 99))
def test_ranks_equal_scipy(first, seed):
    first = np.array(first)
    assert average_ranks(first).tolist() == rankdata(first).tolist()
    second = np.round(np.random.default_rng(seed).normal(size=len(first)), 1)
    expected = 0.0 if np.ptp(first) == 0 or np.ptp(second) == 0 else spearmanr(first, second).statistic
    assert spearman(first, second) == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope="module")
def literal():
    """Weights and gradients as matrices, and DON and NOD by moving the weights, in extended precision."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(300, 32))
    gradients = [
        rng.normal(size=weights.shape) * 10.0 ** rng.uniform(-4, -1) + 0.02 * rng.normal() * weights
        for _ in range(12)
    ]
    # Parallel to the weights: a step of 1 / 0.5 reaches zero.
    gradients += [0.5 * weights, -0.5 * weights, 0 * weights]
    signals = measured(
        weight_dot=[(weights * g).sum() for g in gradients],
        grad_norm=[np.linalg.norm(g) for g in gradients],
        weight_norm=np.full(len(gradients), np.linalg.norm(weights)),
        log_ppl=np.ones(len(gradients)),
        num_supervised_tokens=np.arange(1, len(gradients) + 1),
    )
    return weights, gradients, signals


@pytest.mark.parametrize("direction", ["shrink", "grow"])
@pytest.mark.parametrize("step_size", [1e-4, 0.01, 0.3, 2.0, 50.0])
def test_don_and_nod_equal_weights_moved_by_hand(literal, step_size, direction):
    weights, gradients, signals = literal
    ranking = Donod(step_size=step_size, don=direction).score(signals)
    sign = {"shrink": -1, "grow": 1}[direction]

    def length(matrix):
        return np.sqrt((matrix.astype(np.longdouble) ** 2).sum())

    exact, moved = weights.astype(np.longdouble), np.longdouble(step_size)
    don = [sign * float(length(exact - moved * g.astype(np.longdouble)) - length(exact)) for g in gradients]
    nod = [step_size * np.linalg.norm(g) for g in gradients]
    # The product <W, G> itself is rounded, to about 1e-16 of ||W|| ||G||; where the step reaches zero, the root of
    # what is left of ||W||^2 is all that can be known.
    whole = float(length(exact))
    away = np.abs(ranking.columns["don"] - don)
    allowed = 1e-9 * np.abs(don) + 1e-13 * step_size * whole
    reaches_zero = np.abs(sign * np.array(don) + whole) < 1e-9 * whole
    assert (away <= np.where(reaches_zero, 1e-7 * whole, allowed)).all()
    np.testing.assert_allclose(ranking.columns["nod"], nod, rtol=1e-12)
    both = np.column_stack([ranking.columns["don"], nod])  # checked above
    expected = pymcdm_topsis(both, [0.5, 0.5], [True, False], "vector")
    np.testing.assert_allclose(ranking.values, expected, rtol=0, atol=1e-9)


def test_don_survives_float32_where_a_difference_of_norms_does_not():
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(4000, 128))
    gradients = [0.05 * rng.normal(size=weights.shape) - 1e-3 * weights for _ in range(5)]
    exact = [
        float(np.linalg.norm((weights - 1e-2 * g).astype(np.longdouble)) - np.linalg.norm(weights))
        for g in gradients
    ]
    low = weights.astype(np.float32)
    naive = [
        float(np.linalg.norm(low - np.float32(1e-2) * g.astype(np.float32)) - np.linalg.norm(low))
        for g in gradients
    ]
    dot, norm = (
        np.array(values, dtype=np.float32).astype(np.float64)
        for values in ([(weights * g).sum() for g in gradients], [np.linalg.norm(g) for g in gradients])
    )
    don, _ = weight_delta(dot, norm, np.full(5, float(np.float32(np.linalg.norm(weights)))), 1e-2)
    assert np.max(np.abs(np.divide(naive, exact) - 1)) > 1e-3
    np.testing.assert_allclose(don, exact, rtol=1e-6)


@pytest.mark.parametrize("direction", ["shrink", "grow"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_small_step_ranks_like_the_limit(normalization, direction):
    signals = example_signals(300)
    limit = Donod(normalization=normalization, don=direction).score(signals)
    small = Donod(step_size=1e-9, normalization=normalization, don=direction).score(signals)
    np.testing.assert_allclose(small.values, limit.values, atol=1e-6)
    don = signals["weight_dot"] if direction == "shrink" else -signals["weight_dot"]
    assert np.array_equal(limit.columns["don"], don)
    assert np.array_equal(limit.columns["nod"], signals["grad_norm"])
    expected = pymcdm_topsis(
        np.column_stack([don, signals["grad_norm"]]),
        [0.5, 0.5],
        [True, False],
        normalization,
    )
    np.testing.assert_allclose(limit.values, expected, atol=1e-12)


def test_a_large_step_is_reported_with_its_median(caplog):
    signals = example_signals()
    with caplog.at_level(logging.WARNING, "datapruner"):
        assert Donod().score(signals).state["step_ratio"].tolist() == [0]
        small = Donod(step_size=1e-4).score(signals).state["step_ratio"]
        assert small.shape == (1,)
        assert not caplog.records
        large = Donod(step_size=10.0).score(signals).state["step_ratio"][0]
    ratio = 10.0 * signals["grad_norm"] ** 2 / (2 * np.abs(signals["weight_dot"]))
    assert large == pytest.approx(np.median(ratio))
    assert f"{large:.3g}" in caplog.text
    assert small[0] == pytest.approx(np.median(ratio) / 1e5)


def test_donods_length_correction_and_correlation():
    signals = example_signals()
    tokens = signals["num_supervised_tokens"]
    plain, corrected = Donod().score(signals), Donod(length_correction=True).score(signals)
    np.testing.assert_allclose(corrected.columns["nod"], signals["grad_norm"] * np.sqrt(tokens))
    assert np.array_equal(corrected.columns["don"], plain.columns["don"])
    for ranking in (plain, corrected):
        expected = spearmanr(ranking.columns["nod"], tokens).statistic
        assert ranking.state["nod_length_correlation"].tolist() == [pytest.approx(expected)]
    stretched = Donod(step_size=1e-3, length_correction=True).score(signals).columns["nod"]
    np.testing.assert_allclose(stretched, 1e-3 * signals["grad_norm"] * np.sqrt(tokens))


def test_donods_weights_choose_the_column():
    signals = example_signals()
    don, nod = signals["weight_dot"], signals["grad_norm"]
    assert order(Donod(weights=(1, 0)).score(signals)) == np.argsort(-don, kind="stable").tolist()
    assert order(Donod(weights=[0, 3.0]).score(signals)) == np.argsort(nod, kind="stable").tolist()
    assert Donod(weights=[0.5, 0.5]) == Donod() != Donod(don="grow")
    assert order(Donod(weights=(1, 0), don="grow").score(signals)) == np.argsort(don, kind="stable").tolist()


@pytest.mark.parametrize("step_size", [None, 0.1])
def test_donod_of_rows_without_a_gradient_or_without_weights(step_size):
    for dot, norm, weight in ([0, 0], [0, 0], [3, 3]), ([1, -1], [1, 1], [0, 0]), ([0, 0], [0, 0], [0, 0]):
        signals = measured(
            weight_dot=dot,
            grad_norm=norm,
            weight_norm=weight,
            log_ppl=[1, 2],
            num_supervised_tokens=[1, 2],
        )
        ranking = Donod(step_size=step_size).score(signals)
        for values in (ranking.values, ranking.columns["don"], *ranking.state.values()):
            assert not np.isnan(values).any()


def test_donod_reads_the_weights_norm_and_shows_the_entropy_only_where_there_is_one():
    assert Donod(step_size=0.1).requires - Donod().requires == {"weight_norm"}
    signals = example_signals()
    kept = {name: signals[name] for name in Donod().requires}
    assert "entropy" not in Donod().score(replace(signals, measured=kept)).columns
    assert "entropy" in Donod().score(signals).columns


@pytest.mark.parametrize(
    "parameters",
    [
        {"step_size": 0.0},
        {"step_size": -1.0},
        {"step_size": float("inf")},
        {"step_size": float("nan")},
        {"step_size": "small"},
        {"weights": (0.5,)},
        {"weights": (0.5, -0.5)},
        {"weights": (0.0, 0.0)},
        {"weights": (float("nan"), 1.0)},
        {"weights": "ab"},
        {"weights": 0.5},
        {"normalization": "sum"},
    ],
)
def test_donod_refuses_what_has_no_meaning(parameters):
    with pytest.raises(dp.DataPrunerError, match=f"donod.*{next(iter(parameters))[:6]}"):
        Donod(**parameters)


@pytest.mark.parametrize(
    ("scorer", "signal"), [(Perplexity, "log_ppl"), (EL2N, "el2n"), (GradNorm, "grad_norm")]
)
def test_one_signal_either_way(scorer, signal):
    signals = example_signals()
    high, low = scorer(keep="high").score(signals), scorer(keep="low").score(signals)
    assert np.array_equal(high.values, signals[signal])
    assert np.array_equal(low.values, -signals[signal])
    assert np.array_equal(low.columns[signal], signals[signal])
    assert not np.shares_memory(high.values, signals[signal])
    with pytest.raises(dp.DataPrunerError, match="keep"):
        scorer(keep="middle")


def test_directions_by_default():
    assert (Perplexity().keep, EL2N().keep, GradNorm().keep, IFD().keep) == ("low", "high", "high", "high")


@settings(max_examples=50, deadline=None)
@given(st.lists(HALVES, min_size=1, max_size=30))
def test_mid_perplexity_equals_scipys_ranks(values):
    ranks = rankdata(values)
    expected = -np.abs(ranks - np.median(ranks))
    ranking = MidPerplexity().score(measured(log_ppl=values))
    assert ranking.values.tolist() == expected.tolist()


def test_mid_perplexity_keeps_the_middle():
    values = MidPerplexity().score(measured(log_ppl=[9.0, 1.0, 3.0, 100.0, 2.0])).values
    assert values.tolist() == [-1, -2, 0, -2, -1]


GIVEN, ALONE = np.array([1.0, 3.0, 2.0, 4.0, 0.5, 2.0]), np.array([2.0, 2.0, 2.5, 2.0, 5.0, 2.0])


@pytest.mark.parametrize("variant", ["ifd", "superfiltering"])
def test_ifd_by_hand(variant):
    ratio = GIVEN / ALONE if variant == "ifd" else np.exp(GIVEN) / np.exp(ALONE)
    signals = measured(log_ppl=GIVEN, response_log_ppl=ALONE)
    ranking = IFD(variant=variant).score(signals)
    np.testing.assert_allclose(ranking.columns["ifd"], ratio, rtol=1e-15)
    # 0.8, 0.5, 0.1; then 1, 1.5, 2, which the papers drop.
    assert order(ranking) == [2, 0, 4, 5, 1, 3]
    assert order(IFD(variant=variant, keep="low").score(signals)) == [4, 0, 2, 5, 1, 3]
    assert order(IFD(variant=variant, drop_above_one=False).score(signals)) == [3, 1, 5, 2, 0, 4]


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=1, max_size=20), st.booleans())
def test_ifd_puts_every_row_below_one_before_every_other(pairs, superfiltering):
    log_ppl, alone = np.array(pairs).T
    ranking = IFD("superfiltering" if superfiltering else "ifd").score(
        measured(log_ppl=log_ppl, response_log_ppl=alone)
    )
    below, ifd = log_ppl < alone, ranking.columns["ifd"]
    assert np.isfinite(ifd).all()
    if below.any() and not below.all():
        assert ranking.values[below].min() > ranking.values[~below].max()
    for part, sign in ((below, 1), (~below, -1)):
        by_ifd = np.argsort(sign * ifd[part], kind="stable")
        assert (np.diff(ranking.values[part][by_ifd]) >= 0).all()


def test_ifd_of_a_response_without_loss():
    signals = measured(log_ppl=[1.0, 0.0, 0.0, 1.0, 2.0], response_log_ppl=[0.0, 0.0, 1.0, 1e-320, 800.0])
    assert IFD().score(signals).columns["ifd"].tolist() == [1e12, 1, 0, 1e12, 0.0025]
    signals = measured(log_ppl=[2000.0, 0.0, 0.0], response_log_ppl=[0.0, 0.0, 2000.0])
    np.testing.assert_allclose(IFD("superfiltering").score(signals).columns["ifd"], [1e12, 1, 0])
    # A likelihood rounded above 1 is no reason to turn the order round.
    signals = measured(log_ppl=[1.0, -1e-9, 0.5], response_log_ppl=[-1e-9, 1.0, 1.0])
    assert order(IFD().score(signals)) == [2, 1, 0]
