"""A language model's state for every row of the target set."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from datapruner.arrays import Ints
from datapruner.signals import TARGET_STATE
from datapruner.signals.measurement import Given
from datapruner.signals.measurements._of_target import OfTarget
from datapruner.signals.run import Run

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.samples.samples import Samples


class TargetState(OfTarget):
    """Pooled states of the rows that ``--target`` names, by the model that reads the data, and cut as these are."""

    name: ClassVar[str] = TARGET_STATE
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            TARGET_STATE,
            "pooled_state of every row of the target set, not of the data",
            shape="other set",
            dtype="float32",
        ),
    )

    def vectors(self, run: Run, samples: Samples, rows: Ints) -> Matrix:
        """Run the body alone."""
        from datapruner.signals.language_model import measure_language_model

        reader = run.language_model.reader
        found = measure_language_model(samples, rows, reader, run.store, what="pooled", progress=run.progress)
        states: Matrix = found["pooled_state"]
        return states
