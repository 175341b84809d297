"""Compare what scorers keep of the same rows, and how they rank them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from datapruner.arguments import takes
from datapruner.budget import Amount, Budget
from datapruner.comparison.compared import AtBudget
from datapruner.comparison.diversity import diversities
from datapruner.comparison.result import Comparison
from datapruner.comparison.scorers import LeftOut, scorers_of, why_not
from datapruner.comparison.tables import OF_SCORERS
from datapruner.errors import DataPrunerError
from datapruner.measuring.arguments import in_full, requested
from datapruner.measuring.measure import Measured, measure, plan_of
from datapruner.measuring.reading import read_rows
from datapruner.measuring.request import Request
from datapruner.option_types import DEFAULTS, Choosing, notes
from datapruner.overlap import chance, jaccard
from datapruner.parameters import one_or_more
from datapruner.running import rank
from datapruner.scorers._baselines import BASELINES
from datapruner.scorers.length import Length
from datapruner.scorers.random import Random
from datapruner.selection.budget_rows import check_rows
from datapruner.stability import NOISE, OF_ONE_SELECTION, Second, Variations, stability_of
from datapruner.text import safe_repr, safe_text

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples
    from datapruner.scorers.base import Scorer
    from datapruner.scores import Scores
    from datapruner.selection.selector import Selector

MANY = 10_000
"""Groups of a column at most: of more, every scorer and budget would have a table as long as the data."""


@takes(Choosing, defaults=DEFAULTS, told=notes(Choosing), elsewhere=OF_ONE_SELECTION)
def compare(
    source: Any,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] | None = None,
    keep: Amount | Sequence[Amount] | None = None,
    keep_tokens: int | Sequence[int] | None = None,
    by: str | Sequence[str] = (),
    selector: str | Selector | None = None,
    stability: bool = False,
    seeds: int = 5,
    noise: Sequence[float] = NOISE,
    embedders: Sequence[Any] | None = None,
    second_embeddings: Any = None,
    **options: Unpack[Choosing],
) -> Comparison:
    """Compare what scorers keep of the same rows for the same budgets, in as few passes as they need together.

    The baselines ``random`` and, where the rows have text, ``length`` are always among them.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`datapruner.score`.
    scorers : str, Scorer, or a sequence of them
        With ``"all"`` among them, all that there are, those named with the parameters given. Those that cannot run
        with what else is given (no model, no target, no pruned model, rows without text) are then left out, and
        ``left_out`` says why.
    keep : float, int, or a sequence of them, optional
        Fractions of the rows, or numbers of rows; 0.3 where no budget is given.
    keep_tokens : int, or a sequence of them, optional
        Supervised tokens; more budgets, after those of ``keep``.
    by : str or sequence of str
        Columns whose values are groups that what is kept is counted by.
    selector : str or Selector, optional
        Of the scorers named; default: each scorer's own. The baselines keep theirs.
    stability : bool
        Measure too what moves each selection for the first budget; the next four arguments are about that.
    seeds, noise, embedders, second_embeddings
        See :func:`datapruner.compare_stability`.
    **options
        Everything :func:`datapruner.score` takes.

    Returns
    -------
    Comparison

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    varied = Variations(seeds, noise)
    if not stability and (embedders is not None or second_embeddings is not None):
        raise DataPrunerError("two embedders are compared by their stability; pass --stability")
    second = Second.of(options, embedders, second_embeddings)
    given: dict[str, Any] = {**options, **({} if second is None else second.first), "count_tokens": True}
    wanted, samples, columns, left_out, given = asked_for(
        source, scorers=scorers, budgets=budgets_of(keep, keep_tokens), by=by, selector=selector, **given
    )
    held = measure(wanted, samples)
    scores = rank(held) if left_out is None else _rank_what_can(held, left_out)
    held = held._replace(scorers=list(scores.scorers.values()))
    other = None
    if second is not None:
        wanted = wanted.of(*held.scorers)
        other = second.measured(held, second.requested(wanted, source, given))
    budgets = [_at(scores, budget, wanted) for budget in wanted.budgets]
    kept = [{name: np.flatnonzero(of.kept) for name, of in at.selections.items()} for at in budgets]
    found = diversities(held.signals, held.rows, kept)
    return Comparison(
        tuple(replace(at, diversity=of) for at, of in zip(budgets, found, strict=True)),
        tuple(name for name in scores.rankings if name not in BASELINES),
        tuple(columns),
        left_out or {},
        stability_of(held, wanted, varied=varied, second=other) if stability else None,
    )


class Asked(NamedTuple):
    """A comparison before anything is measured.

    Attributes
    ----------
    request : Request
        Of all scorers that can run, the baselines among them.
    samples : Samples
    columns : list of str
        Groups that are counted by.
    left_out : dict, optional
        Where all scorers were asked for: those that cannot run -> why.
    given : dict
        The options, with those of the default recipe where no scorer was named.
    """

    request: Request
    samples: Samples
    columns: list[str]
    left_out: LeftOut | None
    given: dict[str, Any]


