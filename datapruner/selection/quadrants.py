"""Q-Tuning's first stage: the quadrants of the Error-Uncertainty plane (arXiv 2509.23873, Algorithm 1).

Used over a whole dataset by :class:`~datapruner.selection.selectors.eu_plane.EUPlaneSelector` and over a mini-batch by
:mod:`datapruner.integrations.qtuning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from datapruner.arrays import Flags, Floats, Ints
from datapruner.errors import RowError
from datapruner.ranks import average_ranks

Fill = Literal["log_ppl", "ppl", "rank"]
"""How error and uncertainty are put on one scale before they are compared."""

LIMIT, STEPS, TOLERANCE = 0.49, 10, 0.01
"""Of the bisection: the largest tail, the iterations, and the share of the rows at which it is near enough."""


@dataclass(frozen=True, eq=False)
class Quadrants:
    """Where rows lie in the plane.

    Attributes
    ----------
    numbers : ndarray, int64, shape (n,)
        1 high error and high uncertainty, 2 high error and low, 3 low and low, 4 low error and high uncertainty;
        0 between the thresholds.
    log_ppl, entropy : tuple of float
        The thresholds, low and high: at most the first is low, above the second is high.
    """

    numbers: Ints
    log_ppl: tuple[float, float]
    entropy: tuple[float, float]


def quadrants_at(log_ppl: Floats, entropy: Floats, tail: float) -> Quadrants:
    """Cut the plane at the quantiles ``tail`` and ``1 - tail`` of both axes (*published*).

    *Derived*: which rows exceed an interpolated quantile depends on their order alone, so log PPL gives the sets
    that PPL gives, and does not overflow. At 0.5, the medians, every row lies in a quadrant.
    """
    (low, high), (sure, unsure) = (
        (float(np.quantile(axis, tail)), float(np.quantile(axis, 1 - tail))) for axis in (log_ppl, entropy)
    )
    wrong, right = log_ppl > high, log_ppl <= low
    numbers = np.zeros(len(log_ppl), dtype=np.int64)
    numbers[wrong & (entropy > unsure)] = 1
    numbers[wrong & (entropy <= sure)] = 2
    numbers[right & (entropy <= sure)] = 3
    numbers[right & (entropy > unsure)] = 4
    return Quadrants(numbers, (low, high), (sure, unsure))


def find_quadrants(log_ppl: Floats, entropy: Floats, budget: int, costs: Ints | None = None) -> Quadrants:
    """Cut the plane so that Q2 and Q4 hold the budget, as nearly as one parameter can.

    *Published*: the tail in [0, 0.49] is bisected until Q2 and Q4 hold the budget, ten times or until 0.01 of the
    rows are missing. *Ours*: the closest iterate is kept, where the withdrawn code keeps the last; in token
    budgets a row counts its tokens.

    Parameters
    ----------
    log_ppl, entropy : ndarray, float64, shape (n,)
        n is at least 1.
    budget : int
        Rows, or tokens.
    costs : ndarray, int64, shape (n,), optional
        What each row takes of the budget; 1 by default.
    """
    costs = np.ones(len(log_ppl), dtype=np.int64) if costs is None else costs
    low, high = 0.0, LIMIT
    best, miss = quadrants_at(log_ppl, entropy, 0.0), float("inf")
    for _ in range(STEPS):
        tail = (low + high) / 2
        found = quadrants_at(log_ppl, entropy, tail)
        held = int(costs[_wanted(found)].sum())
        if abs(held - budget) < miss:
            best, miss = found, abs(held - budget)
        if miss <= TOLERANCE * int(costs.sum()):
            break
        low, high = (tail, high) if held < budget else (low, tail)
    return best


def gaps(log_ppl: Floats, entropy: Floats, fill: Fill) -> Floats:
    """Distance |P - E| of each row from the plane's diagonal, on which Q1 and Q3 lie.

    Parameters
    ----------
    log_ppl, entropy : ndarray, float64, shape (n,)
    fill : {"log_ppl", "ppl", "rank"}
        *Published*: ``ppl``, min-max of PPL and of the entropy; a single outlier then decides the scale.
        *Ours*: ``log_ppl``, min-max of log PPL, and ``rank``, both axes as ranks, the mean rank where rows are
        equal.

    Returns
    -------
    ndarray
        float64 (n,) in [0, 1]; an axis on which all rows are equal counts as 0 (*ours*: min-max is 0 / 0).
    """
    if fill == "rank":
        log_ppl, entropy = average_ranks(log_ppl), average_ranks(entropy)
    elif fill == "ppl":  # min-max does not mind a factor, and without it PPL overflows
        log_ppl = np.exp(log_ppl - log_ppl.max())
    apart: Floats = np.abs(_unit(log_ppl) - _unit(entropy))
    return apart


def triage(
    log_ppl: Floats,
    entropy: Floats,
    budget: int,
    costs: Ints | None = None,
    *,
    fill: Fill,
    rows: Ints | None = None,
) -> tuple[Ints, Quadrants, Floats]:
    """Put rows into the order in which they are kept.

    *Published*: Q2 and Q4 first; then what is missing, by the largest |P - E| of the rest. *Ours*: by |P - E| too
    where Q2 and Q4 hold more than the budget.

    Parameters
    ----------
    log_ppl, entropy : ndarray, float64, shape (n,)
    budget, costs
        See :func:`find_quadrants`.
    fill
        See :func:`gaps`.
    rows : ndarray, int64, shape (n,), optional
        Their numbers, for the error.

    Returns
    -------
    order : ndarray, int64, shape (n,)
        Positions, best first; ties by position.
    quadrants : Quadrants
    gaps : ndarray, float64, shape (n,)

    Raises
    ------
    DataPrunerError
        A value is not finite.
    """
    for name, axis in (("log_ppl", log_ppl), ("entropy", entropy)):
        if not np.isfinite(axis).all():
            place = int(np.argmin(np.isfinite(axis)))
            row = place if rows is None else int(rows[place])
            raise RowError(f"{name} is not finite in row {row}; Q-Tuning cannot place it", row)
    if not len(log_ppl):
        nowhere = (float("nan"), float("nan"))
        return np.zeros(0, np.int64), Quadrants(np.zeros(0, np.int64), nowhere, nowhere), np.zeros(0)
    quadrants = find_quadrants(log_ppl, entropy, budget, costs)
    apart = gaps(log_ppl, entropy, fill)
    return np.lexsort((-apart, ~_wanted(quadrants))), quadrants, apart


def _wanted(quadrants: Quadrants) -> Flags:
    wanted: Flags = (quadrants.numbers == 2) | (quadrants.numbers == 4)
    return wanted


def _unit(values: Floats) -> Floats:
    """Stretch to [0, 1]."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros(len(values))
