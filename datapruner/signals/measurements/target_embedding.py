"""One vector for every row of the target set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.signals import TARGET, TARGET_TASK
from datapruner.signals.measurement import Cost, Given, Measurement
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

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Embed the target's rows."""
        return {TARGET: measure_target(run, run.prepared["target_rows"])}
