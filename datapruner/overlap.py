"""How far two selections agree, and how far they would by chance."""

from __future__ import annotations

import numpy as np

from datapruner.arrays import Flags, Floats
from datapruner.ranks import spearman


def jaccard(first: Flags, second: Flags) -> float:
    """Rows that both keep as a share of the rows that either keeps; 1 where neither keeps any."""
    either = int((first | second).sum())
    return float((first & second).sum() / either) if either else 1.0


def correlation(first: Floats, second: Floats) -> float | None:
    """Spearman's over the rows that both have a score for; None where either gave all the same."""
    both = np.isfinite(first) & np.isfinite(second)
    a, b = first[both], second[both]
    if not len(a) or (a == a[0]).all() or (b == b[0]).all():
        return None
    return spearman(a, b)


def chance(kept: tuple[int, int], eligible: tuple[Flags, Flags], forced: Flags) -> float:
    """Jaccard index to be expected of two independent random selections.

    Of k rows out of n each it is k / (2n - k), by putting the expected overlap k^2 / n in the place of the overlap
    (*derived*). Here rows that are always kept are in both, and the two may have different rows to choose from.

    Parameters
    ----------
    kept : pair of int
    eligible : pair of ndarray, bool, shape (n,)
    forced : ndarray, bool, shape (n,)
    """
    both = int((eligible[0] & eligible[1] & forced).sum())
    shared = float((eligible[0] & eligible[1] & ~forced).sum())
    for k, rows in zip(kept, eligible, strict=True):
        free = int((rows & ~forced).sum())
        shared *= (k - int((rows & forced).sum())) / free if free else 0.0
    overlap = both + shared
    return overlap / (sum(kept) - overlap)
