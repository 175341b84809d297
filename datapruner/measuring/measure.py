"""From a recipe to the signals of the rows that cleaning left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.stage import clean_embeddings
from datapruner.cleaning.telling import tell_drops
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.inputs import Inputs
from datapruner.measuring.reading import read_samples
from datapruner.measuring.rows import (
    check_columns,
    cleaned,
    require_rows,
    row_mask,
    tell_unread,
    with_targets,
)
from datapruner.options import PrunedModel
from datapruner.recipe import FILES, Recipe
from datapruner.scorers import make_scorer
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals
from datapruner.signals.columns import measure_tokens
from datapruner.signals.divergences import read_divergences
from datapruner.signals.models import known_pruned, open_language_model, open_pruned, renderer_of
from datapruner.signals.plan import make_plan, measure_losses, measure_the_rest
from datapruner.signals.store import SignalStore
from datapruner.signals.tokens import NamedTokenizer, stored_counts
from datapruner.signals.vectors import measure_embedding, measure_target

if TYPE_CHECKING:
    from datapruner.models.encoders import Encoder
    from datapruner.samples.rendered import TokenCounts
    from datapruner.samples.samples import Samples
    from datapruner.signals.language_model.reader import Reader
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
    """
    made = _once_each(
        list(scorers) if scorers is not None else [make_scorer(m.name, m.parameters) for m in recipe.scorers]
    )
    plan = make_plan(recipe, made)
    if samples is None:
        samples = read_samples(recipe, source, embeddings_given=embeddings is not None)
    inputs = _files_read(recipe)
    given_jsd = read_divergences(recipe, divergences, len(samples)) if plan.divergences else None
    check_columns(recipe, plan, samples, made, masks or {})
    store = SignalStore(None if cache is None else Path(cache).expanduser())
    forced = row_mask(recipe.always_keep, samples, "always_keep")
    own = OwnText(samples, recipe.similarity_context)
    vetoes, rows = cleaned(recipe, plan, samples, forced, own, inputs)
    tell_unread(recipe, plan, samples, vetoes)
    fed: _Fed | None = None
    if plan.language_model or plan.responses or plan.twins:
        require_rows(rows)
        fed = _feed(recipe, model, samples, store, progress=progress)
        recipe = recipe.model_copy(update={"max_length": fed.reader.max_length})
        found, rows = with_targets(recipe, fed.counts, rows, forced)
        vetoes += found
    measured: dict[str, Any] = {}
    if plan.target:
        measured |= measure_target(
            recipe,
            samples,
            store,
            given=embeddings is not None,
            own=own,
            embedder=embedder,
            progress=progress,
            read=partial(inputs.rows, "target"),
        )
    if plan.embedding:
        require_rows(rows)
        unread = np.zeros(len(samples), dtype=np.bool_)
        matrix = measure_embedding(
            recipe,
            samples,
            rows,
            store,
            embeddings=embeddings,
            embedder=embedder,
            own=own,
            progress=progress,
            unread=unread,
        )
        before = rows
        found, rows = clean_embeddings(recipe, samples, matrix, rows, forced, unread)
        tell_drops(samples, found)
        vetoes += found
        measured["embedding"] = matrix
        if len(rows) < len(before):
            from datapruner.geometry.blocks import RowView

            measured["embedding"] = RowView(matrix, np.searchsorted(before, rows))
    require_rows(rows)
    if fed is not None and recipe.tokenizer is None:
        tokens = {"num_tokens": fed.counts.tokens, "num_supervised_tokens": fed.counts.supervised}
    else:
        tokens = measure_tokens(recipe, samples, store, required=plan.tokens_required) if plan.tokens else {}
    measured |= {name: counted[rows] for name, counted in tokens.items()}
    if fed is not None:
        reader = fed.reader
        measured |= measure_losses(
            plan,
            reader,
            samples,
            rows,
            store,
            fed.counts,
            open_twin=lambda: open_pruned(
                recipe, store, pruned_model, reader, trust_code=trust_code, progress=progress
            ),
            twin_known=known_pruned(recipe, store, pruned_model, reader.max_length) if plan.twins else None,
            in_turn=recipe.twins == "in_turn",
            release=model is None,
            progress=progress,
        )
    measured |= {} if given_jsd is None else {"jsd": given_jsd[rows]}
    measured |= measure_the_rest(plan, recipe, samples, rows, measured.get("embedding"), store, own)

    renderer = renderer_of(recipe) if fed is None or model is None else fed.reader.render
    recipe = _with_inputs(recipe, samples, inputs)
    signals = Signals(len(rows), measured, recipe.seed, rows)
    return Measured(recipe, made, samples.unchanged(), rows, signals, vetoes, forced, tokens, renderer, store)


class _Fed(NamedTuple):
    """A language model, and the tokens of every row as it reads them."""

    reader: Reader
    counts: TokenCounts


def _feed(
    recipe: Recipe, model: tuple[Any, Any] | None, samples: Samples, store: SignalStore, *, progress: bool
) -> _Fed:
    """Take the model and tokenise all rows: whatever is wrong with them is said before the long pass."""
    reader = open_language_model(recipe, store, model, progress=progress)
    tokenizer = NamedTokenizer(
        lambda: reader.tokenizer, None if reader.known is None else reader.known.tokenizer
    )
    counts = stored_counts(
        samples, tokenizer, store, last_turn_only=reader.last_turn_only, max_length=reader.max_length
    )
    return _Fed(reader, counts)


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
