"""How far two trainings differ on a target, with an interval: over its tokens, or as the mean over its groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.ranks import rows_of_groups

LEVEL, POWER = 0.95, 0.8


class Gap(NamedTuple):
    """A difference of two losses, in nats a token.

    Attributes
    ----------
    mean : float
    half : float
        Half of its 95 % interval.
    seen_from : float
        The difference that would be found four times in five.
    """

    mean: float
    half: float
    seen_from: float

    def told(self) -> str:
        """Write it with its interval."""
        return f"{self.mean:+.4f} ± {self.half:.4f}"


@dataclass(frozen=True, eq=False)
class Groups:
    """What the target's rows are of, by a column.

    Attributes
    ----------
    by : str
        The column.
    names : list of str
        Its values.
    of : ndarray, int64, shape (m,)
        Each row's, as a place in ``names``.
    """

    by: str
    names: list[str]
    of: Ints = field(repr=False)

    def rows(self) -> list[Ints]:
        """Give the rows of every group."""
        return rows_of_groups(self.of)


def gap_of(over: Floats, tokens: Ints, parts: Sequence[Ints]) -> Gap:
    """Give the mean over parts of a target of the difference a token.

    The variance is that of the runs plus, part by part, that of the target's rows (of a ratio, linearised); the
    interval is Student's, with degrees of freedom by Welch and Satterthwaite. *Ours.*

    Parameters
    ----------
    over : ndarray, float64, shape (runs, m)
        How much more each row of the target loses after one training than after another, nats.
    tokens : ndarray, int64, shape (m,)
        Its supervised tokens.
    parts : sequence of ndarray, int64
        The rows of each part: each part counts the same, and in it each token.
    """
    from scipy.stats import norm, t

    sizes = [int(tokens[rows].sum()) for rows in parts]
    each = np.array([over[:, rows].sum(axis=1) / size for rows, size in zip(parts, sizes, strict=True)])
    by_run = each.mean(axis=0)
    mean = float(by_run.mean())
    variances = [(float(by_run.var(ddof=1)) / len(by_run), len(by_run) - 1.0)]
    for rows, size, own in zip(parts, sizes, each.mean(axis=1), strict=True):
        if len(rows) > 1:
            rest = over[:, rows].mean(axis=0) - own * tokens[rows]
            variances.append(
                (len(rows) * float(rest.var(ddof=1)) / (size * len(parts)) ** 2, len(rows) - 1.0)
            )
    total = sum(variance for variance, _ in variances)
    if total == 0:
        return Gap(mean, 0.0, 0.0)
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in variances)
    spread = float(np.sqrt(total))
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * spread
    return Gap(mean, half, half + float(norm.ppf(POWER)) * spread)
