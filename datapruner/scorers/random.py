"""A seeded shuffle: what every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals


@dataclass(frozen=True)
class Random(Scorer):
    """A seeded shuffle: a value depends on the seed and the row's place among those that cleaning left."""

    name: ClassVar[str] = "random"
    needs: ClassVar[frozenset[str]] = frozenset()
    holds: ClassVar[frozenset[str] | None] = frozenset()
    paper: ClassVar[str] = "baseline"
    provenance: ClassVar[str] = "ours"

    @property
    def promises(self) -> frozenset[str]:
        """Nothing: a value belongs to a position, not to what stands there."""
        return frozenset()

    @property
    def drawn(self) -> bool:
        """Whether its values are drawn at random."""
        return True

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.random.default_rng(signals.seed).random(signals.num_rows))
