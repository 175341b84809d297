"""Where every row stood among those that it competed with, and the score from which rows were kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Flags, Floats, Ints
from datapruner.ragged import offsets_of
from datapruner.ranking import DRAW

if TYPE_CHECKING:
    from datapruner.ranking import Measure

BLOCK = 1 << 20
"""Rows that are looked at together."""
Grouping = tuple[list[str], Ints]
"""Names, and for every row which of them is its; -1 where a row is in none."""


@dataclass(frozen=True, eq=False)
class Standing:
    """The places of all rows.

    Attributes
    ----------
    names : list of str, length k
        What rows competed in; empty for the whole dataset.
    parts : ndarray, int64, shape (n,)
        Which of them is a row's; -1 where it did not compete: dropped before, or always kept.
    places : ndarray, int64, shape (n,)
        From 1, the best score of the part; equal scores by position. 0 where it did not compete.
    sizes, kept : ndarray, int64, shape (k,)
        Rows that competed in a part, and those of them that were kept.
    cuts : ndarray, float64, shape (k,)
        The lowest score from which all rows were kept; NaN where there is none, or more than the score decided.
    """

    names: list[str]
    parts: Ints
    places: Ints
    sizes: Ints
    kept: Ints
    cuts: Floats


def standing(
    values: Floats,
    kept: Flags,
    competing: Flags,
    groupings: Iterable[Grouping],
    costs: Ints | None = None,
) -> Standing:
    """Rank rows in the widest of some groupings in which the kept rows are the best ones.

    Parameters
    ----------
    values : ndarray, float64, shape (n,)
        Higher is better.
    kept, competing : ndarray, bool, shape (n,)
    groupings : iterable of Grouping
        From the widest to the narrowest. Where the score alone decides in none of them, rows are ranked in the last.
    costs : ndarray, int64, shape (n,), optional
        What each row took of the budget; 1 by default. A row that costs more than all that was kept after it was too
        long to be kept, whatever its score.

    Returns
    -------
    Standing
    """
    rows = np.flatnonzero(competing)
    taken = kept[rows]
    own = None if costs is None else costs[rows]
    found: Standing | None = None
    for grouping in groupings:
        found = None  # gone before the next is made: each is some numbers a row
        found, by_score = _standing(values, rows, taken, own, grouping)
        if by_score:
            break
    assert found is not None
    return found


def _standing(
    values: Floats, rows: Ints, taken: Flags, own: Ints | None, grouping: Grouping
) -> tuple[Standing, bool]:
    """Rank rows in the parts of one grouping; whether the score alone decides in all of them."""
    names, codes = grouping
    part = codes[rows]
    order = np.lexsort((-values[rows], part))
    edges = np.searchsorted(part[order], np.arange(len(names) + 1))
    sizes = np.diff(edges)
    places = np.zeros(len(values), dtype=np.int64)
    places[rows[order]] = np.arange(len(rows)) - np.repeat(edges[:-1], sizes) + 1
    spent = offsets_of((taken if own is None else own * taken)[order])
    by_score = np.ones(len(names), dtype=np.bool_)
    first = edges[1:].copy()  # where a part's first dropped row is
    for start in range(0, len(rows), BLOCK):
        here = order[start : start + BLOCK]
        dropped = np.flatnonzero(~taken[here])
        of = part[here[dropped]]
        after = spent[edges[1:]][of] - spent[1:][start + dropped]
        by_score[of[after >= (1 if own is None else own[here[dropped]])]] = False
        np.minimum.at(first, of, start + dropped)
    cuts = np.full(len(names), np.nan)
    some = np.flatnonzero(by_score & (first > edges[:-1]))
    cuts[some] = values[rows[order[first[some] - 1]]]
    parts = np.full(len(values), -1, dtype=np.int64)
    parts[rows] = part
    in_part = np.bincount(part, taken, len(names)).astype(np.int64)
    return Standing(list(names), parts, places, sizes.astype(np.int64), in_part, cuts), bool(by_score.all())


def crossed(first: Grouping, second: Grouping) -> Grouping:
    """Group by two things at once, in the order of the first's names and then the second's."""
    (names, codes), (others, numbers) = first, second
    both = (codes >= 0) & (numbers >= 0)
    pair = (codes * len(others) + numbers)[both]
    pairs = np.unique(pair)
    joined = [
        ", ".join(name for name in (names[pair // len(others)], others[pair % len(others)]) if name)
        for pair in pairs.tolist()
    ]
    out = np.full(len(codes), -1, dtype=np.int64)
    out[both] = np.searchsorted(pairs, pair)
    return joined, out


def place_words(held: Standing, row: int) -> str:
    """Say where a row stood: ``ranked 812 of 5,600; 560 were kept``; empty where it did not compete."""
    part = int(held.parts[row])
    if part < 0:
        return ""
    inside = f" in {held.names[part]}" if held.names[part] else ""
    return f"ranked {held.places[row]:,} of {held.sizes[part]:,}{inside}; {held.kept[part]:,} were kept"


def missed_words(score: float, cut: float, measure: Measure, within: str = "") -> str:
    """Say what a row had, and what it would have needed, unless that was drawn; its score is at most the cut."""
    digits = 6
    while digits < 17 and score < cut and f"{score:.{digits}g}" == f"{cut:.{digits}g}":
        digits += 1
    inside = f" in {within}" if within else ""
    if measure.name == DRAW:
        return "which rows are kept was drawn at random"
    had, needed = (f"{measure.shown(number):.{digits}g}" for number in (score, cut))
    if score == cut:
        return f"its {measure.name} of {had} ties with the last that was kept, which comes before it"
    return f"its {measure.name} is {had}, and {needed} or {'more' if measure.high else 'less'} was needed{inside}"
