"""Sketches of the output layer's gradients in the place of an embedder's vectors."""

from __future__ import annotations

from typing import ClassVar

from datapruner.signals.measurement import Given
from datapruner.signals.measurements._as_embedding import AsEmbedding, given_as_embedding


class EmbeddingOfSketch(AsEmbedding):
    """Rows are near each other where the output layer would learn the same of them."""

    name: ClassVar[str] = "embedding_of_sketch"
    gives: ClassVar[tuple[Given, ...]] = given_as_embedding("output_sketch, with --vectors sketch")
    of: ClassVar[str] = "output_sketch"
    value: ClassVar[str] = "sketch"
    needs: ClassVar[frozenset[str]] = frozenset({of})
