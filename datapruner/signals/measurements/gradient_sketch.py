"""What the linear layers of a language model would learn of each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.progress import PASSES, Ahead
from datapruner.signals.language_model.sketch import GRADIENT_SKETCH, GRADIENT_WORK, gradient_sketch_of
from datapruner.signals.losses import PACED_BY, reader_of
from datapruner.signals.measurement import Cost, Given
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.run import Run, tokens_a_row


class GradientSketches(OfModel):
    """A pass with a way back; see :mod:`datapruner.signals.language_model.gradients`."""

    name: ClassVar[str] = "gradient_sketch"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            GRADIENT_SKETCH,
            "random projection of the mean loss's gradient by the weights of every linear layer",
            shape="matrix",
            dtype="float32",
        ),
    )
    paced_by: ClassVar[tuple[str, ...]] = (*PACED_BY, "sketch_layers")
    cost: ClassVar[Cost] = Cost(GRADIENT_WORK * 2e-3, "token")

    def passes(self, run: Run) -> list[Ahead]:
        """Give the one, which goes back too."""
        tokens = run.language_model.counts.tokens[run.rows]
        return [Ahead(PASSES["gradients"], len(run.rows), int(tokens.sum()), GRADIENT_WORK)]

    def pace(self, run: Run) -> float:
        """Estimate by the model's size, where nothing was measured with it yet."""
        return self.noted_pace(run) or GRADIENT_WORK * run.guessed_token_seconds * tokens_a_row(run)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that are not stored; unknown of a model that was given as an object."""
        reader = reader_of(run)
        if reader is None:  # of a name: never opened before, so that nothing of it is stored
            return None if run.objects.model is not None else len(run.rows)
        if reader.known is None:
            return None
        from datapruner.signals.language_model.records import Asked

        settings = gradient_sketch_of(run.recipe).settings
        asked = Asked("gradients", reader.known.identity, reader.known, reader, settings=settings)
        return asked.missing(run.samples, run.rows, run.store)

    def disk(self, run: Run, wanted: frozenset[str]) -> int:
        """Count a sketch's numbers."""
        return gradient_sketch_of(run.recipe).disk

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the model over the rows and back."""
        from datapruner.signals.language_model.gradients import measure_gradients

        reader, counts = run.language_model
        found = measure_gradients(
            run.samples,
            run.rows,
            reader,
            run.store,
            gradient_sketch_of(run.recipe),
            num_tokens=counts.tokens[run.rows],
            progress=run.progress,
            ahead=run.ahead,
        )
        return {GRADIENT_SKETCH: found}
