"""Words that pages, cards and the command line share: counts, shares, lists, a budget in short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.results.scored import Scored
    from datapruner.results.selected import Selected


def counted(count: int, one: str, many: str | None = None) -> str:
    """Write ``no rows``, ``1 row``, ``1,234 rows``."""
    many = f"{one}s" if many is None else many
    return f"no {many}" if count == 0 else f"1 {one}" if count == 1 else f"{count:,} {many}"


def percent(part: float, whole: float) -> str:
    """Write a share: whole numbers from 10 on, one decimal below, and never 0 or 100 unless it is that."""
    if not whole:
        return "-"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "under 0.1\u00a0%"
    if share < 9.95:
        return f"{share:.1f}".removesuffix(".0") + "\u00a0%"
    return f"{min(share, 99.9):.1f}\u00a0%" if 99.5 <= share < 100 else f"{share:.0f}\u00a0%"


def share_of_rows(keep: float) -> str:
    """Write a budget's share of the rows to four digits: ``12.5 %``."""
    return f"{100 * keep:.4g}\u00a0%"


def listed(parts: Sequence[str]) -> str:
    """Join words: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def some(parts: Sequence[str], most: int, kind: str) -> list[str]:
    """Give the first parts, and how many more of their kind there are."""
    rest = len(parts) - most
    return [*parts[:most], *([counted(rest, f"more {kind}")] if rest > 0 else [])]


def be(count: int, *, now: bool = False) -> str:
    """Write the verb that goes with a count: ``was`` or ``were``, with ``now`` ``is`` or ``are``."""
    return ("is" if count == 1 else "are") if now else ("was" if count == 1 else "were")


def upper(text: str) -> str:
    """Begin a sentence."""
    return text[:1].upper() + text[1:]


def short_name(name: str) -> str:
    """Make a name harmless and short."""
    return safe_text(name, 60)


def budget_words(selection: Selected) -> str:
    """Say in a sentence what was to be kept."""
    budget = selection.budget
    if budget.per_group is None and not budget.quotas:
        if isinstance(budget.keep, float):
            return f"{share_of_rows(budget.keep)} of the rows"
        if budget.keep_tokens is not None:
            return counted(budget.keep_tokens, "supervised token")
        return counted(int(budget.keep or 0), "row")
    return budget.describe()


def by_budget(selections: Sequence[Selected]) -> list[list[int]]:
    """Sort selections' places by budget, in the order in which these come."""
    found: dict[str, list[int]] = {}
    for place, selection in enumerate(selections):
        found.setdefault(selection.budget.describe(), []).append(place)
    return list(found.values())


def counted_here(missing: Flags, scores: Scored, rows: Ints | None = None) -> str:
    """Say how many rows a figure counts or draws, and why the others are missing from it.

    Parameters
    ----------
    missing : ndarray, bool, shape (n,)
    scores : Scored
    rows : ndarray, int64, shape (m,), optional
        The rows that the page shows, where only these are drawn.
    """
    cleaned = np.zeros(len(missing), dtype=np.bool_)
    for vetoes in scores.vetoes:
        cleaned[vetoes.rows] = True
    done, shown = "counted", counted(len(missing), "row")
    if rows is not None:
        missing, cleaned = missing[rows], cleaned[rows]
        done, shown = "drawn", counted(len(rows), "row" if len(rows) == len(scores) else "shown row")
    there, before, other = (int(mask.sum()) for mask in (~missing, missing & cleaned, missing & ~cleaned))
    why = [f"{before:,} {be(before)} dropped before scoring"] if before else []
    why += [f"{other:,} {'has' if other == 1 else 'have'} no value"] if other else []
    if why:
        return f"{there:,} of {shown} {be(there, now=True)} {done}; {listed(why)}."
    return f"{'All ' if there > 1 else ''}{shown} {be(there, now=True)} {done}."
