"""Two vectors a row: of its prompt, and of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.recipe import Recipe
from datapruner.signals.measurement import EMBEDDER, Cost, Given, Measurement
from datapruner.signals.run import Run
from datapruner.signals.vectors import measure_sides, missing_sides


class Sides(Measurement):
    """Prompt and answer apart, by the embedder; what was embedded by ``--embed prompt`` or ``response`` is read."""

    name: ClassVar[str] = "sides"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            "prompt_embedding",
            "one vector a row, of the prompt alone, from the embedder",
            shape="matrix",
            dtype="float32",
        ),
        Given(
            "response_embedding",
            "one vector a row, of the answer alone, from the embedder",
            shape="matrix",
            dtype="float32",
        ),
    )
    reads_text: ClassVar[bool] = True
    cost: ClassVar[Cost] = Cost(1e-2)

    def model(self, recipe: Recipe) -> str:
        """Name the embedder."""
        return EMBEDDER

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that have to be embedded, on the side of which more are missing."""
        return missing_sides(run)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Embed both sides of the rows."""
        return measure_sides(run, wanted)
