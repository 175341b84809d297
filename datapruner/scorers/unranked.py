"""No ranking: what cleaning left, in the source's order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals


@dataclass(frozen=True)
class Unranked(Scorer):
    """Every row alike: what cleaning left is kept in the order of the source, as ``datapruner clean`` does."""

    name: ClassVar[str] = "unranked"
    needs: ClassVar[frozenset[str]] = frozenset()
    holds: ClassVar[frozenset[str] | None] = frozenset()
    paper: ClassVar[str] = "baseline"
    provenance: ClassVar[str] = "ours"

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.zeros(signals.num_rows))
