"""A sketch of the output layer's gradient for every row of the target set."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from datapruner.arrays import Ints
from datapruner.signals import TARGET_SKETCH
from datapruner.signals.language_model.sketch import OUTPUT_SKETCH, SKETCH_OPTIONS, sketch_of
from datapruner.signals.measurement import Given
from datapruner.signals.measurements._of_target import OfTarget
from datapruner.signals.run import Run

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.samples.samples import Samples


class TargetOutputSketch(OfTarget):
    """Sketches of the rows that ``--target`` names, made with the projections of the data's."""

    name: ClassVar[str] = TARGET_SKETCH
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            TARGET_SKETCH,
            "output_sketch of every row of the target set, not of the data",
            shape="other set",
            dtype="float32",
        ),
    )
    options: ClassVar[tuple[str, ...]] = SKETCH_OPTIONS

    def vectors(self, run: Run, samples: Samples, rows: Ints) -> Matrix:
        """Run the pass of losses."""
        from datapruner.signals.language_model import measure_language_model

        reader, sketch = run.language_model.reader, sketch_of(run.recipe)
        found = measure_language_model(samples, rows, reader, run.store, sketch=sketch, progress=run.progress)
        sketches: Matrix = found[OUTPUT_SKETCH]
        return sketches
