"""One vector for every row of the target set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from datapruner.errors import DataPrunerError
from datapruner.recipe import Recipe
from datapruner.signals import TARGET
from datapruner.signals.measurement import Cost, Given, Measurement, Readers
from datapruner.signals.run import Run
from datapruner.signals.vectors import measure_target, text_embedder


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
    options: ClassVar[tuple[str, ...]] = ("target", "target_split", "target_columns", "target_embeddings")
    cost: ClassVar[Cost] = Cost(4e-3)

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
                "feature_mapping or label_mapping"
            )

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Read the target's rows and embed them."""
        return measure_target(
            run.recipe,
            run.samples,
            run.store,
            given=run.objects.embeddings is not None,
            own=run.own,
            embedder=text_embedder(run),
            progress=run.progress,
            read=partial(run.inputs.rows, "target"),
        )
