"""The rows that a cleaning step dropped beside what they were dropped for: pairs to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from datapruner.cleaning.vetoes import Vetoes

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples


@dataclass(frozen=True)
class Pair:
    """A dropped row, and the row (for a leak: the test row) that it was dropped for.

    Attributes
    ----------
    cause : str
        ``exact_duplicate``, ``near_duplicate``, ``semantic_duplicate`` or ``contaminated``.
    row, other : int
        Positions in the source; ``other`` of a leak is one in the test set.
    measure : float
        Jaccard similarity, cosine, or the share of the test row's n-grams; 1.0 for an exact duplicate.
    text, other_text : str
        What the two say; empty for a test row, and where rows have no text.
    refers_to : str
        What ``other`` is: ``row``, or ``test row``.
    """

    cause: str
    row: int
    other: int
    measure: float
    text: str
    other_text: str
    refers_to: str = "row"


def pairs(samples: Samples, steps: Sequence[Vetoes], count: int | None = None) -> list[Pair]:
    """Give what each step dropped beside what it was dropped for, the least alike first: where a threshold is decided.

    Parameters
    ----------
    samples : Samples
    steps : sequence of Vetoes
    count : int, optional
        Pairs of each step at most; all of them by default.
    """
    found = []
    for step in steps:
        refers_to = step.reason.refers_to
        referring = np.flatnonzero(step.others >= 0)
        for place in referring[np.argsort(step.measures[referring], kind="stable")][:count].tolist():
            row, other = int(step.rows[place]), int(step.others[place])
            text = other_text = ""
            if samples.layout.has_text:
                text = samples[row].part("both")
                other_text = samples[other].part("both") if refers_to == "row" else ""
            measure = float(step.measures[place])
            found.append(Pair(step.kind, row, other, measure, text, other_text, refers_to))
    return found
