"""What one forward pass says of a row by itself: its loss, its error and its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from datapruner.ranks import average_ranks
from datapruner.scorers.base import Ranking, Scorer
from datapruner.signals import Signals

Keep = Literal["low", "high"]


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
    paper: ClassVar[str] = "arXiv 2309.04564"
    provenance: ClassVar[str] = "ranking by perplexity published for pretraining; low by default ours"

    def _score(self, signals: Signals) -> Ranking:
        return _by("log_ppl", self.keep, signals)


@dataclass(frozen=True)
class MidPerplexity(Scorer):
    """Rows of middling perplexity: -|rank of log PPL - median rank|.

    *Published* for pretraining data (arXiv 2309.04564): keep the middle of the perplexities. *Ours*: the supervised
    tokens of fine-tuning data; equal perplexities share their average rank, so that equal rows get equal values.
    """

    name: ClassVar[str] = "mid_perplexity"
    needs: ClassVar[frozenset[str]] = frozenset({"log_ppl"})
    paper: ClassVar[str] = "arXiv 2309.04564"
    provenance: ClassVar[str] = "published for pretraining; average ranks ours"

    def _score(self, signals: Signals) -> Ranking:
        ranks = average_ranks(signals["log_ppl"])
        apart = np.abs(ranks - np.median(ranks))
        return Ranking(-apart, columns={"log_ppl": signals["log_ppl"], "ranks_from_median": apart})


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
    paper: ClassVar[str] = "arXiv 2107.07075"
    provenance: ClassVar[str] = "published for image classifiers; mean over tokens of one given model ours"

    def _score(self, signals: Signals) -> Ranking:
        return _by("el2n", self.keep, signals)


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
    paper: ClassVar[str] = "arXiv 2107.07075"
    provenance: ClassVar[str] = "GraNd published for all weights; output layer of one given model ours"

    def _score(self, signals: Signals) -> Ranking:
        return _by("grad_norm", self.keep, signals)


def _by(signal: str, keep: Keep, signals: Signals) -> Ranking:
    """Rank by one signal."""
    values = np.array(signals[signal], dtype=np.float64)
    return Ranking(values if keep == "high" else -values, columns={signal: signals[signal]})
