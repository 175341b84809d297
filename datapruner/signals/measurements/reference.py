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
from datapruner.signals.second_model import REFERENCE, reference_reader


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

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse a reference that nobody reads, and a scorer that needs one."""
        given = recipe.has(REFERENCE.field)
        if not readers:
            if given:
                raise DataPrunerError(
                    "--reference-model is given, and no scorer of this run reads a reference; take the scorer "
                    "excess_loss"
                )
            return
        if not given:
            raise DataPrunerError(
                f"{next(iter(readers))} holds the model's losses against a reference's: pass --reference-model with a "
                "better model of the same tokens, such as a larger one of the family or one trained on rows that you "
                "trust, and --model with the model that you will train"
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
        reader = reader_of(run)
        if run.objects.reference_model is not None or run.objects.model is not None:
            return None
        found = None if reader is None else reference_reader(run, reader, opens=False)
        if found is None or found.known is None:
            return len(run.rows)
        from datapruner.signals.language_model.records import Asked

        return Asked("row", found.known.identity, found.known, found).missing(
            run.samples, run.rows, run.store
        )

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the reference over the rows."""
        from datapruner.signals.language_model import measure_language_model

        reader, counts = run.language_model
        found = reference_reader(run, reader)
        assert found is not None
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
