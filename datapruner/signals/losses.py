"""The passes of one language model, as measurements call for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.models.names import DEFAULT_TOKENIZER
from datapruner.recipe import Recipe
from datapruner.signals import TARGET_GRADIENT, TARGET_SKETCH, TARGET_STATE
from datapruner.signals.language_model.sketch import GRADIENT_SKETCH, OUTPUT_SKETCH
from datapruner.signals.measurement import Readers
from datapruner.signals.models import known_language_model, open_language_model
from datapruner.signals.run import Fed, Run
from datapruner.signals.tokens import NamedTokenizer, missing_counts, stored_counts

if TYPE_CHECKING:
    from datapruner.arrays import Ints
    from datapruner.samples.rendered import TokenCounts
    from datapruner.samples.samples import Samples
    from datapruner.signals.language_model.reader import Reader
    from datapruner.signals.language_model.records import Vectors, What
    from datapruner.signals.language_model.sketch import Sketch


PACED_BY = ("model", "adapter", "dtype", "device", "device_map", "quantize", "max_length")
"""What decides how fast a language model reads."""
VECTORS = {
    "states": {"pooled_state", TARGET_STATE},
    "gradients": {OUTPUT_SKETCH, GRADIENT_SKETCH, TARGET_SKETCH, TARGET_GRADIENT},
}
"""Signals that stand for rows, in whose place others can."""


def check_named(recipe: Recipe, readers: Readers) -> None:
    """Refuse a run without a language model that somebody reads."""
    if readers and not recipe.has("model"):
        who, needs = next(iter(readers.items()))
        # Whoever reads states may read other vectors of the rows instead.
        what = next((what for what, signals in VECTORS.items() if needs <= signals), None)
        instead = (
            "the parameter representation=embedding"
            if recipe.vectors == "embedding"
            else "--vectors=embedding"
        )
        raise DataPrunerError(
            f"{who} reads a language model's {what or 'losses'}: name the model that you will train with --model, a "
            f"folder or a hub name, or {DEFAULT_TOKENIZER} (small, and bundled)"
            f"{f'; {instead} does without one' if what else ''}"
        )


def feed(run: Run) -> Fed:
    """Take the model and tokenise all rows: whatever is wrong with them is said before the long pass."""
    reader = open_language_model(run.recipe, run.store, run.objects.model, progress=run.progress)
    return Fed(reader, counts_of(run, reader))


def counts_of(run: Run, reader: Reader) -> TokenCounts:
    """Count the tokens of all source rows, or of a part of them, as a language model reads them."""
    return stored_counts(
        run.samples,
        tokenizer_of(reader),
        run.store,
        run.rows if run.part else None,
        last_turn_only=reader.last_turn_only,
        max_length=reader.max_length,
        drop_failing=reader.drop_failing,
    )


def missing_counts_of(run: Run) -> int:
    """Count the rows whose tokens were not counted yet, as the run's language model reads them."""
    reader = reader_of(run)
    if reader is None:
        return len(run.samples)
    return missing_counts(
        run.samples,
        tokenizer_of(reader),
        run.store,
        last_turn_only=reader.last_turn_only,
        max_length=reader.max_length,
    )


def tokenizer_of(reader: Reader) -> NamedTokenizer:
    """Give a language model's own tokenizer, which is loaded where a row has to be tokenised."""
    return NamedTokenizer(lambda: reader.tokenizer, None if reader.known is None else reader.known.tokenizer)


def reader_of(run: Run) -> Reader | None:
    """Give the run's language model where it is open, or can be told without opening it."""
    if run.fed is not None:
        return run.fed.reader
    return None if run.objects.model is not None else known_language_model(run.recipe, run.store)


def missing_records(run: Run, what: What, vectors: Vectors | None = None) -> int | None:
    """Count the rows that the language model has to read; unknown of a model that was given as an object."""
    return missing_of(run, reader_of(run), run.samples, run.rows, what, vectors)


def missing_of(
    run: Run,
    reader: Reader | None,
    samples: Samples,
    rows: Ints,
    what: What = "row",
    vectors: Vectors | None = None,
) -> int | None:
    """Count the same of other rows than the run's own."""
    if reader is None:  # of a name: never opened before, so that nothing of it is stored
        return None if run.objects.model is not None else len(rows)
    if reader.known is None:
        return None
    from datapruner.signals.language_model.records import Asked

    asked = Asked(what, reader.known.identity, reader.known, reader, vectors=vectors or {})
    return asked.missing(samples, rows, run.store)


def measured_rows(
    run: Run, what: What, tokens: NDArray[Any], *, pools: bool = False, sketch: Sketch | None = None
) -> dict[str, Any]:
    """Run the language model over a run's rows.

    Parameters
    ----------
    run : Run
    what : {"row", "response", "pooled"}
    tokens : ndarray, int64
        Of every source row, that this pass reads.
    pools : bool
        The pooled states of rows beside their losses.
    sketch : Sketch, optional
        Of the output layer's gradient, beside the losses.
    """
    from datapruner.signals.language_model import measure_language_model

    return measure_language_model(
        run.samples,
        run.rows,
        run.language_model.reader,
        run.store,
        what=what,
        pools=pools,
        num_tokens=tokens[run.rows],
        progress=run.progress,
        ahead=run.ahead,
        sketch=sketch,
    )
