"""Pairs whose chosen and rejected answers say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.reasons import Reason
from datapruner.samples.preference import sides

if TYPE_CHECKING:
    from datapruner.recipe import Recipe
    from datapruner.samples.sample import Sample

EQUAL = Reason(
    "equal_sides",
    "the chosen and the rejected answer say the same",
    "pair of equal sides",
    "pairs of equal sides",
    label="dropped as pairs of equal sides",
    way_out="pass --on-empty=keep",
)


@dataclass(frozen=True)
class EqualSides(CleaningStep):
    """Preference rows without a rejected answer that differs from the chosen one: they prefer nothing.

    *Ours.* Two answers say the same whose turns do, white space at their ends aside.
    """

    name = "equal_sides"
    reasons = (EQUAL,)
    order = 11
    switch = "--on-empty=drop"

    @classmethod
    def switched_on(cls, recipe: Recipe) -> Self | None:
        """Unless ``on_empty`` keeps rows that say nothing."""
        return None if recipe.on_empty == "keep" else cls()

    def clean(self, left: Remaining) -> Vetoes | None:
        """Drop them, of rows that have two sides."""
        if "rejected" not in left.samples.layout.columns:
            return None
        same = [
            all(_said(other) == _said(chosen) for other in rejected)
            for chosen, rejected in map(sides, left.samples.iter_rows(left.rows))
        ]
        out = left.rows[np.array(same, dtype=np.bool_)]
        out = out[~left.protected[out]]
        return drops(EQUAL, out) if out.size else None


def _said(sample: Sample) -> Sequence[object]:
    return [(turn.role, turn.text.strip()) for turn in sample.messages]
