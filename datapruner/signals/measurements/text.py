"""The rows' texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.signals.measurement import Given, Measurement
from datapruner.signals.run import Run


class Text(Measurement):
    """A row's turns as one string, without what many rows share."""

    name: ClassVar[str] = "text"
    gives: ClassVar[tuple[Given, ...]] = (
        Given("text", "the row's turns as one string", shape="text", dtype="str"),
    )
    reads_text: ClassVar[bool] = True

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Read the texts."""
        return {"text": list(run.own.texts("both", None if run.every else run.rows))}

    def missing(self, run: Run, wanted: frozenset[str]) -> int:
        """Nothing is stored, and nothing costs anything."""
        return 0
