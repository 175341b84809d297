"""The contract suite: what every scorer and every selector must pass, a plug-in's too.

>>> from datapruner.testing import check_scorer
>>> check_scorer(MyScorer())  # doctest: +SKIP

A failed check raises :class:`AssertionError` with a sentence. For one test a check, parametrise over
:data:`SCORER_CHECKS` or :data:`SELECTOR_CHECKS`.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.ragged import offsets_of
from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.selection.budget import Portion
from datapruner.selection.selector import Selector
from datapruner.selection.selectors.message_passing import DISTANCES, NEIGHBOURS
from datapruner.signals import TARGET, Ragged, Signals

BUDGETS = (0.1, 0.3, 0.5, 1.0)


def example_signals(n: int = 120, *, seed: int = 0) -> Signals:
    """Make every known signal for ``n`` rows: three uneven clusters of 16-dimensional vectors, and texts."""
    rng = np.random.default_rng(seed)
    cluster = rng.choice(3, size=n, p=[0.6, 0.3, 0.1])
    centres = rng.normal(size=(3, 16))
    embedding = (centres[cluster] + 0.3 * rng.normal(size=(n, 16))).astype(np.float32)
    supervised = rng.integers(1, 200, size=n)
    offsets = np.concatenate([[0], np.cumsum(supervised)]).astype(np.int64)
    of = np.repeat(np.arange(n), supervised)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(of, values.astype(np.float64), n) / supervised

    level = rng.normal(size=(3, n))
    nll = np.exp(0.5 * level[0][of] + rng.normal(size=len(of))).astype(np.float32)
    alone = (nll * np.exp(0.3 * level[1][of] + 0.2)).astype(np.float32)
    entropy = np.exp(0.4 * level[2][of] + 0.5 * rng.normal(size=len(of))).astype(np.float32)
    near, twin = (np.random.default_rng([seed, number]) for number in (1, 2))
    token_jsd = (np.log(2) * twin.beta(1 + cluster[of], 6)).astype(np.float32)
    pruned_nll = (nll * np.exp(twin.normal(0.3, 0.2, size=len(of)))).astype(np.float32)
    norms = 3 * mean(nll) / np.sqrt(supervised)
    target = embedding[near.permutation(n)[: max(12, n // 8)]]
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
    return Signals(
        n,
        {
            "embedding": embedding,
            TARGET: (target + 0.2 * near.normal(size=target.shape)).astype(np.float32),
            "neighbours": _neighbours(embedding),
            "manifold": (embedding[:, :2] + 0.1 * embedding[:, 2:4]).astype(np.float64),
            "label": rng.integers(0, 3, size=n),
            "num_tokens": supervised + rng.integers(1, 300, size=n),
            "num_supervised_tokens": supervised,
            "text": [f"{' '.join(rng.choice(words, size=6))} {row}" for row in range(n)],
            "log_ppl": mean(nll),
            "entropy": mean(entropy),
            "el2n": mean(np.sqrt(-np.expm1(-nll))),
            "grad_norm": norms,
            "weight_dot": mean(nll) - mean(entropy),
            "weight_norm": np.full(n, 40.0),
            "token_nll": Ragged(nll, offsets),
            "token_entropy": Ragged(entropy, offsets),
            "number_surprise": np.where(rng.random(n) < 0.3, 0.0, rng.normal(size=n)),
            "jsd": mean(token_jsd),
            "token_jsd": Ragged(token_jsd, offsets),
            "pruned_log_ppl": mean(pruned_nll),
            "pruned_token_nll": Ragged(pruned_nll, offsets),
            "pruned_grad_norm": 1.5 * norms,
            "gradient_dot": 1.5 * norms**2 * twin.uniform(-0.2, 1, size=n),
            "response_log_ppl": mean(alone),
            "response_token_nll": Ragged(alone, offsets),
        },
        seed,
    )


def check_scorer(scorer: Scorer, signals: Signals | None = None) -> None:
    """Run every check of :data:`SCORER_CHECKS` on a scorer.

    Parameters
    ----------
    scorer : Scorer
    signals : Signals, optional
        At least 20 rows of what it needs; default :func:`example_signals`.

    Raises
    ------
    AssertionError
        A promise of the contract is broken; the message says which.
    """
    for check in SCORER_CHECKS.values():
        check(scorer, example_signals() if signals is None else signals)


def check_selector(selector: Selector) -> None:
    """Run every check of :data:`SELECTOR_CHECKS` on a selector.

    Parameters
    ----------
    selector : Selector

    Raises
    ------
    AssertionError
        A promise of the contract is broken; the message says which.
    """
    for check in SELECTOR_CHECKS.values():
        check(selector)


def scorer_describes_itself(scorer: Scorer, signals: Signals) -> None:
    """A name, needs that exist, parameters that build it again."""
    assert scorer.name.isidentifier(), f"the name '{scorer.name}' is not a plain word"
    for need in scorer.requires:
        signals[need]
    assert type(scorer)(**scorer.parameters()) == scorer, "the parameters do not build the scorer again"


def scorer_ranks_every_row(scorer: Scorer, signals: Signals) -> None:
    """Finite float64 values, one a row; groups and weights that fit together."""
    ranking = scorer.score(signals)
    assert ranking.values.dtype == np.float64
    assert ranking.values.shape == (signals.num_rows,)
    assert np.isfinite(ranking.values).all()
    if ranking.groups is not None:
        assert ranking.groups.dtype == np.int64, "groups must be int64"
        assert ranking.groups.min() >= 0, "every row needs a group"
    if ranking.group_weights is not None:
        assert ranking.groups is not None, "weights without groups"
        assert len(ranking.group_weights) > ranking.groups.max(), "a group has no weight"
        assert (ranking.group_weights >= 0).all(), "a weight is negative"


def scorer_repeats(scorer: Scorer, signals: Signals) -> None:
    """The same bytes on a second call."""
    first, second = scorer.score(signals), scorer.score(signals)
    assert first.values.tobytes() == second.values.tobytes(), "two calls give different values"
    assert (first.groups is None) == (second.groups is None)
    if first.groups is not None and second.groups is not None:
        assert first.groups.tobytes() == second.groups.tobytes(), "two calls give different groups"


def scorer_leaves_signals_alone(scorer: Scorer, signals: Signals) -> None:
    """Nothing that was measured is changed."""
    before = copy.deepcopy(dict(signals.measured))
    scorer.score(signals)
    for name, value in signals.measured.items():
        now, was = ((held.values if isinstance(held, Ragged) else held) for held in (value, before[name]))
        same = np.array_equal(now, was) if isinstance(now, np.ndarray) else now == was
        assert same, f"the signal '{name}' was changed"


def scorer_follows_rows(scorer: Scorer, signals: Signals) -> None:
    """Permuted rows get the same values, permuted (where the scorer promises it)."""
    order = np.random.default_rng(1).permutation(signals.num_rows)
    permuted = scorer.score(_reordered(signals, order)).values
    assert np.isfinite(permuted).all()
    if "permutation" in scorer.promises:
        np.testing.assert_allclose(permuted, scorer.score(signals).values[order], rtol=1e-6, atol=1e-9)


def scorer_treats_equals_equally(scorer: Scorer, signals: Signals) -> None:
    """Equal rows get equal values (where the scorer promises it)."""
    rows = np.concatenate([np.arange(signals.num_rows), np.arange(0, signals.num_rows, 3)])
    values = scorer.score(_reordered(signals, rows)).values
    assert np.isfinite(values).all()
    if "duplicates" in scorer.promises:
        np.testing.assert_allclose(values[signals.num_rows :], values[: signals.num_rows : 3], rtol=1e-6)


def scorer_takes_one_row(scorer: Scorer, signals: Signals) -> None:
    """One row, and rows that are all equal, are ranked or refused in a sentence."""
    for rows in (np.zeros(1, np.int64), np.zeros(5, np.int64)):
        try:
            values = scorer.score(_reordered(signals, rows)).values
        except DataPrunerError:
            continue
        assert np.isfinite(values).all(), "one row, or equal rows, give a value that is not finite"


def scorer_refuses_nan(scorer: Scorer, signals: Signals) -> None:
    """NaN in a needed signal is refused in a sentence, never ranked."""
    for need in sorted(scorer.requires):
        value = signals[need]
        broken: Any
        if isinstance(value, Ragged):
            broken = Ragged(value.values.copy(), value.offsets)
            broken[7][:] = np.nan
        elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
            broken = value.copy()
            broken[7] = np.nan
        else:
            continue
        try:
            scorer.score(replace(signals, measured={**signals.measured, need: broken}))
        except DataPrunerError as error:
            assert "7" in str(error), f"the error does not name row 7: {error}"
        else:
            raise AssertionError(f"NaN in '{need}' was ranked")


def scorer_meets_budgets(scorer: Scorer, signals: Signals) -> None:
    """Its own selector spends every budget exactly, in rows, and nearly, in tokens."""
    ranking = scorer.score(signals)
    _check_budgets(scorer.selector(), ranking, signals["num_supervised_tokens"])


def scorer_survives_saving(scorer: Scorer, signals: Signals) -> None:
    """A saved and re-read ranking gives the same selection."""
    from datasets import Dataset

    from datapruner.recipe import Method, Recipe
    from datapruner.samples import load_samples
    from datapruner.scores import Scores, load_scores

    dataset = Dataset.from_dict({"text": list(map(str, range(signals.num_rows)))})
    scores = Scores(
        load_samples(dataset),
        Recipe(scorers=[Method(name=scorer.name, parameters=scorer.parameters())]),
        {scorer.name: scorer},
        {scorer.name: scorer.score(signals)},
        [],
        np.zeros(signals.num_rows, dtype=np.bool_),
        {"num_supervised_tokens": signals["num_supervised_tokens"]},
    )
    with tempfile.TemporaryDirectory() as work:
        scores.save(Path(work) / "scores")
        again = load_scores(Path(work) / "scores", source=dataset, scorers=[scorer])
    for keep in BUDGETS:
        first, second = scores.select(keep=keep), again.select(keep=keep)
        assert np.array_equal(first.kept, second.kept), f"the saved ranking selects other rows at {keep}"
        assert first.texts == second.texts


def selector_meets_budgets(selector: Selector) -> None:
    """Every budget is spent exactly in rows; in tokens less is left than the cheapest dropped row costs."""
    for number in range(20):
        ranking, tokens = _random_ranking(number)
        _check_budgets(selector, ranking, tokens)


def selector_gives_reasons(selector: Selector) -> None:
    """Every row has a reason that says whether it was kept."""
    ranking, _ = _random_ranking(0)
    n = len(ranking.values)
    choice = selector.select(ranking, _portion(n, np.ones(n, np.int64), n // 3), _rng())
    assert choice.codes.shape == (n,)
    for kept, code in zip(choice.kept.tolist(), choice.codes.tolist(), strict=True):
        text = choice.texts[code]
        assert text.startswith("kept" if kept else "dropped"), f"a row that is kept={kept} says: {text}"


def selector_masks_tokens_of_kept_rows(selector: Selector) -> None:
    """Where tokens are pruned, it is in kept rows, one entry a supervised token, and some of each row stay."""
    ranking, tokens = _random_ranking(6)
    n = len(tokens)
    choice = selector.select(ranking, _portion(n, np.ones(n, np.int64), n // 2), _rng())
    if choice.token_masks is None:
        return
    masks = choice.token_masks
    masked = masks.lengths > 0
    assert len(masks) == n, (
        "token masks are needed for every row of the portion, empty where nothing is pruned"
    )
    assert masks.values.dtype == np.bool_, "token masks must be bool"
    assert choice.kept[masked].all(), "a dropped row has a token mask"
    assert (masks.lengths == tokens)[masked].all(), "a token mask is not as long as its row"
    assert all(mask.any() for mask in masks if len(mask)), "a kept row loses all its tokens"


def selector_repeats(selector: Selector) -> None:
    """The same seed gives the same rows, and the ranking is left alone."""
    ranking, tokens = _random_ranking(3)
    before = copy.deepcopy(ranking)
    n = len(tokens)
    first = selector.select(ranking, _portion(n, tokens, int(tokens.sum()) // 4), _rng())
    second = selector.select(ranking, _portion(n, tokens, int(tokens.sum()) // 4), _rng())
    assert np.array_equal(first.kept, second.kept), "two calls keep different rows"
    assert np.array_equal(before.values, ranking.values), "the ranking was changed"


def selector_reads_only_its_portion(selector: Selector) -> None:
    """Rows outside the portion do not matter, whatever their values."""
    ranking, _ = _random_ranking(4)
    n = len(ranking.values)
    rows = np.sort(np.random.default_rng(5).permutation(n)[: n // 2])
    portion = Portion(rows, np.ones(len(rows), np.int64), len(rows) // 3)
    values = np.full(n, np.nan)
    values[rows] = ranking.values[rows]
    columns = {name: np.where(np.isnan(values), np.nan, column) for name, column in ranking.columns.items()}
    choice = selector.select(ranking, portion, _rng())
    blind = selector.select(replace(ranking, values=values, columns=columns), portion, _rng())
    assert np.array_equal(choice.kept, blind.kept), "rows outside the portion changed the choice"


def selector_takes_little(selector: Selector) -> None:
    """One row, equal values, and a budget of nothing."""
    one = Ranking(np.zeros(1), np.zeros(1, np.int64), np.ones(1), *_plane(np.zeros(1), np.ones(1, np.int64)))
    assert selector.select(one, _portion(1, np.ones(1, np.int64), 1), _rng()).kept.all()
    equal = Ranking(np.ones(9), np.zeros(9, np.int64), np.ones(1), *_plane(np.ones(9), np.full(9, 3)))
    assert selector.select(equal, _portion(9, np.ones(9, np.int64), 4), _rng()).kept.sum() == 4
    assert not selector.select(equal, _portion(9, np.ones(9, np.int64), 0), _rng()).kept.any()


SCORER_CHECKS: dict[str, Callable[[Scorer, Signals], None]] = {
    check.__name__: check
    for check in (
        scorer_describes_itself,
        scorer_ranks_every_row,
        scorer_repeats,
        scorer_leaves_signals_alone,
        scorer_follows_rows,
        scorer_treats_equals_equally,
        scorer_takes_one_row,
        scorer_refuses_nan,
        scorer_meets_budgets,
        scorer_survives_saving,
    )
}
SELECTOR_CHECKS: dict[str, Callable[[Selector], None]] = {
    check.__name__: check
    for check in (
        selector_meets_budgets,
        selector_gives_reasons,
        selector_masks_tokens_of_kept_rows,
        selector_repeats,
        selector_reads_only_its_portion,
        selector_takes_little,
    )
}


def _check_budgets(selector: Selector, ranking: Ranking, tokens: NDArray[np.int64]) -> None:
    n = len(ranking.values)
    for share in BUDGETS:
        rows = max(1, round(share * n))
        kept = selector.select(ranking, _portion(n, np.ones(n, np.int64), rows), _rng()).kept
        assert kept.sum() == rows, f"{selector.name} kept {kept.sum()} rows of a budget of {rows}"
        budget = int(share * tokens.sum())
        kept = selector.select(ranking, _portion(n, tokens, budget), _rng()).kept
        left = budget - int(tokens[kept].sum())
        assert left >= 0, f"{selector.name} overspent a token budget by {-left}"
        if not kept.all():
            assert left < tokens[~kept].min(), f"{selector.name} left {left} tokens, enough for another row"


def _random_ranking(seed: int) -> tuple[Ranking, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(2, 200)), int(rng.integers(1, 9))
    # Rounded, so that ties are common.
    values = np.round(rng.normal(size=n), int(rng.integers(0, 4)))
    groups, weights = rng.integers(0, k, size=n), rng.random(k) * (rng.random(k) < 0.8) + 1e-9
    tokens = rng.integers(1, 50, size=n)
    return Ranking(values, groups, weights, *_plane(np.round(rng.gamma(2, size=n), 2), tokens)), tokens


def _plane(log_ppl: NDArray[np.float64], tokens: NDArray[np.int64]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give columns and state that scorers leave for their selectors: of a language model's pass, a walk, a graph."""
    token_nll = Ragged(np.repeat(log_ppl, tokens), offsets_of(tokens))
    walk = np.random.default_rng(len(log_ppl)).permutation(len(log_ppl))
    return {"log_ppl": log_ppl, "entropy": np.sqrt(log_ppl[::-1]), "walk_place": walk}, {
        "token_nll": token_nll,
        **_graph(len(log_ppl)),
    }


