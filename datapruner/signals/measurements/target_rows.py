"""The rows of the target: which task each belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.recipe import Recipe
from datapruner.recipe.targets import OF_A_TASK
from datapruner.signals import OF_TARGET, TARGET_SHARE, TARGET_TASK
from datapruner.signals.measurement import Given, Measurement, Readers
from datapruner.signals.run import Run
from datapruner.signals.targets import TargetSet, read_targets, tell_shared


class TargetRows(Measurement):
    """Rows that ``--target`` names, read before anything is measured; a task each where there are several."""

    name: ClassVar[str] = "target_rows"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(TARGET_TASK, "the task's name, of every row of the target", shape="other set", dtype="str"),
        Given(
            TARGET_SHARE, "the task's share beside the others, of every row of the target", shape="other set"
        ),
    )
    options: ClassVar[tuple[str, ...]] = ("target", *OF_A_TASK)

    def reads(self, signals: frozenset[str]) -> bool:
        """Whether somebody reads anything of the target."""
        return bool(signals & OF_TARGET)

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse a target that nobody reads, and a scorer that reads one where none is named."""
        named = [name for name in self.options if getattr(recipe, name) is not None]
        if readers and recipe.target is None:
            raise DataPrunerError(
                f"{next(iter(readers))} looks for the rows nearest to a target set: name one with --target, a file, a "
                "folder or a hub name"
            )
        if named and not readers:
            raise DataPrunerError(
                f"--{named[0].replace('_', '-')} is given, and no scorer of this run reads a target; take the scorer "
                "nearest_target, feature_mapping or label_mapping"
            )

    def prepare(self, run: Run, wanted: frozenset[str]) -> list[TargetSet]:
        """Read the rows, and refuse those that say nothing."""
        return read_targets(run.recipe, run.inputs)

    def missing(self, run: Run, wanted: frozenset[str]) -> int:
        """Nothing is stored, and nothing costs anything."""
        return 0

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Say of every row what its task is; and whether the data have such rows."""
        targets: list[TargetSet] = run.prepared[self.name]
        tell_shared(targets, run.samples, run.rows)
        sizes = [len(target.samples) for target in targets]
        return {
            TARGET_TASK: [
                target.task.name for target, size in zip(targets, sizes, strict=True) for _ in range(size)
            ],
            TARGET_SHARE: np.repeat([target.task.share for target in targets], sizes),
        }
