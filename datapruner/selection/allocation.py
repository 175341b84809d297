"""Share a budget over groups, exactly.

Cluster budgets, quotas, strata: all of them ask for counts near given weights, within a floor and a cap for
each group, that add up to the budget. This is the one place that answers.

All of it is in whole numbers (:mod:`datapruner.selection.shares`): a float weight is the fraction that its bits hold.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.selection.shares import Projection, Whole, largest, solve


def allocate(
    weights: ArrayLike,
    sizes: ArrayLike,
    budget: int,
    floors: ArrayLike | None = None,
    projection: Projection = "l2",
    *,
    names: Sequence[Any] | None = None,
) -> Ints:
    """Whole counts for each group, adding up to the budget.

    With P = weights / sum(weights), N = budget, and floors <= x <= sizes, sum x = N:

    - ``l2`` minimises sum (x_j - N P_j)^2 (objective *published*, arXiv 2401.04578; *derived*: the solution
      is clip(N P + nu, floors, sizes), and the largest remainders of it give the optimum over integers). The
      shift nu is the same for all, so that a group of weight zero may receive rows.
    - ``proportional`` is clip(s weights, floors, sizes), and its integers are by definition the largest
      remainders of that (*ours*). A group of weight zero gets its floor and no more.

    Parameters
    ----------
    weights
        (k,), finite, not negative, in any unit.
    sizes
        Caps, integers (k,): what the group holds.
    budget
        Rows or tokens to hand out.
    floors
        Least counts, integers (k,); default 0.
    projection
        ``l2`` or ``proportional``.
    names
        The groups' names for error messages; default ``group 0`` and so on.

    Returns
    -------
    ndarray
        int64 (k,). The sum, the bounds and the remainders are exact, whatever the weights and the budget. Equal
        remainders go to the lower index. A larger weight never gets less than a smaller one with the same bounds.

    Raises
    ------
    DataPrunerError
        When floors exceed sizes or the budget, the sizes do not reach the budget, a weight is negative or
        not finite, or the weights leave nobody to share with.
    """
    shares, unit = allocate_exactly(weights, sizes, budget, floors, projection, names=names)
    counts, remainders = _parts(shares, unit)
    # Fewer than there are groups with a remainder, and a group with one is below its cap.
    missing = operator.index(budget) - sum(counts.tolist())
    counts[largest(remainders, missing)] += 1
    return counts


def allocate_continuous(
    weights: ArrayLike,
    sizes: ArrayLike,
    budget: int,
    floors: ArrayLike | None = None,
    projection: Projection = "l2",
    *,
    names: Sequence[Any] | None = None,
) -> Floats:
    """Return the same before rounding: float64 (k,); see `allocate`."""
    shares, unit = allocate_exactly(weights, sizes, budget, floors, projection, names=names)
    counts, remainders = _parts(shares, unit)
    # At a bound nothing remains to be rounded.
    return np.asarray(counts + (remainders / unit).astype(np.float64), dtype=np.float64)


def allocate_exactly(
    weights: ArrayLike,
    sizes: ArrayLike,
    budget: int,
    floors: ArrayLike | None = None,
    projection: Projection = "l2",
    *,
    names: Sequence[Any] | None = None,
) -> tuple[Whole, int]:
    """Return the same before rounding as numerators (k,), whole numbers, of one denominator; see `allocate`."""
    problem = _validated(weights, sizes, budget, floors, projection=projection, names=names)
    return solve(*problem, projection)


def power_weights(sizes: Ints, power: float) -> Floats:
    """Weigh groups by their sizes to a power; a group of nothing weighs nothing.

    *Published*: power allocation (Bankier 1988, The American Statistician 42, 174-177), with the groups alike in
    everything but size.
    """
    return np.where(sizes > 0, sizes.astype(np.float64) ** power, 0.0)


def _parts(shares: Whole, unit: int) -> tuple[Ints, Whole]:
    """Whole parts, and what remains of each in the unit."""
    counts = shares // unit
    return counts.astype(np.int64), shares - counts * unit


def _validated(
    weights: ArrayLike,
    sizes: ArrayLike,
    budget: int,
    floors: ArrayLike | None,
    *,
    projection: str,
    names: Sequence[Any] | None,
) -> tuple[NDArray[Any], Ints, Ints, int]:
    """Return weights (whole or float64), floors, caps and budget; a cap never above what the budget leaves room for."""
    if projection not in ("l2", "proportional"):
        raise DataPrunerError(f"The projection must be 'l2' or 'proportional', got {projection!r}.")
    w = np.asarray(weights)
    if w.dtype.kind not in "iu" or not w.size:
        w = np.asarray(weights, dtype=np.float64)
    high = _integers(sizes, "sizes")
    low = np.zeros_like(high) if floors is None else _integers(floors, "floors")
    if not w.shape == high.shape == low.shape or w.ndim != 1:
        raise DataPrunerError(
            f"weights, sizes and floors must be flat and of equal length, got shapes {w.shape}, "
            f"{high.shape} and {low.shape}."
        )
    total = operator.index(budget)

    def named(mask: Flags) -> str:
        places = np.flatnonzero(mask)
        shown = [str(names[i]) if names is not None else f"group {i}" for i in places[:5].tolist()]
        return ", ".join(shown) + (f" and {len(places) - 5} more" if len(places) > 5 else "")

    bad = ~np.isfinite(w) | (w < 0)
    if bad.any():
        raise DataPrunerError(f"Weights must be finite and not negative; see {named(bad)}.")
    if (low < 0).any() or (high < 0).any():
        raise DataPrunerError(f"Floors and sizes must not be negative; see {named((low < 0) | (high < 0))}.")
    if (low > high).any():
        raise DataPrunerError(
            f"The floor is above the group's size in {named(low > high)}; lower the floor there."
        )
    # Python integers: sums of 64-bit sizes may not fit 64 bits.
    least, most = sum(low.tolist()), sum(high.tolist())
    if least > total:
        raise DataPrunerError(
            f"The floors add up to {least}, above the budget of {total}; raise the budget or lower floors, "
            f"the largest of which is that of {named(np.arange(len(low)) == np.argmax(low))}."
            if total >= 0
            else f"The budget must not be negative, got {total}."
        )
    if most < total:
        raise DataPrunerError(
            f"The groups hold {most}, below the budget of {total}; lower the budget to {most} or less."
        )
    zero = w == 0
    if total > least and zero.all():
        raise DataPrunerError(
            f"All weights are zero ({named(zero)}), which leaves nobody to share {total - least} with; "
            "give equal weights to share evenly."
        )
    if projection == "proportional":
        reach = sum(np.where(zero, low, high).tolist())
        if reach < total:
            raise DataPrunerError(
                f"The groups with a weight hold {reach}, below the budget of {total}; lower the budget, or "
                f"give a weight above zero to {named(zero & (high > low))}."
            )
        high = np.where(zero, low, high)
    return w, low, np.minimum(high, low + (total - least)), total


def _integers(values: ArrayLike, what: str) -> Ints:
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        whole = np.asarray(array, dtype=np.float64)
        if not np.array_equal(whole, np.floor(whole)):  # also false for NaN
            raise DataPrunerError(f"{what} must be whole numbers.")
    return array.astype(np.int64)
