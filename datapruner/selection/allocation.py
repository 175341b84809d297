"""Share a budget over groups, exactly.

Cluster budgets, quotas, strata: all of them ask for counts near given weights, within a floor and a cap for
each group, that add up to the budget. This is the one place that answers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.errors import DataPrunerError

Projection = Literal["l2", "proportional"]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def allocate(
    weights: ArrayLike,
    sizes: ArrayLike,
    budget: int,
    floors: ArrayLike | None = None,
    projection: Projection = "l2",
    *,
    names: Sequence[Any] | None = None,
) -> Counts:
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
        int64 (k,). The sum and the bounds are exact. Equal remainders go to the lower index. A larger weight
        never gets less than a smaller one with the same bounds. The optimum is that for N P as float64 holds
        it: at budgets of 1e12 a remainder is known to 1e-4.

    Raises
    ------
    DataPrunerError
        When floors exceed sizes or the budget, the sizes do not reach the budget, a weight is negative or
        not finite, or the weights leave nobody to share with.
    """
    problem = _validated(weights, sizes, budget, floors, projection=projection, names=names)
    target = _solve(*problem, projection)
    weights, low, high, total = problem
    turn = _turns(target, weights)
    # Caps are integers, so only free groups have a remainder.
    counts = np.clip(np.clip(np.floor(target), low, high).astype(np.int64), low, high)
    missing = total - int(counts.sum())
    while missing:  # one round; more only when rounding at 1e15 and above has eaten units
        step = 1 if missing > 0 else -1
        open_ = np.flatnonzero(counts < high if step > 0 else counts > low)
        remainder = step * (target[open_] - counts[open_])
        order = np.lexsort((step * turn[open_], -remainder))
        counts[open_[order[: abs(missing)]]] += step
        missing -= step * min(abs(missing), len(open_))
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
    problem = _validated(weights, sizes, budget, floors, projection=projection, names=names)
    shares: Floats = np.clip(_solve(*problem, projection), problem[1], problem[2])
    return shares


def _turns(target: Floats, weights: Floats) -> NDArray[np.int64]:
    """Return each group's place among ties: its index, but the larger weight first where targets are equal.

    Weights 1 and 2 beside 1e17 have the same target in float64; the 2 must not get less than the 1.
    """
    turns = np.empty(len(target), dtype=np.int64)
    turns[np.lexsort((-weights, target))] = np.lexsort((target,))
    return turns


def _solve(weights: Floats, low: Counts, high: Counts, total: int, projection: Projection) -> Floats:
    """Find the solution before it is clipped to its bounds."""
    if not len(weights) or total == int(low.sum()):
        return low.astype(np.float64)
    free = low < high
    lb, ub = low[free].astype(np.float64), high[free].astype(np.float64)
    rest = total - int(low[~free].sum())
    target = low.astype(np.float64)
    if projection == "l2":
        scaled = weights / weights.max()  # first, because the sum may overflow
        target[free] = _l2((scaled / scaled.sum() * total)[free], lb, ub, rest)
    else:
        target[free] = _proportional(weights[free], lb, ub, rest)
    return target


def _l2(wish: Floats, low: Floats, high: Floats, rest: int) -> Floats:
    """Find clip(wish + nu) of sum rest."""
    points = np.concatenate([low, high]) - np.tile(wish, 2)

    def total_at(index: int) -> float:
        return float(np.clip(wish + points[index], low, high).sum())

    at_low, at_high = _active(points, -np.tile(wish, 2), total_at, rest)
    active = ~(at_low | at_high)
    if active.any():
        nu = (rest - low[at_low].sum() - high[at_high].sum() - wish[active].sum()) / active.sum()
        return np.where(at_low, np.minimum(wish + nu, low), np.where(at_high, high, wish + nu))
    return np.where(at_low, low, high)


def _proportional(weights: Floats, low: Floats, high: Floats, rest: int) -> Floats:
    """Find clip(s w) of sum rest; s itself may be beyond float64, so only ratios of weights are formed."""
    values, owners = np.concatenate([low, high]), np.tile(weights, 2)

    def total_at(index: int) -> float:
        if values[index] == 0:
            return float(low.sum())
        with np.errstate(over="ignore", under="ignore"):
            return float(np.clip(values[index] * (weights / owners[index]), low, high).sum())

    with np.errstate(divide="ignore"):  # a floor of zero is left at once: -inf
        points = np.log2(values) - np.log2(owners)
    at_low, at_high = _active(points, -owners, total_at, rest)
    active = ~(at_low | at_high)
    solution = np.where(at_low, low, high)
    if active.any():
        # By a power of two, which rounds nothing: remainders of whole weights tie exactly, and go to the lower index.
        share = np.ldexp(weights[active], -np.frexp(weights[active].max())[1])
        solution[active] = share * (rest - low[at_low].sum() - high[at_high].sum()) / share.sum()
    return solution


def _active(
    points: Floats, ties: Floats, total_at: Callable[[int], float], rest: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which groups lie at their floor and which at their cap, found between two sorted breakpoints.

    A group leaves its floor at one breakpoint and reaches its cap at another; in between the total is
    linear. Bisection over the sorted breakpoints costs O(k log k) and, unlike running sums of slopes, loses
    nothing when weights differ by many powers of ten.
    """
    order = np.lexsort((ties, points))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    below, above = 0, len(order)  # the total at `below` is at most rest; at `above` it is more
    while above - below > 1:
        middle = (below + above) // 2
        if total_at(int(order[middle])) <= rest:
            below = middle
        else:
            above = middle
    groups = len(order) // 2
    return place[:groups] > below, place[groups:] <= below


def _validated(
    weights: ArrayLike,
    sizes: ArrayLike,
    budget: int,
    floors: ArrayLike | None,
    *,
    projection: str,
    names: Sequence[Any] | None,
) -> tuple[Floats, Counts, Counts, int]:
    """Return weights, floors, caps and budget; a cap never above what the budget leaves room for."""
    if projection not in ("l2", "proportional"):
        raise DataPrunerError(f"The projection must be 'l2' or 'proportional', got {projection!r}.")
    w = np.asarray(weights, dtype=np.float64)
    high = _integers(sizes, "sizes")
    low = np.zeros_like(high) if floors is None else _integers(floors, "floors")
    if not w.shape == high.shape == low.shape or w.ndim != 1:
        raise DataPrunerError(
            f"weights, sizes and floors must be flat and of equal length, got shapes {w.shape}, "
            f"{high.shape} and {low.shape}."
        )
    total = operator.index(budget)

    def named(mask: NDArray[np.bool_]) -> str:
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


def _integers(values: ArrayLike, what: str) -> Counts:
    array = np.asarray(values)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        whole = np.asarray(array, dtype=np.float64)
        if not np.array_equal(whole, np.floor(whole)):  # also false for NaN
            raise DataPrunerError(f"{what} must be whole numbers.")
    return array.astype(np.int64)
