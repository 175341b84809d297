"""The rows of the highest values, and of their tokens those of the highest values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from datapruner.arrays import Flags
from datapruner.ragged import Ragged
from datapruner.ranking import Ranking
from datapruner.reasons import NO_TOKENS_LEFT
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Choice, Refused
from datapruner.selection.selectors.topk import TopK
from datapruner.selection.tokens import TOKEN_VALUES, Over, check_share, gather, highest

_LAST: WeakKeyDictionary[Ragged, tuple[tuple[float, Over], Ragged, float]] = WeakKeyDictionary()
"""What was found last of some tokens: the groups of a budget ask for the same, one after the other."""


@dataclass(frozen=True)
class TopTokens(TopK):
    """Keep the highest values, and in the loss of a kept row the tokens of highest value.

    *Published* (Token Cleaning, arXiv 2502.01968; Rho-1, arXiv 2404.07965, inside a batch): tokens are ranked over the
    whole pool, whatever their row. *Ours*: shares of each row; rows in the budget, which counts them with all their
    supervised tokens; ``token_keep`` of the tokens of all rows that were scored, max(1, round(share * tokens)) of them
    to the token, ties by row and then by place; a row of which none is left is dropped before the budget is spent, and
    an always-kept one stays whole.

    The ranking must have the state ``token_values``, higher = keep, unless ``token_keep`` is 1.

    Parameters
    ----------
    balance : float
        As in ``topk``.
    token_keep : float
        Share of the supervised tokens that stay in the loss, in (0, 1]; 1 leaves all rows whole.
    over : {"all", "row"}
        Of all rows' tokens, or of each row's own.
    """

    token_keep: float = 0.6
    over: Over = "all"
    name: ClassVar[str] = "top_tokens"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        check_share(self.name, self.token_keep)

    @property
    def requires(self) -> frozenset[str]:
        """The tokens' values, where some of them go."""
        return super().requires | {TOKEN_VALUES} if self.prunes_tokens else super().requires

    @property
    def asks(self) -> tuple[str, str]:
        """Say what it reads, and who gives it."""
        return "a value of every token", "use the scorer excess_loss, or the selector topk"

    @property
    def prunes_tokens(self) -> bool:
        """Whether a selection has token masks, and its data ``input_ids`` and ``labels``."""
        return self.token_keep < 1

    def _refuses(self, ranking: Ranking) -> Refused | None:
        """Refuse the rows that have tokens, and lose all of them."""
        if not self.prunes_tokens or self.over == "row":
            return None
        stay, _ = self._stay(ranking)
        lost = (stay.lengths > 0) & ~_any(stay)
        reason = NO_TOKENS_LEFT.filled(share=f"{100 * self.token_keep:.4g}")
        return Refused(lost, reason, "a larger token_keep")

    def _stay(self, ranking: Ranking) -> tuple[Ragged, float]:
        """Tell which tokens of all rows stay, and the lowest value among them."""
        values, asked = ranking.state[TOKEN_VALUES], (self.token_keep, self.over)
        assert isinstance(values, Ragged)
        held = _LAST.get(values)
        if held is None or held[0] != asked:
            stay = highest(values, *asked)
            held = _LAST[values] = asked, stay, float(values.values[stay.values].min(initial=np.inf))
        return held[1:]

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        choice = super()._select(ranking, portion, rng)
        if not self.prunes_tokens:
            return choice
        stay, cut = self._stay(ranking)
        places = np.flatnonzero(choice.kept & _any(stay)[portion.rows])
        masks = gather([(places, stay.take(portion.rows[places]))], len(choice.kept))
        if self.over == "row":
            told = f"with the best {100 * self.token_keep:.4g} % of its tokens"
        else:
            told = f"with its tokens at or above {cut:.4g}"
        texts = [f"{text}; {told}" if text.startswith("kept") else text for text in choice.texts]
        return replace(choice, texts=texts, token_masks=masks)


def _any(stay: Ragged) -> Flags:
    """Tell the rows of which a token stays."""
    return np.bincount(stay.rows(), stay.values, len(stay)) > 0