def asked_for(
    source: Any,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] | None,
    budgets: Sequence[Budget],
    by: str | Sequence[str] = (),
    selector: str | Selector | None = None,
    **given: Any,
) -> Asked:
    """Read the rows, and work out which scorers are compared on them; see :func:`compare`."""
    columns = _columns(by)
    scorers, given = in_full(scorers, given)
    asked, left_out = scorers_of(scorers)
    made = asked if "random" in {scorer.name for scorer in asked} else [*asked, Random()]
    wanted = requested(source, scorers=made, budgets=budgets, selector=selector, apart=BASELINES, **given)
    if left_out is None:  # refused before anything is read, like everything above
        plan_of(wanted)
    samples = read_rows(wanted)
    for budget in budgets:
        check_rows(budget.keep, len(samples))
    columns = _grouping_columns(columns, samples)
    if left_out is not None:
        reasons = {scorer.name: why_not(scorer, wanted, samples) for scorer in made}
        left_out |= {name: why for name, why in reasons.items() if why is not None}
        made = [scorer for scorer in made if scorer.name not in left_out]
    if samples.layout.has_text and "length" not in {scorer.name for scorer in made}:
        made = [*made, Length()]
    wanted = requested(source, scorers=made, budgets=budgets, selector=selector, apart=BASELINES, **given)
    return Asked(wanted, samples, columns, left_out, given)


def budgets_of(keep: Any, keep_tokens: Any) -> list[Budget]:
    """Build the budgets from what was given, those in rows first.

    Raises
    ------
    DataPrunerError
        One is no budget, or is given twice.
    """
    rows, tokens = ([] if given is None else _listed(given) for given in (keep, keep_tokens))
    if not rows and not tokens:
        rows = [0.3]
    budgets = [Budget(amount) for amount in rows] + [Budget(keep_tokens=amount) for amount in tokens]
    labels = [budget.describe() for budget in budgets]
    for label in labels:
        if labels.count(label) > 1:
            raise DataPrunerError(f"the budget of {label} is given twice")
    return budgets


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, np.ndarray) else one_or_more(given)


def _columns(by: Any) -> list[str]:
    columns = list(dict.fromkeys([by] if isinstance(by, str) else by))
    for column in columns:
        if not isinstance(column, str):
            raise DataPrunerError(f"by names columns, not {safe_repr(column, 60)}")
        if column.startswith(OF_SCORERS):
            raise DataPrunerError(
                f"'{safe_text(column, 60)}' is what the groups that a scorer made are called; rename that column"
            )
    return columns


def _grouping_columns(columns: list[str], samples: Samples) -> list[str]:
    """Refuse columns that make no groups, and add the label where there is one that does."""
    counted = {column: len(set(map(str, samples.column(column)))) for column in columns}
    for column, count in counted.items():
        if count > MANY:
            raise DataPrunerError(
                f"the column '{safe_text(column, 60)}' has {count:,} different values; groups to count by are at most "
                f"{MANY:,}"
            )
    label = samples.layout.columns.get("label")
    if label is None or label in columns or len(set(map(str, samples.column(label)))) > MANY:
        return columns
    return [*columns, label]


def _rank_what_can(held: Measured, left_out: LeftOut) -> Scores:
    """Rank with one scorer after the other, and note which refuses these rows and why."""
    ranked: dict[str, Scores] = {}
    for scorer in held.scorers:
        try:
            ranked[scorer.name] = rank(held, [scorer])
        except DataPrunerError as error:
            left_out[scorer.name] = str(error)
    return replace(
        ranked["random"],
        scorers={name: scores.scorers[name] for name, scores in ranked.items()},
        rankings={name: scores.rankings[name] for name, scores in ranked.items()},
    )


def _at(scores: Scores, budget: Budget, asked: Request) -> AtBudget:
    selections = {
        name: scores.spend(budget, name, asked.selector_of(scorer)) for name, scorer in scores.scorers.items()
    }
    eligible = np.isfinite(next(iter(selections.values())).values)
    if budget.in_tokens:  # no row without supervised tokens is chosen, unless it has to be
        eligible &= (scores.tokens["num_supervised_tokens"] > 0) | scores.forced

    @cache
    def expected(first: int, second: int) -> float:
        return chance((first, second), (eligible, eligible), scores.forced)

    kept = [selection.kept for selection in selections.values()]
    counts = [len(selection) for selection in selections.values()]
    return AtBudget(
        budget,
        selections,
        np.array([[jaccard(a, b) for b in kept] for a in kept]),
        np.array([[expected(min(a, b), max(a, b)) for b in counts] for a in counts]),
    )
