"""Rows that are noise beyond what chance gives, by what a noise of their own making looks like.

*Ours*, of published parts. Where a kind of noise can be made from the set itself (an answer under another row's prompt,
an answer with its words shuffled), its *decoys* say how a noisy row scores: what in proteomics target-decoy search does
for the null (Elias & Gygi 2007), and what positive-unlabelled learning calls the known class (Elkan & Noto 2008). The
real rows are a mixture of good ones and noisy ones, and no label is needed to part the two where good rows score
otherwise than decoys do. Where they do not, nothing is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.errors import DataPrunerError

FOLDS = 3
TREES = 40
SUREST = -4.5
"""Log odds that as many trees come to where no real row is; whatever differs below is chance."""
UNLIKELY = -2.0
"""Log odds below which a row is left out of the second learning; a good row that nothing tells apart is above."""
TRAINED_ON = 5_000
"""Rows from which it is learnt what tells real ones from decoys; more change little."""
FEWEST = 100
"""Of fewer rows no share can be told."""
HIGHEST = 0.5
"""Where more than this share would be noise, good rows score as decoys do, and nothing is told."""
TOLD = 255
"""Values of a number that trees tell apart, at most."""
BINS = 1000
ONSETS = np.array(
    [
        0,
        0.02,
        0.05,
        0.1,
        0.15,
        0.2,
        0.25,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
        0.8,
        0.85,
        0.9,
        0.93,
        0.95,
        0.97,
        0.98,
        0.99,
        0.995,
    ]
)
"""Shares of the decoys from which on good rows may be found, more and more of them."""
BEND = 1.5
"""Power by which they do: 1 is more careful and finds less, 2 is too sure where good rows come near to decoys."""
ITERATIONS = 200
SURE = 1.35
"""Half the 95 % point, one-sided, of chi-squared with one degree of freedom: how much less likely the share may be."""


class Beyond(NamedTuple):
    """The rows that are noise beyond what chance gives.

    Attributes
    ----------
    rows : ndarray, bool, shape (n,)
        Which they are.
    share : float
        Estimated share of noise among all rows, whether or not it can be told from the good ones.
    false : float
        Estimated share of good rows among those that were found; 0 where there is none.
    """

    rows: Flags
    share: float
    false: float


def check_rate(step: str, fdr: float) -> None:
    """Refuse a false discovery rate of a step that is none."""
    if not 0 < fdr < 1:
        raise DataPrunerError(f"'{step}': fdr is a share above 0 and below 1, not {fdr}")


def beyond_chance(real: Floats, decoys: Floats, fdr: float, *, cautious: bool = False) -> Beyond:
    """Find the rows that score as decoys do, so many that at most a share of them is thought to be good.

    A score's place among the decoys' is uniform for noise. Good rows have their own distribution of places, of which
    only this is taken for granted: its density is 0 at the lowest place, and grows, and grows faster (convex densities:
    Langaas, Lindqvist & Ferkingstad 2005, there for p-values). Mixtures of the uniform and of ramps are fitted by
    maximum likelihood. The uniform's share of the decoys is expected among the real rows below any place, and what is
    there beyond it is good.

    Parameters
    ----------
    real, decoys : ndarray, float64, shape (n,) and (m,)
        Scores, low for noise. Nothing is asked of them but that decoys score as noisy rows do, or higher.
    fdr : float
        False discovery rate: the highest estimated share of good rows among those that are found; in (0, 1).
    cautious : bool
        Take the lowest share of noise that is not much less likely than the best (the lower 95 % bound, by the
        likelihood ratio), for rows of which good ones may well look like noise.

    Returns
    -------
    Beyond
        No row where there are fewer than 100, or where more than half would be noise: then good rows score like it.
    """
    nothing = Beyond(np.zeros(len(real), dtype=np.bool_), 0.0, 0.0)
    if min(len(real), len(decoys)) < FEWEST:
        return nothing
    counts = np.bincount((_places(real, decoys) * BINS).astype(np.int64), minlength=BINS).astype(np.float64)
    weights, likelihood = _fitted(counts)
    for part in np.arange(0, 1, 0.1) * weights[0] if cautious else ():
        fewer, less = _fitted(counts, weights, float(part))
        if less >= likelihood - SURE:
            weights = fewer
            break
    share = float(weights[0])
    if share <= 0:
        return nothing
    if share > HIGHEST:
        return nothing._replace(share=share)
    # What is expected below a score, and what is there; equal scores go together.
    there = np.sort(real)
    below = np.searchsorted(np.sort(decoys), there, "right") / len(decoys)
    false = 1 - share * below * len(real) / np.searchsorted(there, there, "right")
    last = int(np.flatnonzero(false <= fdr).max(initial=-1))
    if last < 0:
        return nothing._replace(share=share)
    return Beyond(real <= there[last], share, float(max(false[last], 0.0)))


def told_apart(
    real: NDArray[Any], decoys: Sequence[NDArray[Any]], rising: Ints, seed: int = 0
) -> tuple[Floats, list[Floats]]:
    """Learn from several numbers a row what tells real rows from decoys, and score all of them by it.

    Boosted trees, cross-fitted: no row is scored by what was learnt from it. Twice: the second time from the real rows
    that did not look like decoys the first time, lest the noise among them be learnt as real.

    Parameters
    ----------
    real : ndarray, shape (n, k)
    decoys : sequence of ndarray, shape (n, k)
        Made of the same rows, so that the folds keep them together.
    rising : ndarray, int64, shape (k,)
        1 for a number that may only speak for a row, 0 for one that may say anything: what no decoy is like, because it
        is worse than all of them, is not taken for real.
    seed : int

    Returns
    -------
    real, decoys : ndarray, float64, shape (n,), and a list of such
        Log odds of being real.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    n = len(real)
    rng = np.random.default_rng(seed)
    fold = rng.integers(FOLDS, size=n)
    scores = np.zeros((1 + len(decoys), n))
    good = np.ones(n, dtype=np.bool_)
    for _ in range(2):
        for part in range(FOLDS):
            learnt, scored = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
            if learnt.size > TRAINED_ON:
                learnt = rng.choice(learnt, TRAINED_ON, replace=False)
            own = learnt[good[learnt]]
            if not scored.size or not own.size:
                continue
            is_real = np.repeat([True, False], [own.size, len(decoys) * learnt.size])
            trees: Any = HistGradientBoostingClassifier(
                max_iter=TREES,
                max_leaf_nodes=8,
                min_samples_leaf=40,
                l2_regularization=1.0,
                early_stopping=False,
                monotonic_cst=rising,
            )
            weights = np.where(is_real, len(decoys), 1)
            read, *asked = numbered(
                np.concatenate([real[own], *(of[learnt] for of in decoys)]),
                weights,
                [of[scored] for of in (real, *decoys)],
            )
            trees.fit(read, is_real, sample_weight=weights)
            for held, of in zip(scores, asked, strict=True):
                held[scored] = trees.decision_function(of)
        good = scores[0] > UNLIKELY
    scores = np.maximum(scores, SUREST)
    return scores[0], list(scores[1:])


