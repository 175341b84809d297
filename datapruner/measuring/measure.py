"""From a recipe to the signals of the rows that cleaning left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.rows import row_mask
from datapruner.cleaning.stage import Stage, steps_of
from datapruner.cleaning.step import UNREAD, CleaningStep
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.inputs import Inputs
from datapruner.measuring.budgets import BudgetGate
from datapruner.measuring.pool import helped
from datapruner.measuring.reading import fitted, read_rows
from datapruner.measuring.request import Request
from datapruner.measuring.rows import (
    check_columns,
    require_rows,
    tell_cut,
    tell_unread,
)
from datapruner.recipe import FILES, Recipe
from datapruner.results.tally import lines, tallied
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals
from datapruner.signals.failing import RowsFailedError
from datapruner.signals.losses import feed
from datapruner.signals.models import renderer_of
from datapruner.signals.outlook import Outlook, outlook, tell_outlook, timed
from datapruner.signals.plan import SUPERVISED, Plan, Step, make_plan, readers_of
from datapruner.signals.run import Run, taken
from datapruner.signals.store import SignalStore
from datapruner.signals.store.upkeep import keep_within, limit_of
from datapruner.signals.tokens import unrendered

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples
    from datapruner.signals.models import Renderer


class Measured(NamedTuple):
    """What a run measured, before any scorer looks at it: the rows that cleaning left, and their signals.

    ``handed`` is what selectors read, an entry for every row of the source.
    """

    recipe: Recipe
    scorers: list[Scorer]
    samples: Samples
    rows: Ints
    signals: Signals
    vetoes: list[Vetoes]
    forced: Flags
    tokens: dict[str, Ints]
    renderer: Renderer | None
    store: SignalStore
    counted: dict[str, int]
    handed: dict[str, Any]


def measure(request: Request, samples: Samples | None = None) -> Measured:
    """Carry out a request up to the scorers: read, clean, measure.

    Parameters
    ----------
    request : Request
    samples : Samples, optional
        What :func:`datapruner.measuring.reading.read_rows` gave for it, where somebody had to look at them before.
    """
    begun = begin(request, samples)
    tell_outlook(begun.plan, begun.run)
    with begun.run.samples.naming(), helped(request, begun.plan, begun.run):
        return _measured(request, begun)


def _measured(request: Request, begun: Begun) -> Measured:
    plan, run, stage, gate = begun.plan, begun.run, begun.stage, begun.gate
    recipe = run.recipe
    if plan.feeds(recipe):
        feed_and_clean(run, stage, plan)
        recipe = run.recipe
        require_rows(run.rows)
    # A budget in tokens is held against them before anything that takes longer is done.
    counting = plan.counting if request.in_tokens else []
    take(run, stage, counting, plan)
    clean(run, stage)
    require_rows(run.rows)
    gate.check(run.rows, run.tokens.get(SUPERVISED))
    early = [step for step in plan.steps[: plan.first] if step not in counting]
    later = [step for step in plan.steps[plan.first :] if step not in counting]
    for number, step in enumerate(early, 1):
        take(run, stage, [step], plan)
        if clean(run, stage, **{UNREAD: run.unread}):
            take(run, stage, [one for one in early[:number] if one.measurement.together], plan)
        require_rows(run.rows)
    gate.check(run.rows, run.tokens.get(SUPERVISED), more_may_go=False)
    if take(run, stage, later, plan):
        gate.check(run.rows, run.tokens.get(SUPERVISED), more_may_go=False)

    keep_within(request.cache)
    renderer = (
        renderer_of(recipe) if run.fed is None or request.objects.model is None else run.fed.reader.render
    )
    recipe = _with_inputs(recipe, run.samples, run.inputs)
    rows = run.rows
    signals = Signals(len(rows), run.signals, recipe.seed, rows, run.shared)
    return Measured(
        recipe,
        list(request.scorers),
        run.samples.unchanged(),
        rows,
        signals,
        stage.vetoes,
        begun.forced,
        run.tokens,
        renderer,
        run.store,
        stage.counted,
        handed_on(request, run),
    )


def feed_and_clean(run: Run, stage: Stage, plan: Plan) -> None:
    """Take the language model and tokenise the rows, and run the steps that read how they are fed."""
    if run.helped is not None:
        run.helped(None)
    run.fed = feed(run)
    if failed := unrendered(run.fed.counts, run.rows):
        stage.lose(failed)
        run.keep(stage.rows)
    run.recipe = run.recipe.model_copy(update={"max_length": run.fed.reader.max_length})
    counts = run.fed.counts
    tell_cut(counts, run.rows)
    clean(run, stage, supervised_as_fed=counts.supervised, cut_as_fed=counts.truncated)


def handed_on(request: Request, run: Run) -> dict[str, Any]:
    """Give what selectors read, an entry for every row of the source; of those that cleaning dropped any."""
    names = frozenset().union(*request.read_by_selectors.values())
    places = np.zeros(len(run.samples), dtype=np.int64)
    places[run.rows] = np.arange(len(run.rows))
    return {
        name: run.signals[name] if run.every else taken(run.signals[name], places) for name in sorted(names)
    }


def look_ahead(request: Request, samples: Samples | None = None) -> Outlook:
    """Tell what :func:`measure` would measure: rows are read and cleaned, no model runs, and nothing is written.

    Parameters
    ----------
    request, samples
        As for :func:`measure`.
    """
    begun = begin(request, samples, read_only=True)
    dropped: Counter[str] = Counter()
    for vetoes in begun.stage.vetoes:
        dropped[vetoes.kind] += len(vetoes)
    reasons = {vetoes.kind: vetoes.reason for vetoes in begun.stage.vetoes}
    parts = tallied(
        begun.run.recipe, dropped, len(begun.run.samples), reasons=reasons, waiting=begun.stage.waiting
    )
    return replace(outlook(begun.plan, begun.run), parts=tuple(lines(parts)))


class Begun(NamedTuple):
    """A run before any model: its plan, and the rows that the steps which read texts alone have left."""

    plan: Plan
    run: Run
    stage: Stage
    gate: BudgetGate
    forced: Flags


def begin(request: Request, samples: Samples | None = None, *, read_only: bool = False) -> Begun:
    """Carry out a request up to the first model: plan, read, refuse, clean by texts.

    Parameters
    ----------
    request, samples
        As for :func:`measure`.
    read_only : bool
        Nothing is noted for later runs.
    """
    request.check_selectors()
    limit_of()  # refused first
    steps = steps_of(request.recipe, request.cleaning)
    plan = plan_of(request, steps)
    if samples is None:
        samples = read_rows(request)
    with samples.naming():
        return _begin(request, samples, steps, plan, read_only=read_only)


def _begin(
    request: Request, samples: Samples, steps: list[CleaningStep], plan: Plan, *, read_only: bool
) -> Begun:
    """Do so with the rows that were read."""
    recipe = request.recipe
    if (fit := fitted(request, samples)) is not request:
        request, recipe = fit, fit.recipe
        steps = steps_of(recipe, request.cleaning)
        plan = plan_of(request, steps)
    inputs = _files_read(recipe)
    store = SignalStore(request.cache, read_only=read_only)
    run = Run(
        recipe,
        samples,
        store,
        OwnText(samples, recipe.similarity_context, recipe.tells_parts),
        inputs,
        np.arange(len(samples), dtype=np.int64),
        request.objects,
        request.progress,
        plan.required,
        plan.feeds(recipe),
        unread=np.zeros(len(samples), dtype=np.bool_),
    )
    for one, wanted in plan.steps:
        if (lost := one.lacks(samples)) is not None:
            raise DataPrunerError(lost)
        run.prepared[one.name] = one.prepare(run, wanted)
    check_columns(request, samples)
    forced = row_mask(recipe.always_keep, samples, "always_keep")
    gate = BudgetGate(request, samples, forced)
    if recipe.never_keep is None:  # of a row that is listed both ways the first step tells
        gate.check(run.rows)
    stage = Stage(
        steps, samples, forced, run.own, recipe.seed, inputs, run.shared, briefly=recipe.tells_parts
    )
    clean(run, stage)
    require_rows(run.rows)
    gate.check(run.rows)
    tell_unread(recipe, plan, samples, stage.vetoes)
    return Begun(plan, run, stage, gate, forced)


def plan_of(request: Request, cleaning: Sequence[CleaningStep] | None = None) -> Plan:
    """Plan what is measured for a request's scorers, cleaning steps and budgets."""
    recipe, readers = request.recipe, readers_of(request.scorers, in_tokens=request.in_tokens)
    readers = {**readers, **request.read_by_selectors}
    steps = steps_of(recipe, request.cleaning) if cleaning is None else cleaning
    reading = {
        f"the cleaning step '{step.name}'": frozenset(step.needs) - {UNREAD}
        for step in steps
        if step.needs and not step.passive
    }
    return make_plan(recipe, readers, cleaning=reading)


