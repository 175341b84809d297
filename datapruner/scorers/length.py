"""Length in supervised tokens: a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals


@dataclass(frozen=True)
class Length(Scorer):
    """Supervised tokens of a row: long rows first, or short ones.

    Parameters
    ----------
    shortest : bool
        Keep short rows instead.
    """

    shortest: bool = False
    name: ClassVar[str] = "length"
    needs: ClassVar[frozenset[str]] = frozenset({"num_supervised_tokens"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"num_supervised_tokens"})
    paper: ClassVar[str] = "baseline"
    provenance: ClassVar[str] = "ours"

    def _score(self, signals: Signals) -> Ranking:
        tokens = signals.column("num_supervised_tokens")
        values = tokens.astype(np.float64)
        return Ranking(-values if self.shortest else values, columns={"num_supervised_tokens": tokens})
