"""Columns of the dataset whose values are groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.samples.labels import encode_labels
from datapruner.signals import COLUMN
from datapruner.signals.measurement import Given, Measurement
from datapruner.signals.run import Run


class Columns(Measurement):
    """A column's values as numbers, in the order in which they first come."""

    name: ClassVar[str] = "columns"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(COLUMN, "number of a row's value in the column of that name, say column:source", dtype="int64"),
    )

    def prepare(self, run: Run, wanted: frozenset[str]) -> None:
        """Refuse columns that are not there."""
        for signal in sorted(wanted):
            run.samples.check_column(signal.removeprefix(COLUMN))

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Give every value a number."""
        return {
            signal: encode_labels(run.samples.column(signal.removeprefix(COLUMN)))[1][run.rows]
            for signal in sorted(wanted)
        }

    def missing(self, run: Run, wanted: frozenset[str]) -> int:
        """Nothing is stored, and nothing costs anything."""
        return 0
