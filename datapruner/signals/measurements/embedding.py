"""One vector a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from datapruner.recipe import Recipe
from datapruner.signals.given_vectors import given_embeddings
from datapruner.signals.measurement import EMBEDDER, Cost, Given, Measurement
from datapruner.signals.run import Run
from datapruner.signals.vectors import image_model, measure_embedding, missing_vectors, text_embedder

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix


class Embedding(Measurement):
    """Vectors of the embedder, of a file or a column, or given; see :mod:`datapruner.signals.vectors`."""

    name: ClassVar[str] = "embedding"
    gives: ClassVar[tuple[Given, ...]] = (
        Given("embedding", "one vector a row, from the embedder or given", shape="matrix", dtype="float32"),
    )
    cost: ClassVar[Cost] = Cost(5e-3)

    def applies(self, recipe: Recipe) -> bool:
        """Whether no language model's vectors take their place."""
        return recipe.vectors == "embedding"

    def model(self, recipe: Recipe) -> str | None:
        """Name the embedder, where the vectors are not there already."""
        return None if recipe.has_embeddings else EMBEDDER

    def prepare(self, run: Run, wanted: frozenset[str]) -> Matrix | None:
        """Take vectors that are given, and refuse those that are not one a row, before rows are cleaned or read."""
        given = given_embeddings(run.recipe, run.samples, run.objects.embeddings)
        if given is None and run.samples.layout.name == "image":
            image_model(run.recipe)
        return given

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
                embeddings=run.prepared.get(self.name, run.objects.embeddings),
                embedder=text_embedder(run),
                own=run.own,
                progress=run.progress,
                unread=run.unread,
                briefly=run.recipe.tells_parts,
            )
        }
