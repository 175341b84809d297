"""The dataset's own label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.signals.columns import measure_label
from datapruner.signals.measurement import Given, Measurement
from datapruner.signals.run import Run


class Label(Measurement):
    """The label as a number; see :func:`datapruner.signals.columns.measure_label`."""

    name: ClassVar[str] = "label"
    gives: ClassVar[tuple[Given, ...]] = (
        Given("label", "number of the row's label, 0 for all where the dataset has none", dtype="int64"),
    )

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Give every label a number."""
        return {"label": measure_label(run.samples)[run.rows]}

    def missing(self, run: Run, wanted: frozenset[str]) -> int:
        """Nothing is stored, and nothing costs anything."""
        return 0
