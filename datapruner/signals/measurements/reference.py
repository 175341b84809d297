"""What a reference model makes of the rows: a pass of its own over the tokens of the first model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.errors import DataPrunerError
from datapruner.progress import Ahead
from datapruner.recipe import Recipe
from datapruner.signals.losses import PACED_BY, reader_of
from datapruner.signals.measurement import Cost, Given, Readers
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.run import Run, tokens_a_row
from datapruner.signals.second_model import REFERENCE, missing_of_reference, reference_reader

IMPLICIT = ("implicit_reward", "rejected_implicit_reward")
"""What :mod:`datapruner.signals.measurements.implicit_rewards` gives, which reads the reference once more."""


class Reference(OfModel):
    """The reference's losses, whose records are those that it leaves as ``--model``."""

    name: ClassVar[str] = "reference"
    gives: ClassVar[tuple[Given, ...]] = (
        Given("reference_log_ppl", "log_ppl of the reference model", unit="nats"),
        Given(
            "reference_token_nll",
            "token_nll of the reference model",
            shape="token",
            dtype="float32",
            unit="nats",
        ),
    )
    options: ClassVar[tuple[str, ...]] = (REFERENCE.field,)
    paced_by: ClassVar[tuple[str, ...]] = (*PACED_BY, REFERENCE.field)
    # A little less than the first model's pass, so that it comes first: whatever is wrong with it is told at once.
    cost: ClassVar[Cost] = Cost(1.9e-3, "token")

    def reads(self, signals: frozenset[str]) -> bool:
        """Whether these are of the reference, or made with it."""
        return super().reads(signals) or not signals.isdisjoint(IMPLICIT)

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse a reference that nobody reads, and a scorer that needs one."""
        given = recipe.has(REFERENCE.field)
        if not readers:
            if given:
                raise DataPrunerError(
                    "--reference-model is given, and no scorer of this run reads a reference; take the scorer "
                    "excess_loss, or preference_margin with reward=implicit"
                )
            return
        if not given:
            raise DataPrunerError(
                f"{next(iter(readers))} holds the model's losses against a reference's: pass --reference-model with a "
                "better model of the same tokens (a larger one of the family, one trained on rows that you trust), or "
                "for implicit rewards with what --model was before it was trained on preferences"
            )
        super().check(recipe, readers)

    def passes(self, run: Run) -> list[Ahead]:
        """Give the one pass."""
        tokens = run.language_model.counts.tokens[run.rows]
        return [Ahead(REFERENCE.called, len(run.rows), int(tokens.sum()))]

    def pace(self, run: Run) -> float:
        """Estimate by the reference's size, where nothing was measured with it yet."""
        given = run.objects.reference_model
        token = run.token_seconds(run.recipe.reference_model, given[0] if isinstance(given, tuple) else None)
        return self.noted_pace(run) or token * tokens_a_row(run)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that the reference has not read; unknown of models that were given as objects."""
        return missing_of_reference(run, reader_of(run), run.samples, run.rows)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the reference over the rows."""
        from datapruner.signals.language_model import measure_language_model

        reader, counts = run.language_model
        found = reference_reader(run, reader)
        if not run.required.isdisjoint(IMPLICIT):
            run.reference = found  # it need not be opened again
        held = measure_language_model(
            run.samples,
            run.rows,
            found,
            run.store,
            num_tokens=counts.tokens[run.rows],
            progress=run.progress,
            ahead=run.ahead,
            called=REFERENCE.called,
        )
        return {f"reference_{name}": held[name] for name in ("log_ppl", "token_nll")}