def numbered(learnt: NDArray[Any], weights: Ints, others: Sequence[NDArray[Any]]) -> list[Floats]:
    """Give the number of the bin in place of each value, by weighted quantiles of what is learnt from.

    The trees' own bins, bit for bit; but scikit-learn sorts the column again for each of their edges, which takes ten
    times as long as all the trees.

    Parameters
    ----------
    learnt : ndarray, shape (n, k)
        What bins are made of.
    weights : ndarray, int64, shape (n,)
    others : sequence of ndarray, shape (m, k)
        What is put in the same bins.

    Returns
    -------
    list of ndarray, float64
        Of ``learnt``, then of the others.
    """
    given = [np.asarray(one, dtype=np.float64) for one in (learnt, *others)]
    out = [np.empty_like(one) for one in given]
    for column in range(learnt.shape[1]):
        order = np.argsort(given[0][:, column])
        values, below = given[0][order, column], np.cumsum(weights[order])
        distinct = np.unique(values)
        if len(distinct) <= TOLD:
            edges = (distinct[:-1] + distinct[1:]) / 2
        else:
            asked = np.linspace(0, 100, TOLD + 1)[1:-1] / 100 * below[-1]
            at = np.searchsorted(below, asked)
            after = np.minimum(at + 1, len(values) - 1)
            between = below[at] - asked <= np.finfo(np.float64).eps
            edges = np.unique(np.where(between, (values[at] + values[after]) / 2, values[at]))
        for codes, one in zip(out, given, strict=True):
            codes[:, column] = np.searchsorted(edges, one[:, column])
    return out


def _places(real: Floats, decoys: Floats) -> Floats:
    """Give the share of decoys below each score, in [0, 1); equal scores are spread over what is theirs."""
    ordered = np.sort(decoys)
    different, of, sizes = np.unique(real, return_inverse=True, return_counts=True)
    low, high = (np.searchsorted(ordered, different, side) for side in ("left", "right"))
    order = np.argsort(of, kind="stable")
    rank = np.empty(len(real))
    rank[order] = np.arange(len(real)) - (np.cumsum(sizes) - sizes)[of[order]]
    within = (rank + 0.5) / sizes[of]
    return np.asarray((low[of] + within * (high - low + 1)[of]) / (len(ordered) + 1))


def _ramps() -> NDArray[np.float64]:
    """Give the densities that are mixed, each with mean 1: the uniform, and ramps that begin at each onset."""
    middle = (np.arange(BINS) + 0.5) / BINS
    ramps = np.maximum(middle - ONSETS[:, None], 0) ** BEND
    return np.concatenate([np.ones((1, BINS)), ramps / ramps.mean(axis=1, keepdims=True)])


RAMPS = _ramps()


def _fitted(counts: Floats, start: Floats | None = None, share: float | None = None) -> tuple[Floats, float]:
    """Fit the weights of the densities by expectation maximisation, that of the uniform being given or not."""
    there = counts > 0
    held, n, densities = counts[there], counts.sum(), RAMPS[:, there]
    weights = np.full(len(RAMPS), 1 / len(RAMPS)) if start is None else start
    for step in range(ITERATIONS + 1):
        if share is not None:
            rest = weights[1:].sum()
            weights = np.append(
                share, weights[1:] * ((1 - share) / rest) if rest > 0 else (1 - share) / len(ONSETS)
            )
        mixed = weights @ densities
        if step < ITERATIONS:
            weights = weights * (densities @ (held / mixed)) / n
    return weights, float(held @ np.log(np.maximum(mixed, 1e-300)))
