"""Rows of which a language model would be trained on nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.errors import RowError, in_words
from datapruner.reasons import Reason

if TYPE_CHECKING:
    from datapruner.recipe import Recipe

logger = logging.getLogger(__name__)

NO_TOKENS = Reason(
    "no_supervised_tokens",
    "no supervised tokens",
    "row without supervised tokens",
    "rows without supervised tokens",
    "dropped for having no supervised tokens",
)


@dataclass(frozen=True)
class NoSupervisedTokens(CleaningStep):
    """Rows without a supervised token, where a language model scores: their loss would be of nothing.

    Attributes
    ----------
    refuse : bool
        They are an error.
    """

    name = "no_supervised_tokens"
    reasons = (NO_TOKENS,)
    needs = ("supervised_as_fed", "cut_as_fed")
    order = 15
    passive = True
    switch = "--on-empty=drop"

    refuse: bool = False

    @classmethod
    def switched_on(cls, recipe: Recipe) -> Self | None:
        """Switch it on always: such a row cannot be ranked, whatever ``on_empty`` says."""
        return cls(recipe.on_empty != "drop")

    def clean(self, left: Remaining) -> Vetoes | None:
        """Drop them, or refuse them."""
        none = left.signals["supervised_as_fed"] == 0
        empty, cut = left.rows[none], left.signals["cut_as_fed"][none]
        if not empty.size:
            return None
        wrong = left.protected[empty] | self.refuse
        if wrong.any():
            place = int(wrong.argmax())
            why = "what is left after the cut" if cut[place] else "it"
            listed = "" if self.refuse else " and is to be kept always"
            way = "drop them with --on-empty=drop" if self.refuse else "take it off that list"
            raise RowError(
                f"row {empty[place]} has no supervised token{listed}, so that there is nothing to score: {why} holds "
                f"no assistant text ({empty.size:,} such rows); {way}",
                empty[place],
            )
        return drops(NO_TOKENS, empty)

    def tell(self, left: Remaining, found: Vetoes) -> None:
        """Say how many were left out."""
        cut = left.signals["cut_as_fed"][left.rows == found.rows[0]]
        logger.warning(
            "%s of %s rows have no supervised token, %s first, and were left out%s",
            f"{len(found):,}",
            f"{len(left.rows):,}",
            left.samples.row_words(found.rows[0]),
            in_words("; --max-length cuts before their answers") if cut.any() else "",
        )
