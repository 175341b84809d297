"""Rows of middling perplexity (arXiv 2309.04564)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.ranking import Ranking
from datapruner.ranks import average_ranks
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals


@dataclass(frozen=True)
class MidPerplexity(Scorer):
    """Rows of middling perplexity: -|rank of log PPL - median rank|.

    *Published* for pretraining data (arXiv 2309.04564): keep the middle of the perplexities. *Ours*: the supervised
    tokens of fine-tuning data; equal perplexities share their average rank, so that equal rows get equal values.
    """

    name: ClassVar[str] = "mid_perplexity"
    needs: ClassVar[frozenset[str]] = frozenset({"log_ppl"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"log_ppl", "ranks_from_median"})
    paper: ClassVar[str] = "arXiv 2309.04564"
    provenance: ClassVar[str] = "published for pretraining; average ranks ours"

    def _score(self, signals: Signals) -> Ranking:
        ranks = average_ranks(signals.column("log_ppl"))
        apart = np.abs(ranks - np.median(ranks))
        return Ranking(-apart, columns={"log_ppl": signals.column("log_ppl"), "ranks_from_median": apart})
