"""What pruning changed, where it was measured before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.recipe import Recipe
from datapruner.signals.divergences import read_divergences
from datapruner.signals.measurement import Given, Measurement
from datapruner.signals.measurements.twins import JSD
from datapruner.signals.run import Run


class Divergences(Measurement):
    """Divergences of a file or in memory, in place of the pass of two models."""

    name: ClassVar[str] = "divergences"
    gives: ClassVar[tuple[Given, ...]] = (JSD,)
    options: ClassVar[tuple[str, ...]] = ("divergences",)

    def applies(self, recipe: Recipe) -> bool:
        """Whether they are given."""
        return recipe.has("divergences")

    def prepare(self, run: Run, wanted: frozenset[str]) -> Any:
        """Read them: one for every source row."""
        return read_divergences(run.recipe, run.objects.divergences, len(run.samples))

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Take those of the rows."""
        return {"jsd": run.prepared[self.name][run.rows]}

    def missing(self, run: Run, wanted: frozenset[str]) -> int:
        """They are all there."""
        return 0
