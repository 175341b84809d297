"""How much better a reference model predicts what a row teaches: excess loss (Rho-1, Token Cleaning)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from datapruner.errors import RowError
from datapruner.ragged import Ragged
from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.selection.tokens import TOKEN_VALUES, Over, check_share
from datapruner.signals import Signals

if TYPE_CHECKING:
    from datapruner.selection.selectors.top_tokens import TopTokens


@dataclass(frozen=True)
class ExcessLoss(Scorer):
    """Loss under the model that will be trained minus loss under a reference: what there is to learn, and can be.

    *Published* (Rho-1, arXiv 2404.07965): a token's excess loss is its loss under the model minus that under a
    reference trained on data of high quality, and the tokens of highest excess stay in the loss. Token Cleaning (arXiv
    2502.01968): the same over fine-tuning data with two fixed models, 60 % of all response tokens, ranked over the
    whole pool. RHO-LOSS (arXiv 2206.07137): the same of whole examples, the highest first. *Derived*: a row's mean
    excess is the difference of its two ``log_ppl``. *Ours*: one frozen model in place of the one in training; a row's
    value is the mean over its supervised tokens, so that budgets take whole rows first; ``over=row``.

    Rows of high excess are those that the reference explains and the model does not; noise, which neither explains, has
    little, and so has what both know.

    Its selector prunes tokens as well: the result then has the columns ``input_ids`` and ``labels``. ``token_keep=1``
    switches that off and keeps whole rows.

    Parameters
    ----------
    token_keep : float
        Share of the supervised tokens that stay in the loss, in (0, 1].
    over : {"all", "row"}
        Of which tokens the share is taken: of those of all rows that cleaning left, so that a row may lose many, few or
        all of them, and a row that loses all is dropped with that reason; or of each row's own.
    """

    token_keep: float = 0.6
    over: Over = "all"
    name: ClassVar[str] = "excess_loss"
    needs: ClassVar[frozenset[str]] = frozenset(
        {"log_ppl", "reference_log_ppl", "token_nll", "reference_token_nll"}
    )
    holds: ClassVar[frozenset[str]] = frozenset({"excess", "log_ppl", "reference_log_ppl", TOKEN_VALUES})
    paper: ClassVar[str] = "arXiv 2404.07965, 2502.01968"
    provenance: ClassVar[str] = (
        "excess of tokens and of examples, the share of the whole pool published; one frozen model, rows by their "
        "mean, shares of a row ours"
    )

    def __post_init__(self) -> None:
        """Refuse a share that has no meaning."""
        super().__post_init__()
        check_share(self.name, self.token_keep)

    @property
    def requires(self) -> frozenset[str]:
        """Tokens are looked at only where some of them go."""
        return self.needs if self.token_keep < 1 else self.needs - {"token_nll", "reference_token_nll"}

    @property
    def offers(self) -> frozenset[str]:
        """Tokens where some of them go."""
        return self.holds if self.token_keep < 1 else self.holds - {TOKEN_VALUES}

    def selector(self) -> TopTokens:
        """Rows of the highest mean, and of their tokens those of the highest excess."""
        from datapruner.selection.selectors.top_tokens import TopTokens

        return TopTokens(token_keep=self.token_keep, over=self.over)

    def _score(self, signals: Signals) -> Ranking:
        own, other = (
            np.asarray(signals.column(name), dtype=np.float64) for name in ("log_ppl", "reference_log_ppl")
        )
        excess = own - other
        columns = {"excess": excess, "log_ppl": own, "reference_log_ppl": other}
        return Ranking(
            excess.copy(),
            columns=columns,
            state={TOKEN_VALUES: _of_tokens(signals)} if self.token_keep < 1 else {},
        )


def _of_tokens(signals: Signals) -> Ragged:
    """Give the excess of every supervised token; float32."""
    own, other = (signals.ragged(name) for name in ("token_nll", "reference_token_nll"))
    if not np.array_equal(own.offsets, other.offsets):
        row = int(np.argmax(own.lengths != other.lengths))
        raise RowError(
            f"the two models were given other tokens of row {signals.source_row(row)}: {own.lengths[row]} and "
            f"{other.lengths[row]}; score again",
            signals.source_row(row),
        )
    return Ragged(own.values - other.values, own.offsets)
