"""What the linear layers of a pruned model would learn of each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.errors import DataPrunerError
from datapruner.progress import PASSES, Ahead
from datapruner.recipe import Recipe
from datapruner.signals.checkpoints import parts_of
from datapruner.signals.language_model.sketch import GRADIENT_OPTIONS, GRADIENT_WORK
from datapruner.signals.losses import PACED_BY, reader_of
from datapruner.signals.measurement import Cost, Given, Readers
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.run import Run, tokens_a_row
from datapruner.signals.second_model import PRUNED, known_second, pruned_reader

PRUNED_SKETCH = "pruned_gradient_sketch"


class PrunedGradientSketch(OfModel):
    """A pass of the pruned model with a way back, sketched with the projections of the dense model's."""

    name: ClassVar[str] = PRUNED_SKETCH
    gives: ClassVar[tuple[Given, ...]] = (
        Given(PRUNED_SKETCH, "gradient_sketch of the pruned model", shape="matrix", dtype="float32"),
    )
    options: ClassVar[tuple[str, ...]] = GRADIENT_OPTIONS
    paced_by: ClassVar[tuple[str, ...]] = (*PACED_BY, "pruned_model", "sketch_layers")
    cost: ClassVar[Cost] = Cost(GRADIENT_WORK * 2e-3, "token")

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse to go without both models, and gradients of anything else."""
        super().check(recipe, readers)
        if not readers:
            return
        who = next(iter(readers))
        if not recipe.has("pruned_model"):
            raise DataPrunerError(
                f"{who} compares a pruned model's gradients with the dense one's: pass --pruned-model with the model "
                "that was pruned"
            )
        for option, given in (
            ("--sketch-checkpoints", recipe.sketch_checkpoints is not None),
            ("--sketch-moments", recipe.sketch_moments == "adam"),
        ):
            if given:
                raise DataPrunerError(
                    f"{who} compares the gradients of --model and --pruned-model as they are; leave {option} out"
                )

    def passes(self, run: Run) -> list[Ahead]:
        """Give the one, which goes back too."""
        tokens = run.language_model.counts.tokens[run.rows]
        return [Ahead(PASSES["gradients"], len(run.rows), int(tokens.sum()), GRADIENT_WORK)]

    def pace(self, run: Run) -> float:
        """Estimate by the dense model's size, where nothing was measured with it yet."""
        return self.noted_pace(run) or GRADIENT_WORK * run.guessed_token_seconds * tokens_a_row(run)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that are not stored; unknown of models that were given as objects."""
        from datapruner.signals.language_model.records import asked_of_gradients

        main = reader_of(run)
        if run.objects.model is not None or run.objects.pruned_model is not None:
            return None
        known = None if main is None else known_second(PRUNED, run.recipe, run.store, None, main.max_length)
        if main is None or main.known is None or known is None:
            return len(run.rows)
        reader = pruned_reader(run, main)
        if reader.known is None:
            return len(run.rows)
        asked = asked_of_gradients(reader, reader.known, parts_of(run.recipe)[0].sketch)
        return asked.missing(run.samples, run.rows, run.store)

    def disk(self, run: Run, wanted: frozenset[str]) -> int:
        """Count a sketch's numbers."""
        return parts_of(run.recipe)[0].sketch.disk

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the pruned model over the rows and back."""
        from datapruner.signals.language_model.gradients import layers_alike, measure_gradients

        main, counts = run.language_model
        reader, sketch = pruned_reader(run, main), parts_of(run.recipe)[0].sketch
        if not layers_alike(main, reader, sketch.layers, run.store):
            raise DataPrunerError(
                "the pruned model's linear layers are not those of the dense one (other names or widths), so that "
                "their gradients cannot be compared one by one; take degradation=gradient, of the output layer"
            )
        found = measure_gradients(
            run.samples,
            run.rows,
            reader,
            run.store,
            sketch,
            num_tokens=counts.tokens[run.rows],
            progress=run.progress,
            ahead=run.ahead,
        )
        return {PRUNED_SKETCH: found}
