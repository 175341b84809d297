"""A sketch of the body's gradients for every row of the target set."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from datapruner.arrays import Ints
from datapruner.signals import TARGET_GRADIENT
from datapruner.signals.language_model.sketch import GRADIENT_WORK, gradient_sketch_of
from datapruner.signals.measurement import Cost, Given
from datapruner.signals.measurements._of_target import OfTarget
from datapruner.signals.run import Run

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.samples.samples import Samples


class TargetGradientSketch(OfTarget):
    """Sketches of the rows that ``--target`` names, made with the projections of the data's."""

    name: ClassVar[str] = TARGET_GRADIENT
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            TARGET_GRADIENT,
            "gradient_sketch of every row of the target set, not of the data",
            shape="other set",
            dtype="float32",
        ),
    )
    paced_by: ClassVar[tuple[str, ...]] = (*OfTarget.paced_by, "sketch_layers")
    cost: ClassVar[Cost] = Cost(GRADIENT_WORK * 2e-3, "token")

    def vectors(self, run: Run, samples: Samples, rows: Ints) -> Matrix:
        """Run the pass with a way back."""
        from datapruner.signals.language_model.gradients import measure_gradients

        reader, sketch = run.language_model.reader, gradient_sketch_of(run.recipe)
        return measure_gradients(samples, rows, reader, run.store, sketch, progress=run.progress)
