"""What measurements have in common that put other vectors in the place of the embedder's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import iter_blocks, normalise_rows
from datapruner.recipe import Recipe
from datapruner.signals.measurement import Given, Measurement, Readers
from datapruner.signals.run import Run

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix

EMBEDDING = "embedding"


class AsEmbedding(Measurement):
    """Vectors that a language model gives, under the name by which clusters, neighbours and coverage read them.

    Attributes
    ----------
    of : str
        The signal.
    value : str
        Of ``--vectors``.
    """

    of: ClassVar[str]
    value: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ("vectors",)

    def applies(self, recipe: Recipe) -> bool:
        """Whether these are asked for."""
        return recipe.vectors == self.value

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse vectors of an embedder, or given ones, beside them."""
        if not (readers and self.applies(recipe)):
            return
        default = type(recipe).model_fields["embedder"].default
        named = {
            "--embeddings": recipe.embeddings is not None or "embeddings" in recipe.in_memory,
            "--embedding-column": recipe.embedding_column is not None,
            "--embedder": recipe.embedder != default or "embedder" in recipe.in_memory,
        }
        if other := next((option for option, given in named.items() if given), None):
            raise DataPrunerError(
                f"--vectors={self.value} takes a language model's vectors, and {other} names others; leave one of the "
                "two out"
            )

    def missing(self, run: Run, wanted: frozenset[str]) -> int:
        """Nothing is stored, and nothing costs anything."""
        return 0

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Take them, and refuse those that have no direction."""
        made: Matrix = run.signals[self.of]
        # Here, while the rows' source positions are known: later stages count among those that cleaning left.
        for start, stop, block in iter_blocks(made):
            normalise_rows(block, run.rows[start:stop])
        return {EMBEDDING: made}


def given_as_embedding(what: str) -> tuple[Given, ...]:
    """Announce them."""
    return (Given(EMBEDDING, f"one vector a row: {what}", shape="matrix", dtype="float32"),)
