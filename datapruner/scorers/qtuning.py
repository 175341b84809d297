"""Q-Tuning (arXiv 2509.23873) over a whole dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.selection.quadrants import Fill, gaps, quadrants_at
from datapruner.selection.tokens import Condition
from datapruner.signals import Signals

if TYPE_CHECKING:
    from datapruner.selection.selectors.eu_plane import EUPlaneSelector


@dataclass(frozen=True)
class QTuning(Scorer):
    """Rows off the diagonal of error and uncertainty: |error - uncertainty|, and its selector's quadrants.

    *Published*: error is perplexity, uncertainty the mean entropy of the supervised tokens' predictions; confident
    mistakes (Q2) and unsure successes (Q4) are kept, the tokens of highest smoothed perplexity leave Q2's loss. It
    runs inside training there, on every mini-batch with the current model: :mod:`datapruner.integrations`.
    *Ours*: the whole dataset as one batch under one frozen model.

    Its selector prunes tokens as well: the result then has the columns ``input_ids`` and ``labels``.
    ``token_keep=1`` switches that off and keeps whole rows.

    Parameters
    ----------
    fill : {"log_ppl", "ppl", "rank"}
        Scale of |error - uncertainty|: ``ppl`` is published, and was worth more (``benchmarks/worth.py``); the others
        are not ruled by outliers.
    token_keep : float
        Share of the supervised tokens that a row of Q2 keeps, in (0, 1].
    smoothing : float
        Weight of a token's neighbours in its score, in [0, 1].
    condition : {"none", "both"}
        Which tokens of Q2 may go: any (*published*: Algorithm 1, the code), or only those whose own perplexity and
        whose neighbours' mean both exceed the row's median (*published*: the text; that the median is the row's is
        *ours*), so that a row may keep more than its share.
    """

    fill: Fill = "ppl"
    token_keep: float = 0.5
    smoothing: float = 0.5
    condition: Condition = "none"
    name: ClassVar[str] = "qtuning"
    needs: ClassVar[frozenset[str]] = frozenset({"log_ppl", "entropy", "token_nll"})
    holds: ClassVar[frozenset[str]] = frozenset({"log_ppl", "entropy", "quadrant", "token_nll"})
    paper: ClassVar[str] = "arXiv 2509.23873"
    provenance: ClassVar[str] = (
        "quadrants, bisection, fill and token pruning published; the dataset as one batch ours"
    )

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        from datapruner.selection.selectors.eu_plane import check_tokens

        super().__post_init__()
        check_tokens(self.name, self.token_keep, self.smoothing)

    @property
    def requires(self) -> frozenset[str]:
        """Tokens are looked at only where some of them go."""
        return self.needs if self.token_keep < 1 else self.needs - {"token_nll"}

    @property
    def offers(self) -> frozenset[str]:
        """Tokens where some of them go."""
        return self.holds if self.token_keep < 1 else self.holds - {"token_nll"}

    def selector(self) -> EUPlaneSelector:
        """Quadrants by bisection, with the same parameters."""
        from datapruner.selection.selectors.eu_plane import EUPlaneSelector

        return EUPlaneSelector(self.fill, self.token_keep, self.smoothing, self.condition)

    def _score(self, signals: Signals) -> Ranking:
        log_ppl, entropy = (
            np.asarray(signals.column(name), dtype=np.float64) for name in ("log_ppl", "entropy")
        )
        return Ranking(
            gaps(log_ppl, entropy, self.fill),
            columns={
                "log_ppl": log_ppl,
                "entropy": entropy,
                "quadrant": quadrants_at(log_ppl, entropy, 0.5).numbers,
            },
            state={"token_nll": signals.ragged("token_nll")} if self.token_keep < 1 else {},
        )
