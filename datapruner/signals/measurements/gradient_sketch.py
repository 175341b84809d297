"""What the linear layers of a language model, or of its checkpoints, would learn of each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.progress import PASSES, Ahead
from datapruner.recipe import Recipe
from datapruner.signals.checkpoints import measure_parts, missing_of, parts_of
from datapruner.signals.language_model.sketch import GRADIENT_OPTIONS, GRADIENT_SKETCH, GRADIENT_WORK
from datapruner.signals.losses import PACED_BY
from datapruner.signals.measurement import Cost, Given, Readers
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
    options: ClassVar[tuple[str, ...]] = GRADIENT_OPTIONS
    paced_by: ClassVar[tuple[str, ...]] = (*PACED_BY, "sketch_layers", "sketch_checkpoints", "sketch_moments")
    cost: ClassVar[Cost] = Cost(GRADIENT_WORK * 2e-3, "token")

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse to go without a model, and checkpoints that are not there."""
        super().check(recipe, readers)
        if readers:
            parts_of(recipe)

    def passes(self, run: Run) -> list[Ahead]:
        """Give one for each model, which goes back too."""
        rows, tokens = len(run.rows), int(run.language_model.counts.tokens[run.rows].sum())
        return [Ahead(PASSES["gradients"], rows, tokens, part.work) for part in parts_of(run.recipe)]

    def seconds(self, run: Run, wanted: frozenset[str], rows: int) -> float:
        """Estimate: a pace is that of one model."""
        return self.pace(run) * rows * len(parts_of(run.recipe))

    def pace(self, run: Run) -> float:
        """Estimate by the model's size, where nothing was measured with it yet."""
        work = max(part.work for part in parts_of(run.recipe))
        return self.noted_pace(run) or work * run.guessed_token_seconds * tokens_a_row(run)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that are not stored; unknown of a model that was given as an object."""
        return missing_of(run, parts_of(run.recipe))

    def disk(self, run: Run, wanted: frozenset[str]) -> int:
        """Count the sketches' numbers."""
        return sum(part.sketch.disk for part in parts_of(run.recipe))

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the models over the rows and back."""
        tokens, parts = run.language_model.counts.tokens[run.rows], parts_of(run.recipe)
        return {GRADIENT_SKETCH: measure_parts(run, run.samples, run.rows, parts, num_tokens=tokens)}
