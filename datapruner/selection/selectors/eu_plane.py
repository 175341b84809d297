"""Q-Tuning's selector: quadrants of the Error-Uncertainty plane, then tokens (arXiv 2509.23873)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.arrays import Flags, Floats
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.ranking import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.quadrants import Fill, Quadrants, triage
from datapruner.selection.selector import Choice, Selector, fill
from datapruner.selection.tokens import Condition, check_share, gather, prune_tokens

NAMES = {
    1: "Q1, harmful noise (high error, high uncertainty)",
    2: "Q2, a valuable misconception (high error, low uncertainty)",
    3: "Q3, redundant (low error, low uncertainty)",
    4: "Q4, for calibration (low error, high uncertainty)",
    0: "between this budget's quadrants",
}


@dataclass(frozen=True)
class EUPlaneSelector(Selector):
    """Keep confident mistakes and unsure successes; drop noise and what is known.

    *Published*, per mini-batch with the current model: the rows of Q2 (high perplexity, low entropy) and Q4 (low
    perplexity, high entropy) are kept, the quadrants being found by bisection; what is missing is filled by the
    largest |error - uncertainty|; a row of Q2 loses the tokens of highest smoothed perplexity from its loss.
    *Ours*: the whole dataset, or a group of a budget, as one batch under one frozen model; other scales of the fill;
    the cut by |error - uncertainty| where the quadrants hold too much; token budgets, which count rows with
    all their supervised tokens, pruned or not. See :mod:`datapruner.selection.quadrants` and
    :mod:`datapruner.selection.tokens`.

    The ranking must have the columns ``log_ppl`` and ``entropy`` and, unless ``token_keep`` is 1, the state
    ``token_nll``.

    Parameters
    ----------
    fill : {"log_ppl", "ppl", "rank"}
        Scale of |error - uncertainty|: ``ppl`` is published.
    token_keep : float
        Share of the supervised tokens that a row of Q2 keeps, in (0, 1]; 1 leaves all rows whole.
    smoothing : float
        Weight of a token's neighbours, in [0, 1].
    condition : {"none", "both"}
        Whether any token of such a row may go (*published*: Algorithm 1, the code), or those alone that the paper's
        text calls detrimental: their own perplexity and the mean of their neighbours' exceed the row's median.
    """

    fill: Fill = "ppl"
    token_keep: float = 0.5
    smoothing: float = 0.5
    condition: Condition = "none"
    name: ClassVar[str] = "eu_plane"
    needs: ClassVar[frozenset[str]] = frozenset({"log_ppl", "entropy"})

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        check_tokens(self.name, self.token_keep, self.smoothing)

    @property
    def requires(self) -> frozenset[str]:
        """The plane, and the tokens where some of them go."""
        return self.needs | {"token_nll"} if self.prunes_tokens else self.needs

    @property
    def asks(self) -> tuple[str, str]:
        """Say what it reads, and who gives it."""
        tokens = " and the loss of every token" * self.prunes_tokens
        return f"log_ppl and entropy of every row{tokens}", "use the scorer qtuning, or the selector topk"

    @property
    def prunes_tokens(self) -> bool:
        """Whether a selection has token masks, and its data ``input_ids`` and ``labels``."""
        return self.token_keep < 1

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        token_nll = ranking.state.get("token_nll")
        rows, budget, costs = portion.rows, portion.budget, portion.costs
        log_ppl, entropy = (
            np.asarray(ranking.columns[name], dtype=np.float64)[rows] for name in ("log_ppl", "entropy")
        )
        order, quadrants, apart = triage(log_ppl, entropy, budget, costs, fill=self.fill, rows=rows)
        kept = np.zeros(len(order), dtype=np.bool_)
        fill(order, costs, budget, kept)
        masks = None
        if self.prunes_tokens and isinstance(token_nll, Ragged):
            places = np.flatnonzero(kept & (quadrants.numbers == 2))
            pruned = prune_tokens(
                token_nll,
                rows[places],
                keep=self.token_keep,
                smoothing=self.smoothing,
                condition=self.condition,
            )
            masks = gather([(places, pruned)], len(order))
        codes = 2 * quadrants.numbers + kept
        return Choice(kept, codes, self._texts(quadrants, apart, kept, portion.name), masks)

    def _texts(self, quadrants: Quadrants, apart: Floats, kept: Flags, group: str) -> list[str]:
        """Give the reasons, by twice the quadrant and whether a row is kept."""
        where = f" of {group}" if group else ""
        filled = kept & ~np.isin(quadrants.numbers, (2, 4))
        reached = "the budget was spent on Q2 and Q4"
        if filled.any():
            reached = f"the budget reached down to |error - uncertainty| of {apart[filled].min():.4g}"
        (low, high), (sure, unsure) = quadrants.log_ppl, quadrants.entropy
        limits = {
            0: "",
            1: f"; log_ppl above {high:.4g}, entropy above {unsure:.4g}",
            2: f"; log_ppl above {high:.4g}, entropy at most {sure:.4g}",
            3: f"; log_ppl at most {low:.4g}, entropy at most {sure:.4g}",
            4: f"; log_ppl at most {low:.4g}, entropy above {unsure:.4g}",
        }
        share = (
            f"{100 * self.token_keep:.4g} % of its tokens" if self.prunes_tokens else "with all its tokens"
        )
        if self.prunes_tokens and self.condition == "both":
            share = f"{share} or more"
        texts = []
        for number, limit in limits.items():
            named = f"{NAMES[number]}{where}{limit}"
            if number in (2, 4):
                texts.append(f"dropped: {named}; the budget was spent on others of Q2 and Q4")
                texts.append(f"kept: {named}; {share if number == 2 else 'with all its tokens'}")
            else:
                texts.append(f"dropped: {named}; {reached}")
                texts.append(f"kept: {named}; {reached}")
        return texts


def check_tokens(name: str, keep: float, smoothing: float) -> None:
    """Refuse a share of tokens, or a weight of neighbours, that has no meaning."""
    check_share(name, keep)
    if not 0 <= smoothing <= 1:
        raise DataPrunerError(f"{name}: smoothing must lie between 0 and 1, not {smoothing}")
