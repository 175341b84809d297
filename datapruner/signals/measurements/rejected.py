"""What a classifier makes of the answers that were rejected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from datapruner.recipe import Recipe
from datapruner.signals.measurement import Cost, Given, Measurement
from datapruner.signals.measurements.classifier import CLASS, OUTPUT, Classifier, value_of
from datapruner.signals.other_models import classifier_of, of_rejected, read_with
from datapruner.signals.run import Run

REJECTED = "rejected_"


class Rejected(Measurement):
    """One forward pass of the classifier over the rejected sides; what it makes of the chosen ones is a row's own."""

    name: ClassVar[str] = "rejected"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(REJECTED + CLASS, "class:NAME of the row with its rejected answer, the highest of several"),
        Given(REJECTED + OUTPUT, "class_output of the row with its rejected answer, the highest of several"),
    )
    paced_by: ClassVar[tuple[str, ...]] = Classifier.paced_by
    reads_text: ClassVar[bool] = True
    roles: ClassVar[tuple[str, ...]] = ("rejected",)
    cost: ClassVar[Cost] = Cost(2e-2)

    def model(self, recipe: Recipe) -> str:
        """Name a classifier."""
        return "classifier"

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the classifier over the rejected sides."""
        from datapruner.models.classifiers.outputs import Outputs

        reader = classifier_of(run.recipe, run.store, run.objects.classifier, progress=run.progress)
        rows, starts = of_rejected(run)
        logits = read_with(reader, run, rows, "classifier", "--classifier-max-length")
        outputs = Outputs.noted(reader.context)
        out: dict[str, Any] = {}
        for signal in wanted:
            values = value_of(
                signal.removeprefix(REJECTED), outputs, logits, run.recipe.classifier or "given"
            )
            out[signal] = np.maximum.reduceat(values, starts)
        return out
