"""What measurements by one language model of the target's rows have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from datapruner.arrays import Ints
from datapruner.signals import TARGET_TASK
from datapruner.signals.losses import PACED_BY
from datapruner.signals.measurement import Cost
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.run import Run
from datapruner.signals.targets import TargetSet, joined

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.samples.samples import Samples


class OfTarget(OfModel):
    """Vectors of the rows that ``--target`` names, by the model that reads the data, and cut as these are."""

    needs: ClassVar[frozenset[str]] = frozenset({TARGET_TASK})
    paced_by: ClassVar[tuple[str, ...]] = PACED_BY
    cost: ClassVar[Cost] = Cost(2e-3, "token")

    def seconds(self, run: Run, wanted: frozenset[str], rows: int) -> float:
        """Estimate by the target's own rows, which are few."""
        targets: list[TargetSet] = run.prepared.get("target_rows", [])
        return self.pace(run) * sum(len(target.samples) for target in targets)

    @abstractmethod
    def vectors(self, run: Run, samples: Samples, rows: Ints) -> Matrix:
        """Measure some of a task's rows; float32 (m, d)."""

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the model over the target's rows."""
        targets: list[TargetSet] = run.prepared["target_rows"]
        found = []
        for target in targets:
            with target.told():
                every = np.arange(len(target.samples), dtype=np.int64)
                found.append(self.vectors(run, target.samples, every))
        return {self.name: joined(found)}
