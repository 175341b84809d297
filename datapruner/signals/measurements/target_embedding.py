"""One vector for every row of the target set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.errors import DataPrunerError
from datapruner.recipe import Recipe
from datapruner.signals import TARGET, TARGET_TASK
from datapruner.signals.measurement import Cost, Given, Measurement, Readers
from datapruner.signals.run import Run
from datapruner.signals.vectors import measure_target


class TargetEmbedding(Measurement):
    """Vectors of the rows that ``--target`` names, made as those of the dataset's rows are."""

    name: ClassVar[str] = TARGET
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            TARGET,
            "one vector a row of the target set, not of the data",
            shape="other set",
            dtype="float32",
        ),
    )
    needs: ClassVar[frozenset[str]] = frozenset({TARGET_TASK})
    cost: ClassVar[Cost] = Cost(4e-3)

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse vectors of another kind of the rows."""
        if readers and recipe.vectors != "embedding":
            raise DataPrunerError(
                f"{next(iter(readers))} compares rows with the target's by an embedder's vectors, and "
                f"--vectors={recipe.vectors} takes others of the rows alone; leave --vectors out, or take "
                f"nearest_target with representation={recipe.vectors}"
            )

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Embed the target's rows."""
        return {TARGET: measure_target(run, run.prepared["target_rows"])}
