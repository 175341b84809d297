"""What the rules share: a step that looks at one row after the other, and knows what is usual in the set."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.steps._read import Read, rows_read
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.errors import in_words
from datapruner.reasons import Reason
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.arrays import Ints

logger = logging.getLogger(__name__)

LOOKED_AT = 5000
"""Rows that are looked at for what is usual in the set."""
Hit = tuple[Reason, float]


@dataclass(frozen=True)
class Rule(CleaningStep):
    """A step that judges every row by its own texts, without a model."""

    @abstractmethod
    def hit(self, read: Read, usual: Any) -> Hit | None:
        """Say why a row is to be dropped and how strong the sign of it is; None where it is not.

        Parameters
        ----------
        read : Read
            The row.
        usual : object
            What :meth:`usual` found.
        """

    def usual(self, rows: Sequence[Read]) -> Any:
        """Find what is usual in the set.

        Parameters
        ----------
        rows : sequence of Read
            Some, at random.
        """
        return None

    @property
    def reads_the_set(self) -> bool:
        """Whether it asks what is usual."""
        return type(self).usual is not Rule.usual

    def clean(self, left: Remaining) -> list[Vetoes]:
        """Drop the rows that the rule hits."""
        return apply([self], left)

    def tell(self, left: Remaining, found: Vetoes) -> None:
        """Say how many, with one to look at."""
        shown = left.samples.texts("response", found.rows[:1])[0]
        logger.warning(
            "%s of %s rows were %s, %s first: %s%s",
            f"{len(found):,}",
            f"{len(left.rows):,}",
            found.reason.label,
            left.samples.row_words(found.rows[0]),
            safe_text(shown, 100),
            f"; {in_words(found.reason.way_out)}" if found.reason.way_out else "",
        )


def apply(
    rules: Sequence[Rule], left: Remaining, noted: Callable[[int, Read], None] | None = None
) -> list[Vetoes]:
    """Let rules judge the rows, each row by the first that hits it; each row is read once.

    Parameters
    ----------
    rules : sequence of Rule
    left : Remaining
    noted : callable, optional
        Is given each row that stays, protected ones too.
    """
    if not left.samples.layout.has_text or not (rules or noted):
        return []
    usual: dict[str, Any] = {}
    known: dict[int, Read] = {}
    if any(rule.reads_the_set for rule in rules):
        rows = some(left.rows, left.seed)
        known = dict(
            zip(rows.tolist(), map(Read, left.samples.iter_samples(rows, identity=False)), strict=True)
        )
        usual = {rule.name: rule.usual(list(known.values())) for rule in rules}
    asked = [(rule, usual.get(rule.name)) for rule in rules]
    found: dict[str, tuple[Reason, list[int], list[float]]] = {}
    for row, read in rows_read(left, left.free if noted is None else left.rows, known):
        hit = None if left.protected[row] else first(asked, read)
        if hit is not None:
            reason, measure = hit
            _, rows_of, measures = found.setdefault(reason.code, (reason, [], []))
            rows_of.append(row)
            measures.append(measure)
        elif noted is not None:
            noted(row, read)
    return [drops(reason, rows_of, measures=measures) for reason, rows_of, measures in found.values()]


def first(asked: Sequence[tuple[Rule, Any]], read: Read) -> Hit | None:
    """Give the hit of the first rule that hits a row."""
    for rule, usual in asked:
        if (hit := rule.hit(read, usual)) is not None:
            return hit
    return None


def some(rows: Ints, seed: int) -> Ints:
    """Choose the rows that are looked at for what is usual, ascending."""
    if len(rows) <= LOOKED_AT:
        return rows
    chosen: Ints = np.sort(np.random.default_rng(seed).choice(rows, LOOKED_AT, replace=False))
    return chosen
