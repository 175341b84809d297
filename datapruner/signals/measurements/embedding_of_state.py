"""The language model's pooled states in the place of an embedder's vectors."""

from __future__ import annotations

from typing import ClassVar

from datapruner.signals.measurement import Given
from datapruner.signals.measurements._as_embedding import AsEmbedding, given_as_embedding


class EmbeddingOfState(AsEmbedding):
    """Rows are near each other where its states are alike."""

    name: ClassVar[str] = "embedding_of_state"
    gives: ClassVar[tuple[Given, ...]] = given_as_embedding("pooled_state, with --vectors state")
    of: ClassVar[str] = "pooled_state"
    value: ClassVar[str] = "state"
    needs: ClassVar[frozenset[str]] = frozenset({of})
