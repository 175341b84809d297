"""Norm of the loss's gradient by the output layer (GraNd, arXiv 2107.07075)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from datapruner.ranking import Ranking
from datapruner.scorers._one_signal import Keep, by_signal
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals


@dataclass(frozen=True)
class GradNorm(Scorer):
    """Norm of the loss's gradient by the output layer's weights: high first, or low.

    *Published* (GraNd, arXiv 2107.07075): the norm of a sample's gradient by all weights, early in training and
    averaged over several initialisations; the highest are kept. *Ours*: the output layer only, one model as it is
    given, the mean loss over supervised tokens. The gradient of a mean over many tokens is shorter, so high favours
    short rows.

    Parameters
    ----------
    keep : {"high", "low"}
        High is published. Low is the NOD of ``donod``, alone.
    """

    keep: Keep = "high"
    name: ClassVar[str] = "grad_norm"
    needs: ClassVar[frozenset[str]] = frozenset({"grad_norm"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"grad_norm"})
    paper: ClassVar[str] = "arXiv 2107.07075"
    provenance: ClassVar[str] = "GraNd published for all weights; output layer of one given model ours"

    def _score(self, signals: Signals) -> Ranking:
        return by_signal("grad_norm", self.keep, signals)