def _graph(n: int) -> dict[str, Ragged]:
    """Give the state that D2 leaves, for random neighbours: each edge stands at both of its ends."""
    rng = np.random.default_rng(n)
    low, high = np.divmod(np.unique(rng.integers(0, n * n, size=3 * n)), n)
    low, high = low[low < high], high[low < high]
    own, other = np.concatenate([low, high]), np.concatenate([high, low])
    apart = np.tile(np.round(rng.random(len(low)), 1), 2).astype(np.float32)
    order, offsets = np.lexsort((other, own)), offsets_of(np.bincount(own, minlength=n))
    return {NEIGHBOURS: Ragged(other[order], offsets), DISTANCES: Ragged(apart[order], offsets)}


def _portion(n: int, costs: NDArray[np.int64], budget: int) -> Portion:
    return Portion(np.arange(n), costs, budget, "", "rows" if (costs == 1).all() else "tokens")


def _reordered(signals: Signals, rows: NDArray[np.int64]) -> Signals:
    def taken(value: Any) -> Any:
        if isinstance(value, Ragged):
            return value.take(rows)
        return value[rows] if isinstance(value, np.ndarray) else [value[row] for row in rows.tolist()]

    measured = {name: value if name == TARGET else taken(value) for name, value in signals.measured.items()}
    if "neighbours" in measured:  # positions among the rows
        measured["neighbours"] = _neighbours(measured["embedding"])
    return Signals(len(rows), measured, signals.seed)


def _neighbours(embedding: NDArray[np.float32]) -> NDArray[np.int64]:
    from datapruner.geometry.neighbours import neighbour_table

    return neighbour_table(embedding, 8).indices


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)
