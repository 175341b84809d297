"""Sketches of the body's gradients in the place of an embedder's vectors."""

from __future__ import annotations

from typing import ClassVar

from datapruner.signals.measurement import Given
from datapruner.signals.measurements._as_embedding import AsEmbedding, given_as_embedding


class EmbeddingOfGradient(AsEmbedding):
    """Rows are near each other where the model would learn the same of them."""

    name: ClassVar[str] = "embedding_of_gradient"
    gives: ClassVar[tuple[Given, ...]] = given_as_embedding("gradient_sketch, with --vectors gradient")
    of: ClassVar[str] = "gradient_sketch"
    value: ClassVar[str] = "gradient"
    needs: ClassVar[frozenset[str]] = frozenset({of})
