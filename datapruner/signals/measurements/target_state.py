"""A language model's state for every row of the target set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from datapruner.signals import TARGET_STATE, TARGET_TASK
from datapruner.signals.losses import PACED_BY
from datapruner.signals.measurement import Cost, Given
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.run import Run
from datapruner.signals.targets import TargetSet, joined


class TargetState(OfModel):
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
    needs: ClassVar[frozenset[str]] = frozenset({TARGET_TASK})
    paced_by: ClassVar[tuple[str, ...]] = PACED_BY
    cost: ClassVar[Cost] = Cost(2e-3, "token")

    def seconds(self, run: Run, wanted: frozenset[str], rows: int) -> float:
        """Estimate by the target's own rows, which are few."""
        targets: list[TargetSet] = run.prepared.get("target_rows", [])
        return self.pace(run) * sum(len(target.samples) for target in targets)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the model over the target's rows."""
        from datapruner.signals.language_model import measure_language_model

        targets: list[TargetSet] = run.prepared["target_rows"]
        found = []
        for target in targets:
            with target.told():
                states = measure_language_model(
                    target.samples,
                    np.arange(len(target.samples), dtype=np.int64),
                    run.language_model.reader,
                    run.store,
                    what="pooled",
                    progress=run.progress,
                )
            found.append(states["pooled_state"])
        return {TARGET_STATE: joined(found)}