def clean(run: Run, stage: Stage, **of_source: NDArray[Any]) -> bool:
    """Run the cleaning steps whose signals are there; whether they dropped a row.

    Parameters
    ----------
    run : Run
    stage : Stage
    **of_source : ndarray, shape (source rows,)
        What only cleaning reads.
    """
    before = len(run.rows)
    stage.run({**run.signals, **{name: values[run.rows] for name, values in of_source.items()}})
    run.keep(stage.rows)
    return len(run.rows) < before


def take(run: Run, stage: Stage, steps: Sequence[Step], plan: Plan) -> bool:
    """Measure, a step after the other; whether rows were dropped on which that failed."""
    failed = False
    for step in steps:
        one, wanted = step
        number = plan.steps.index(step)
        run.ahead = [ahead for after in plan.steps[number + 1 :] for ahead in after.measurement.passes(run)]
        if run.helped is not None:
            run.helped(one.name)
        try:
            with timed(run, one):
                found = one.measure(run, wanted)
        except RowsFailedError as error:
            if run.recipe.on_error != "drop":
                raise
            stage.lose(error)
            run.keep(stage.rows)
            before = [one for one in plan.steps[:number] if one.wanted & run.signals.keys()]
            take(run, stage, [*(one for one in before if one.measurement.together), step], plan)
            failed = True
            continue
        if lost := sorted((wanted & run.required) - found.keys()):
            raise DataPrunerError(
                f"the measurement '{one.name}' did not give the signal '{lost[0]}', which it announces"
            )
        run.signals |= found
    return failed


def _files_read(recipe: Recipe) -> Inputs:
    """Note the files of numbers that are about to be read."""
    inputs = Inputs(recipe.inputs_content)
    for field in FILES:
        if field in recipe.in_memory:
            continue
        named = getattr(recipe, field)
        keys = [f"{field} {task}" for task in named] if isinstance(named, dict) else [field]
        for key, path in zip(keys, recipe.paths(field), strict=False):  # no paths where nothing is named
            inputs.file(key, Path(path))
    return inputs


def _with_inputs(recipe: Recipe, samples: Samples, inputs: Inputs) -> Recipe:
    """Give the recipe what the inputs held, and the samples their files, which are looked at with the source's own."""
    samples.stamps.update(inputs.stamps)
    return recipe.model_copy(update={"inputs_content": inputs.content})
