"""Perplexity of the supervised tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from datapruner.ranking import Ranking
from datapruner.scorers._one_signal import Keep, by_signal
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals


@dataclass(frozen=True)
class Perplexity(Scorer):
    """Perplexity of the supervised tokens: low first, or high.

    *Published* for pretraining data: arXiv 2309.04564 ranks by a reference model's perplexity, compares keeping the
    low end, the middle and the high end, and favours the middle (``mid_perplexity``); in arXiv 2405.20541 the best
    end depends on the dataset. *Ours*: the supervised tokens of fine-tuning data, and the low end by default, which
    drops improbable responses first.

    Parameters
    ----------
    keep : {"low", "high"}
        Which end of the perplexities.
    """

    keep: Keep = "low"
    name: ClassVar[str] = "perplexity"
    needs: ClassVar[frozenset[str]] = frozenset({"log_ppl"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"log_ppl"})
    paper: ClassVar[str] = "arXiv 2309.04564"
    provenance: ClassVar[str] = "ranking by perplexity published for pretraining; low by default ours"

    def _score(self, signals: Signals) -> Ranking:
        return by_signal("log_ppl", self.keep, signals)
