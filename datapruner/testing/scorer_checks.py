"""What every scorer promises, a check each."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.scorers.base import Scorer
from datapruner.selection.selector import GROUPS
from datapruner.signals import Signals
from datapruner.signals.shared import Shared
from datapruner.testing.examples import example_signals, reordered, with_asked
from datapruner.testing.selector_checks import BUDGETS, check_budgets


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
    DataPrunerError
        The scorer refuses the signals, or its own ranking is refused.
    """
    for check in SCORER_CHECKS.values():
        check(scorer, with_asked(example_signals() if signals is None else signals, scorer.requires))


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


def scorer_holds_what_it_announces(scorer: Scorer, signals: Signals) -> None:
    """Where it says what its ranking may hold, the ranking holds nothing else."""
    if scorer.offers is None:
        return
    ranking = scorer.score(signals)
    groups = [GROUPS] if ranking.groups is not None and ranking.group_weights is not None else []
    for name in (*ranking.columns, *ranking.state, *groups):
        assert any(fnmatchcase(name, pattern) for pattern in scorer.offers), (
            f"the ranking holds '{name}', and the scorer announces {', '.join(sorted(scorer.offers))}"
        )


def scorer_repeats(scorer: Scorer, signals: Signals) -> None:
    """The same bytes on a second call, for which nothing is held that the first made."""
    first, second = (scorer.score(replace(signals, shared=Shared())) for _ in range(2))
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
    permuted = scorer.score(reordered(signals, order)).values
    assert np.isfinite(permuted).all()
    if "permutation" in scorer.promises:
        np.testing.assert_allclose(permuted, scorer.score(signals).values[order], rtol=1e-6, atol=1e-9)


def scorer_treats_equals_equally(scorer: Scorer, signals: Signals) -> None:
    """Equal rows get equal values (where the scorer promises it)."""
    rows = np.concatenate([np.arange(signals.num_rows), np.arange(0, signals.num_rows, 3)])
    values = scorer.score(reordered(signals, rows)).values
    assert np.isfinite(values).all()
    if "duplicates" in scorer.promises:
        np.testing.assert_allclose(values[signals.num_rows :], values[: signals.num_rows : 3], rtol=1e-6)


def scorer_takes_one_row(scorer: Scorer, signals: Signals) -> None:
    """One row, and rows that are all equal, are ranked or refused in a sentence."""
    for rows in (np.zeros(1, np.int64), np.zeros(5, np.int64)):
        try:
            values = scorer.score(reordered(signals, rows)).values
        except DataPrunerError:
            continue
        except Exception as error:
            raise AssertionError(f"one row, or equal rows, end in {type(error).__name__}: {error}") from error
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
    check_budgets(scorer.selector(), ranking, signals["num_supervised_tokens"])


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


SCORER_CHECKS: dict[str, Callable[[Scorer, Signals], None]] = {
    check.__name__: check
    for check in (
        scorer_describes_itself,
        scorer_ranks_every_row,
        scorer_holds_what_it_announces,
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
"""By name; each takes a scorer and signals that it can read."""
