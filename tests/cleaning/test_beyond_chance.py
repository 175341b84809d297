"""The share of good rows among those found stays below what was asked, and a clean set loses next to nothing."""

from __future__ import annotations

import numpy as np
import pytest

from datapruner.cleaning.beyond_chance import TOLD, beyond_chance, numbered, told_apart

N = 3000


def drawn(seed: int, share: float, apart: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a mixture of noise and good rows, those of decoys, and which row is noise."""
    rng = np.random.default_rng(seed)
    noisy = rng.random(N) < share
    return np.where(noisy, 0, apart) + rng.normal(size=N), rng.normal(size=N), noisy


@pytest.mark.parametrize("apart", [2.5, 4])
@pytest.mark.parametrize("share", [0.02, 0.2])
def test_few_of_what_is_found_are_good(share: float, apart: float) -> None:
    false, estimated, found, shares = [], [], [], []
    for seed in range(12):
        real, decoys, noisy = drawn(seed, share, apart)
        beyond = beyond_chance(real, decoys, 0.1)
        shares.append(beyond.share)
        found.append((beyond.rows & noisy).sum() / noisy.sum())
        if beyond.rows.any():
            false.append(float((beyond.rows & ~noisy).sum() / beyond.rows.sum()))
            estimated.append(beyond.false)
    assert np.mean(false) < 0.1 + 0.03  # 12 draws; the mean over many is below
    assert max(estimated) <= 0.1
    assert 0.6 * share < np.mean(shares) < 1.4 * share
    if apart == 4:
        assert np.mean(found) > 0.5


@pytest.mark.parametrize("apart", [2, 3, 5])
def test_good_rows_alone_are_left_alone(apart: float) -> None:
    dropped = [beyond_chance(*drawn(seed, 0, apart)[:2], 0.1).rows.mean() for seed in range(10)]
    assert np.mean(dropped) < 5e-4


def test_caution_and_a_lower_rate_find_fewer() -> None:
    real, decoys, _ = drawn(0, 0.1, 3)
    plain = beyond_chance(real, decoys, 0.1)
    cautious = beyond_chance(real, decoys, 0.1, cautious=True)
    strict = beyond_chance(real, decoys, 0.02)
    assert cautious.share < plain.share
    assert 0 < cautious.rows.sum() < plain.rows.sum()
    assert strict.rows.sum() < plain.rows.sum()
    assert not (strict.rows & ~plain.rows).any()


def test_few_rows_and_rows_that_nothing_tells_from_decoys() -> None:
    real, decoys, _ = drawn(0, 0.5, 4)
    assert not beyond_chance(real[:99], decoys, 0.1).rows.any()
    equal = beyond_chance(np.zeros(N), np.zeros(N), 0.1)
    assert not equal.rows.any()  # labels, say: whatever row they stand in, they score alike
    assert equal.share > 0.9


def test_what_no_decoy_is_like_is_not_taken_for_real() -> None:
    """Rows that fit worse than all decoys: the trees may not learn that they are none."""
    rng = np.random.default_rng(0)
    real = rng.normal(3, 1, size=(1500, 2))
    real[:60] = rng.normal(-3, 1, size=(60, 2))
    decoys = rng.normal(0, 1, size=(1500, 2))
    scores, (of,) = told_apart(real, [decoys], np.array([1, 1]))
    assert np.quantile(scores[:60], 0.9) < np.quantile(of, 0.5)
    assert np.median(scores[60:]) > np.quantile(of, 0.99)


def test_bins_end_at_the_quantiles_of_rows_repeated_by_their_weights() -> None:
    rng = np.random.default_rng(3)
    weights = rng.integers(1, 4, size=900)
    learnt, others = (
        np.column_stack([rng.normal(size=n), rng.normal(size=n).round(1), np.ones(n)]) for n in (900, 70)
    )
    found = numbered(learnt, weights, [others])
    for column in range(3):
        repeated = np.repeat(learnt[:, column], weights)
        ends = np.unique(repeated)
        if len(ends) > TOLD:
            ends = np.percentile(
                repeated, np.linspace(0, 100, TOLD + 1)[1:-1], method="averaged_inverted_cdf"
            )
        else:
            ends = (ends[:-1] + ends[1:]) / 2
        for numbers, values in zip(found, (learnt, others), strict=True):
            assert numbers[:, column].tolist() == [int((ends < value).sum()) for value in values[:, column]]
    assert [len(np.unique(found[0][:, column])) for column in range(3)][::2] == [TOLD, 1]


def test_the_trees_read_so_few_values_that_they_look_for_no_bins(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each of 254 edges of every number, scikit-learn would sort the rows by their weights again."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    fit, most = HistGradientBoostingClassifier.fit, []

    def watched(self, X, y, sample_weight):
        most.append(max(len(np.unique(column)) for column in X.T))
        return fit(self, X, y, sample_weight)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", watched)
    real, *decoys = np.random.default_rng(0).normal(size=(3, 600, 2))
    told_apart(real, decoys, np.array([1, 0]))
    assert set(most) == {TOLD}
