"""A sketch of the body's gradients for every row of the target set."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from datapruner.arrays import Ints
from datapruner.signals import TARGET_GRADIENT
from datapruner.signals.checkpoints import measure_parts, parts_of
from datapruner.signals.language_model.sketch import GRADIENT_OPTIONS, GRADIENT_WORK
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
    options: ClassVar[tuple[str, ...]] = GRADIENT_OPTIONS
    paced_by: ClassVar[tuple[str, ...]] = (*OfTarget.paced_by, "sketch_layers", "sketch_checkpoints")
    cost: ClassVar[Cost] = Cost(GRADIENT_WORK * 2e-3, "token")

    def seconds(self, run: Run, wanted: frozenset[str], rows: int) -> float:
        """Estimate: a pace is that of one model."""
        return super().seconds(run, wanted, rows) * len(parts_of(run.recipe))

    def vectors(self, run: Run, samples: Samples, rows: Ints) -> Matrix:
        """Run the passes with a way back; an optimiser's moments have no part in it."""
        return measure_parts(run, samples, rows, [part.of_target for part in parts_of(run.recipe)])
