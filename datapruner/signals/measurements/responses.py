"""What a language model makes of the answers when it does not see the questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.progress import PASSES, Ahead
from datapruner.recipe import Recipe
from datapruner.signals.losses import PACED_BY, check_named, measured_rows, missing_records
from datapruner.signals.measurement import LANGUAGE_MODEL, Cost, Given, Measurement, Readers
from datapruner.signals.run import Run, tokens_a_row


class Responses(Measurement):
    """The forward pass over the assistant's turns alone, the unconditional one of IFD."""

    name: ClassVar[str] = "responses"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            "response_log_ppl",
            "log_ppl of the same tokens when the model sees the response alone",
            unit="nats",
        ),
        Given(
            "response_token_nll",
            "token_nll when the model sees the response alone",
            shape="token",
            dtype="float32",
            unit="nats",
        ),
    )
    paced_by: ClassVar[tuple[str, ...]] = PACED_BY
    reads_text: ClassVar[bool] = True
    cost: ClassVar[Cost] = Cost(2.1e-3, "token")

    def model(self, recipe: Recipe) -> str:
        """Name a language model."""
        return LANGUAGE_MODEL

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse to go without a model."""
        check_named(recipe, readers)

    def passes(self, run: Run) -> list[Ahead]:
        """Give the one over the answers."""
        supervised = run.language_model.counts.supervised[run.rows]
        return [Ahead(PASSES["response"], len(run.rows), int(supervised.sum()))]

    def pace(self, run: Run) -> float:
        """Estimate by the model's size, where nothing was measured with it yet."""
        return self.noted_pace(run) or run.guessed_token_seconds * tokens_a_row(run)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that the model has not read."""
        return missing_records(run, "response")

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the model over the answers."""
        return measured_rows(run, "response", run.language_model.counts.supervised)
