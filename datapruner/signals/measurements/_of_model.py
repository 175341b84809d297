"""What measurements by one language model have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from datapruner.arrays import Ints
from datapruner.progress import PASSES, Ahead
from datapruner.recipe import Recipe
from datapruner.signals.losses import PACED_BY, check_named, measured_rows, missing_records
from datapruner.signals.measurement import LANGUAGE_MODEL, Measurement, Readers
from datapruner.signals.run import Run, tokens_a_row

if TYPE_CHECKING:
    from datapruner.signals.language_model.records import What


class OfModel(Measurement):
    """A measurement that cannot do without a language model."""

    reads_text: ClassVar[bool] = True

    def model(self, recipe: Recipe) -> str:
        """Name a language model."""
        return LANGUAGE_MODEL

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse to go without a model."""
        check_named(recipe, readers)


class ModelPass(OfModel):
    """A forward pass of a language model, by its records.

    Attributes
    ----------
    what : {"row", "response"}
        What the model reads of a row: all of it, or the answers alone.
    """

    what: ClassVar[What]
    paced_by: ClassVar[tuple[str, ...]] = PACED_BY

    def _tokens(self, run: Run) -> Ints:
        """Give the tokens of every source row that the pass reads; int64 (n,)."""
        counts = run.language_model.counts
        return counts.tokens if self.what == "row" else counts.supervised

    def passes(self, run: Run) -> list[Ahead]:
        """Give the one pass."""
        return [Ahead(PASSES[self.what], len(run.rows), int(self._tokens(run)[run.rows].sum()))]

    def pace(self, run: Run) -> float:
        """Estimate by the model's size, where nothing was measured with it yet."""
        return self.noted_pace(run) or run.guessed_token_seconds * tokens_a_row(run)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that the model has not read."""
        return missing_records(run, self.what)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the model over what it reads."""
        return measured_rows(run, self.what, self._tokens(run))
