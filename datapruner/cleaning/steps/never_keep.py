"""Rows that the user names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from datapruner.cleaning.rows import row_mask
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.errors import RowError
from datapruner.reasons import Reason

if TYPE_CHECKING:
    from datapruner.recipe import Recipe

NEVER_KEEP = Reason(
    "never_keep",
    "on the never-keep list",
    "row on the never-keep list",
    "rows on the never-keep list",
    "dropped by the never-keep list",
)


@dataclass(frozen=True)
class NeverKeep(CleaningStep):
    """Rows that are named.

    Attributes
    ----------
    listed : str or list of int
        A column of true and false, or row numbers.
    """

    name = "never_keep"
    reasons = (NEVER_KEEP,)
    order = 0
    switch = "--never-keep"

    listed: str | list[int]

    @classmethod
    def switched_on(cls, recipe: Recipe) -> Self | None:
        """Where ``never_keep`` names rows."""
        return None if recipe.never_keep is None else cls(recipe.never_keep)

    def clean(self, left: Remaining) -> Vetoes | None:
        """Drop them; refuse what is to be kept always, too."""
        banned = row_mask(self.listed, left.samples, "never_keep")
        if (both := banned & left.protected).any():
            row = int(np.argmax(both))
            raise RowError(f"row {row} is to be kept always and never", row)
        rows = left.rows[banned[left.rows]]
        return drops(NEVER_KEEP, rows, measures=np.ones(rows.size)) if rows.size else None
