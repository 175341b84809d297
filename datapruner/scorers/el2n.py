"""Norm of the prediction's error (arXiv 2107.07075)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from datapruner.ranking import Ranking
from datapruner.scorers._one_signal import Keep, by_signal
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals


@dataclass(frozen=True)
class EL2N(Scorer):
    """Norm of (prediction - target), the mean over supervised tokens: high first, or low.

    *Published* (arXiv 2107.07075): the error's L2 norm early in the training of an image classifier, averaged over
    several initialisations; the highest are kept. *Ours*: the mean over a row's supervised tokens, from one model as
    it is given. A model that has learnt already gives its highest values to noise: mind the direction.

    Parameters
    ----------
    keep : {"high", "low"}
        High is published.
    """

    keep: Keep = "high"
    name: ClassVar[str] = "el2n"
    needs: ClassVar[frozenset[str]] = frozenset({"el2n"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"el2n"})
    paper: ClassVar[str] = "arXiv 2107.07075"
    provenance: ClassVar[str] = "published for image classifiers; mean over tokens of one given model ours"

    def _score(self, signals: Signals) -> Ranking:
        return by_signal("el2n", self.keep, signals)
