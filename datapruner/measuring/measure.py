"""From a recipe to the signals of the rows that cleaning left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.rows import row_mask
from datapruner.cleaning.stage import Stage, steps_of
from datapruner.cleaning.step import UNREAD, CleaningStep
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.inputs import Inputs
from datapruner.measuring.reading import read_samples
from datapruner.measuring.rows import (
    check_columns,
    require_rows,
    tell_cut,
    tell_unread,
)
from datapruner.options import PrunedModel
from datapruner.recipe import FILES, Recipe
from datapruner.scorers import make_scorer
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals
from datapruner.signals.losses import feed
from datapruner.signals.measurement import Objects, Run
from datapruner.signals.models import renderer_of
from datapruner.signals.outlook import tell_outlook, timed
from datapruner.signals.plan import Plan, Step, make_plan, readers_of
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from datapruner.models.encoders import Encoder
    from datapruner.samples.samples import Samples
    from datapruner.signals.models import Renderer


class Measured(NamedTuple):
    """What a run measured, before any scorer looks at it: the rows that cleaning left, and their signals."""

    recipe: Recipe
    scorers: list[Scorer]
    samples: Samples
    rows: NDArray[np.int64]
    signals: Signals
    vetoes: list[Vetoes]
    forced: NDArray[np.bool_]
    tokens: dict[str, NDArray[np.int64]]
    renderer: Renderer | None
    store: SignalStore


def measure(
    recipe: Recipe,
    *,
    scorers: Sequence[Scorer] | None = None,
    source: Any = None,
    embeddings: Any = None,
    embedder: Encoder | None = None,
    model: tuple[Any, Any] | None = None,
    pruned_model: PrunedModel | None = None,
    divergences: Any = None,
    masks: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
    trust_code: bool = False,
    samples: Samples | None = None,
    cleaning: Sequence[CleaningStep] | None = None,
) -> Measured:
    """Carry out a recipe up to the scorers: read, clean, measure.

    Parameters
    ----------
    recipe : Recipe
    scorers, source, embeddings, embedder, model, pruned_model, divergences, masks
        Objects that stand in for what the recipe names.
    cache, progress, trust_code
        As in :func:`datapruner.score`.
    samples : Samples, optional
        What :func:`read_samples` gave for this recipe, where somebody had to look at the rows before.
    cleaning : sequence of CleaningStep, optional
        Objects that stand in for the steps that the recipe names under ``cleaning``.
    """
    made = _once_each(
        list(scorers) if scorers is not None else [make_scorer(m.name, m.parameters) for m in recipe.scorers]
    )
    steps = steps_of(recipe, cleaning)
    plan = plan_of(recipe, made, steps)
    if samples is None:
        samples = read_samples(recipe, source, embeddings_given=embeddings is not None)
    inputs = _files_read(recipe)
    run = Run(
        recipe,
        samples,
        SignalStore(None if cache is None else Path(cache).expanduser()),
        OwnText(samples, recipe.similarity_context),
        inputs,
        np.arange(len(samples), dtype=np.int64),
        Objects(embeddings, embedder, model, pruned_model, divergences, trust_code),
        progress,
        plan.required,
        plan.feeds(recipe),
        unread=np.zeros(len(samples), dtype=np.bool_),
    )
    for one, wanted in plan.steps:
        run.prepared[one.name] = one.prepare(run, wanted)
    check_columns(recipe, samples, made, masks or {})
    forced = row_mask(recipe.always_keep, samples, "always_keep")
    stage = Stage(steps, samples, forced, run.own, recipe.seed, inputs, run.shared)
    clean(run, stage)
    tell_unread(recipe, plan, samples, stage.vetoes)
    tell_outlook(plan, run)
    if plan.feeds(recipe):
        require_rows(run.rows)
        run.fed = feed(run)
        run.recipe = recipe = recipe.model_copy(update={"max_length": run.fed.reader.max_length})
        counts = run.fed.counts
        tell_cut(counts, run.rows)
        clean(run, stage, supervised_as_fed=counts.supervised, cut_as_fed=counts.truncated)
    require_rows(run.rows)
    early, later = plan.steps[: plan.first], plan.steps[plan.first :]
    for number, step in enumerate(early, 1):
        take(run, [step], plan)
        if clean(run, stage, **{UNREAD: run.unread}):
            take(run, [one for one in early[:number] if one.measurement.together], plan)
        require_rows(run.rows)
    take(run, later, plan)

    renderer = renderer_of(recipe) if run.fed is None or model is None else run.fed.reader.render
    recipe = _with_inputs(recipe, samples, inputs)
    rows = run.rows
    signals = Signals(len(rows), run.signals, recipe.seed, rows, run.shared)
    return Measured(
        recipe,
        made,
        samples.unchanged(),
        rows,
        signals,
        stage.vetoes,
        forced,
        run.tokens,
        renderer,
        run.store,
    )


def plan_of(
    recipe: Recipe, scorers: Sequence[Scorer], cleaning: Sequence[CleaningStep] | None = None
) -> Plan:
    """Plan what is measured for a recipe's scorers, cleaning steps and budget."""
    steps = steps_of(recipe) if cleaning is None else cleaning
    reading = {
        f"the cleaning step '{step.name}'": frozenset(step.needs) - {UNREAD}
        for step in steps
        if step.needs and not step.passive
    }
    return make_plan(recipe, readers_of(scorers), cleaning=reading)


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


def take(run: Run, steps: Sequence[Step], plan: Plan) -> None:
    """Measure, a step after the other."""
    for one, wanted in steps:
        later = plan.steps[plan.names.index(one.name) + 1 :]
        run.ahead = [ahead for step in later for ahead in step.measurement.passes(run)]
        with timed(run, one):
            found = one.measure(run, wanted)
        if lost := sorted((wanted & run.required) - found.keys()):
            raise DataPrunerError(
                f"the measurement '{one.name}' did not give the signal '{lost[0]}', which it announces"
            )
        run.signals |= found


def _files_read(recipe: Recipe) -> Inputs:
    """Note the files of numbers that are about to be read."""
    inputs = Inputs(recipe.inputs_content)
    for field in FILES:
        if field not in recipe.in_memory and (path := recipe.path(field)) is not None:
            inputs.file(field, Path(path))
    return inputs


def _with_inputs(recipe: Recipe, samples: Samples, inputs: Inputs) -> Recipe:
    """Give the recipe what the inputs held, and the samples their files, which are looked at with the source's own."""
    samples.stamps.update(inputs.stamps)
    return recipe.model_copy(update={"inputs_content": inputs.content})


def _once_each(scorers: list[Scorer]) -> list[Scorer]:
    names = [scorer.name for scorer in scorers]
    if len(set(names)) != len(names) or not names:
        raise DataPrunerError(f"every scorer must be named once, not {', '.join(names) or 'none'}")
    return scorers
