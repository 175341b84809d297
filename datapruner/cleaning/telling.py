"""Say what a cleaning step took, where it took much: with a pair to look at."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import in_words
from datapruner.text import safe_text
from datapruner.words import numbers_of, words_of

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples

logger = logging.getLogger(__name__)

MUCH = 0.2
"""A step that drops more than this share of all rows is told."""
MANY = 0.05
"""So is a row that more than this share of all rows are dropped for ..."""
FEW = 10
"""... and at least so many."""
LOOKED_AT = 2000
"""Pairs of near-duplicates that are looked at for their numbers."""
SHOWN = 100
"""Characters of a row."""


def tell_drops(samples: Samples, steps: Sequence[Vetoes]) -> None:
    """Warn of steps that dropped much, and of rows that many were dropped for.

    Parameters
    ----------
    samples
        The source, whole.
    steps
        What each step dropped.
    """
    total = len(samples)
    for vetoes in steps:
        referring = np.flatnonzero(vetoes.others >= 0)
        if not referring.size or not samples.layout.has_text:
            continue
        others, times = np.unique(vetoes.others[referring], return_counts=True)
        most = int(times.max())
        if len(vetoes) > max(2, MUCH * total) or most > max(FEW, MANY * total):
            busiest = int(others[times.argmax()])
            place = int(referring[vetoes.others[referring] == busiest][0])
            row = int(vetoes.rows[place])
            kept = vetoes.texts[busiest] if vetoes.texts is not None else _row(samples, busiest)
            one, two = parted(_row(samples, row), kept)
            reason = vetoes.reason
            other = referred(samples, reason.refers_to, busiest)
            logger.warning(
                "%s: %s of %s rows are dropped, %s of them for %s%s\n  %s: %s\n  %s: %s",
                reason.code.replace("_", " "),
                f"{len(vetoes):,}",
                f"{total:,}",
                f"{most:,}",
                other,
                f"; {in_words(reason.way_out)}" if reason.way_out else "",
                samples.row_words(row),
                safe_text(one, SHOWN),
                other,
                safe_text(two, SHOWN),
            )


def referred(samples: Samples, refers_to: str, other: int) -> str:
    """Say what rows were dropped for: one of the same rows, or of what a reason refers to."""
    return samples.row_words(other) if refers_to == "row" else f"{refers_to} {other}"


def _row(samples: Samples, row: int) -> str:
    return samples.texts("both", np.array([row]))[0]


def parted(first: str, second: str) -> tuple[str, str]:
    """Give two texts from a little before the place where they part."""
    same = next(
        (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    start = same - SHOWN // 3 if same > SHOWN // 2 else 0
    lead = "…" if start else ""
    return lead + first[start:], lead + second[start:]


def tell_numbers(samples: Samples, vetoes: Vetoes) -> None:
    """Say how many near-duplicates have other numbers and no other word."""
    looked_at = np.unique(np.linspace(0, len(vetoes) - 1, min(LOOKED_AT, len(vetoes))).astype(np.int64))
    if not len(vetoes):
        return
    rows, others = vetoes.rows[looked_at], vetoes.others[looked_at]
    found = [
        int(row)
        for row, first, second in zip(
            rows, samples.iter_parts("both", rows), samples.iter_parts("both", others), strict=True
        )
        if _differ_in_numbers(first, second)
    ]
    if found:
        logger.warning(
            "%s of %s near duplicates%s differ from the row that stays in their numbers alone, %s first; "
            "%s keeps such rows",
            f"{len(found):,}",
            f"{len(looked_at):,}",
            " looked at" if len(looked_at) < len(vetoes) else "",
            samples.row_words(found[0]),
            in_words("--near-numbers"),
        )


def _differ_in_numbers(first: str, second: str) -> bool:
    if numbers_of(first) == numbers_of(second):
        return False
    return words_of(_DIGITS.sub("0", first)) == words_of(_DIGITS.sub("0", second))


_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
