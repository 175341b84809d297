"""The passes of one language model, as measurements call for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.models.names import DEFAULT_TOKENIZER
from datapruner.recipe import Recipe
from datapruner.signals.measurement import Fed, Readers, Run
from datapruner.signals.models import open_language_model
from datapruner.signals.tokens import NamedTokenizer, stored_counts

if TYPE_CHECKING:
    from datapruner.signals.language_model.records import What


def check_named(recipe: Recipe, readers: Readers) -> None:
    """Refuse a run without a language model that somebody reads."""
    if readers and recipe.model is None and "model" not in recipe.in_memory:
        raise DataPrunerError(
            f"{next(iter(readers))} reads a language model's losses: name the model that you will train with --model, "
            f"a folder or a hub name, or {DEFAULT_TOKENIZER} (small, and bundled)"
        )


def feed(run: Run) -> Fed:
    """Take the model and tokenise all rows: whatever is wrong with them is said before the long pass."""
    reader = open_language_model(run.recipe, run.store, run.objects.model, progress=run.progress)
    tokenizer = NamedTokenizer(
        lambda: reader.tokenizer, None if reader.known is None else reader.known.tokenizer
    )
    counts = stored_counts(
        run.samples,
        tokenizer,
        run.store,
        last_turn_only=reader.last_turn_only,
        max_length=reader.max_length,
    )
    return Fed(reader, counts)


def measured_rows(run: Run, what: What, tokens: NDArray[Any]) -> dict[str, Any]:
    """Run the language model over a run's rows.

    Parameters
    ----------
    run : Run
    what : {"row", "response"}
    tokens : ndarray, int64
        Of every source row, that this pass reads.
    """
    from datapruner.signals.language_model import measure_language_model

    return measure_language_model(
        run.samples,
        run.rows,
        run.language_model.reader,
        run.store,
        what=what,
        num_tokens=tokens[run.rows],
        progress=run.progress,
        ahead=run.ahead,
    )
