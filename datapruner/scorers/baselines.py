"""Honest baselines: what every method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.scorers.base import Ranking, Scorer
from datapruner.signals import Signals


@dataclass(frozen=True)
class Random(Scorer):
    """A seeded shuffle: a value depends on the seed and the row's place among those that cleaning left."""

    name: ClassVar[str] = "random"
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = "baseline"
    provenance: ClassVar[str] = "ours"

    @property
    def promises(self) -> frozenset[str]:
        """Nothing: a value belongs to a position, not to what stands there."""
        return frozenset()

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.random.default_rng(signals.seed).random(signals.num_rows))


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
    paper: ClassVar[str] = "baseline"
    provenance: ClassVar[str] = "ours"

    def _score(self, signals: Signals) -> Ranking:
        tokens = signals["num_supervised_tokens"]
        values = tokens.astype(np.float64)
        return Ranking(-values if self.shortest else values, columns={"num_supervised_tokens": tokens})


BASELINES = (Random.name, Length.name)
"""What stands beside the scorers that were asked for, in every comparison."""
