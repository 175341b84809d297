"""One vector a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.recipe import Recipe
from datapruner.signals.measurement import EMBEDDER, Cost, Given, Measurement
from datapruner.signals.run import Run
from datapruner.signals.vectors import measure_embedding, missing_vectors


class Embedding(Measurement):
    """Vectors of the embedder, of a file or a column, or given; see :mod:`datapruner.signals.vectors`."""

    name: ClassVar[str] = "embedding"
    gives: ClassVar[tuple[Given, ...]] = (
        Given("embedding", "one vector a row, from the embedder or given", shape="matrix", dtype="float32"),
    )
    cost: ClassVar[Cost] = Cost(5e-3)

    def model(self, recipe: Recipe) -> str | None:
        """Name the embedder, where the vectors are not there already."""
        return None if recipe.has_embeddings else EMBEDDER

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that have to be embedded."""
        return missing_vectors(run)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Embed the rows, or take their vectors."""
        return {
            "embedding": measure_embedding(
                run.recipe,
                run.samples,
                run.rows,
                run.store,
                embeddings=run.objects.embeddings,
                embedder=run.objects.embedder,
                own=run.own,
                progress=run.progress,
                unread=run.unread,
            )
        }
