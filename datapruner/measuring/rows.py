"""What is refused and said of the rows before they are measured."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.cleaning.steps.exact import EXACT
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError, in_words
from datapruner.measuring.request import Request
from datapruner.recipe import Recipe
from datapruner.samples.portable import check_free

if TYPE_CHECKING:
    from datapruner.samples.rendered import TokenCounts
    from datapruner.samples.samples import Samples
    from datapruner.signals.plan import Plan

logger = logging.getLogger(__name__)


def check_columns(request: Request, samples: Samples) -> None:
    """Refuse columns that are not there, or in the way of what will be written, and masks of another length."""
    for column in {request.recipe.per_group, *(budget.per_group for budget in request.budgets)} - {None}:
        samples.check_column(str(column))
    for scorer in request.scorers:
        # What a selection writes, and not what another selector would.
        if scorer.name == request.chosen and request.selector_of(scorer).prunes_tokens:
            check_free(samples)
    for name, mask in request.masks.items():
        _check_length(mask, len(samples), name)


def tell_cut(counts: TokenCounts, rows: Ints) -> None:
    """Say how many rows are longer than the model reads."""
    if cut := int(counts.truncated[rows].sum()):
        logger.warning(
            in_words(
                "%s of %s rows are longer than the model reads and were cut; --max-length sets the limit"
            ),
            f"{cut:,}",
            f"{len(rows):,}",
        )


def tell_unread(recipe: Recipe, plan: Plan, samples: Samples, found: list[Vetoes]) -> None:
    """Say which parts of the rows took no part, where it looks as if they should have."""
    from datapruner.samples.unread import copies_that_differ, overlooked, unseen

    by_model = bool(plan.models(recipe))
    if by_model and (note := unseen(samples)):
        logger.warning("%s", note)
    if by_model or recipe.dedup or "text" in plan.wanted:
        copies = [
            pair
            for vetoes in found
            if vetoes.reason is EXACT
            for pair in zip(vetoes.rows.tolist(), vetoes.others.tolist(), strict=True)
        ]
        for column in overlooked(samples, recipe.strings()):
            logger.warning("%s%s", column, copies_that_differ(samples, column.column, copies))


def require_rows(rows: Ints) -> None:
    """Refuse to go on without any row."""
    if not len(rows):
        raise DataPrunerError("no row is left: cleaning, or --on-empty=drop (the default), dropped them all")


def _check_length(mask: Any, n: int, what: str) -> None:
    array = np.asarray(mask)
    if array.dtype.kind == "b" and len(array) != n:
        raise DataPrunerError(f"{what} has {len(array)} entries, but the dataset has {n} rows")
