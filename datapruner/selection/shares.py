"""Shares within bounds, in whole numbers.

Floating point only guesses which groups lie at a bound; the guess is checked, and made again where it was wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints

Projection = Literal["l2", "proportional"]
Whole = NDArray[Any]
"""Whole numbers: int64 where every product fits, else Python's own."""
FITS = 1 << 62


def solve(
    weights: NDArray[Any], low: Ints, high: Ints, total: int, projection: Projection
) -> tuple[Whole, int]:
    """Find clip(level of the weights, low, high) of sum ``total``; see :mod:`datapruner.selection.allocation`.

    Parameters
    ----------
    weights : ndarray, integer or float64, shape (k,)
        Above 0 where ``proportional`` leaves room between the bounds.
    low, high : ndarray, int64, shape (k,)
    total : int
        Between their sums.
    projection : {"l2", "proportional"}

    Returns
    -------
    shares : ndarray, shape (k,)
        Numerators: int64 or Python's integers.
    unit : int
        Their denominator.
    """
    for bound in (low, high):
        if sum(bound.tolist()) == total:
            return bound, 1
    weights = _whole(weights)
    free, groups, whole = low < high, len(weights), sum(weights.tolist())
    product = 2 * total * whole * (groups if projection == "l2" else 1)
    kind: Any = np.int64 if product < FITS else object
    own, floor, cap = (array[free].astype(kind) for array in (weights, low, high))
    rest = total - sum(low[~free].tolist())
    shares, unit = _Problem(own, floor, cap, rest, total, whole, projection).solved()
    every = low.astype(kind) * unit
    every[free] = shares
    return every, unit


@dataclass(frozen=True)
class _Line:
    """A level of all groups, (slope w + offset) / unit, before it is clipped to their bounds."""

    slope: int
    offset: int
    unit: int


@dataclass(frozen=True, eq=False)
class _Problem:
    """Groups whose floor is below their cap, and what is left for them; every number whole.

    Attributes
    ----------
    weights, low, high : ndarray, shape (k,)
        All int64, or all Python's integers.
    rest : int
        What they get together; above their floors and below their caps.
    budget, whole : int
        Of all groups: what is shared, and the sum of the weights.
    projection : {"l2", "proportional"}
    """

    weights: Whole
    low: Whole
    high: Whole
    rest: int
    budget: int
    whole: int
    projection: Projection

    def solved(self) -> tuple[Whole, int]:
        """Find the shares: numerators and their denominator.

        The total rises with the level, so that whatever level meets it gives the one solution. Floating point is
        nearly always right about who lies between their bounds; else a search in whole numbers tells.
        """
        line = self._through(*self._by_floats())
        shares = None if line is None else self._at(line)
        if line is None or shares is None or _sum(shares) != self.rest * line.unit:
            line = self._through(*self._by_whole_numbers())
            assert line is not None, "between the breakpoints around the rest somebody's share rises"
            shares = self._at(line)
        return shares, line.unit

    def _through(self, at_low: Flags, at_high: Flags) -> _Line | None:
        """Give the level at which the groups between their bounds get what the others leave."""
        between = ~(at_low | at_high)
        left = self.rest - _sum(self.low[at_low]) - _sum(self.high[at_high])
        if left < 0 or not between.any():
            return None
        held, count = _sum(self.weights[between]), int(between.sum())
        if self.projection == "proportional":
            return _Line(left, 0, held)
        return _Line(self.budget * count, left * self.whole - self.budget * held, self.whole * count)

    def _at(self, line: _Line) -> Whole:
        """Give the shares of a level, in its unit."""
        shares = self.weights * line.slope + line.offset
        return np.asarray(np.minimum(np.maximum(shares, self.low * line.unit), self.high * line.unit))

    def _by_floats(self) -> tuple[Flags, Flags]:
        """Guess who lies at the floor and at the cap."""
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        # Scaled first: whole numbers may lie beyond the range of floats.
        top = self.whole if self.projection == "l2" else int(self.weights.max())
        shift = max(0, top.bit_length() - 1000)
        weights = (self.weights >> shift).astype(np.float64) if shift else self.weights.astype(np.float64)
        weights = np.maximum(weights, np.where(self.weights > 0, 2.0**-60, 0))
        bounds = np.concatenate([low, high])
        if self.projection == "l2":
            wish = weights / (float(self.whole >> shift) or 1.0) * self.budget
            points = bounds - np.tile(wish, 2)

            def reached_by_shift(place: int) -> bool:
                return float(np.clip(wish + points[place], low, high).sum()) <= self.rest

            return _between(np.lexsort((-np.tile(wish, 2), points)), reached_by_shift)
        owners = np.tile(weights, 2)
        with np.errstate(divide="ignore"):  # a floor of zero is left at once: -inf
            points = np.log2(bounds) - np.log2(owners)

        def reached(place: int) -> bool:
            if bounds[place] == 0:
                return True
            with np.errstate(over="ignore", under="ignore"):
                level = np.clip(bounds[place] * (weights / owners[place]), low, high)
            return float(level.sum()) <= self.rest

        return _between(np.lexsort((-owners, points)), reached)

    def _by_whole_numbers(self) -> tuple[Flags, Flags]:
        """Find who lies at the floor and at the cap."""
        bounds, owners = self.low.tolist() + self.high.tolist(), self.weights.tolist() * 2
        if self.projection == "l2":
            lines = [
                _Line(self.budget, bound * self.whole - self.budget * owner, self.whole)
                for bound, owner in zip(bounds, owners, strict=True)
            ]
            keys = [line.offset for line in lines]
        else:
            lines = [_Line(bound, 0, owner) for bound, owner in zip(bounds, owners, strict=True)]
            # Two unequal fractions differ by at least one over the product of their denominators.
            bits = 2 * max(owners).bit_length() + 1
            keys = [(line.slope << bits) // line.unit for line in lines]

        def reached(place: int) -> bool:
            return _sum(self._at(lines[place])) <= self.rest * lines[place].unit

        return _between(np.array(sorted(range(len(keys)), key=keys.__getitem__)), reached)


def _sum(values: Whole) -> int:
    """Add up, in halves, whose sums fit where that of the values does not."""
    if values.dtype == object:
        return int(values.sum())
    return (int((values >> 31).sum()) << 31) + int((values & (1 << 31) - 1).sum())


def largest(values: Whole, count: int) -> Ints:
    """Find the ``count`` largest of whole numbers that are not negative; of equal ones the first.

    Sorted by their leading 62 bits, which numpy does quickly; all digits decide where these are equal at the cut.
    """
    if not count:
        return np.empty(0, dtype=np.int64)
    shift = max(0, int(values.max()).bit_length() - 62)
    leading = (values >> shift).astype(np.int64)
    order = np.argsort(-leading, kind="stable")
    cut = leading[order[count - 1]]
    above, tied = order[: int((leading > cut).sum())], np.flatnonzero(leading == cut)
    return np.concatenate([above, tied[np.argsort(-values[tied], kind="stable")][: count - len(above)]])


def _whole(weights: NDArray[Any]) -> Whole:
    """Make weights whole by one factor: exactly what their floats hold."""
    if weights.dtype.kind in "iu":
        return weights
    if weights.max() < 2.0**53 and (weights == np.floor(weights)).all():
        return weights.astype(np.int64)
    mantissa, exponent = np.frexp(weights)
    digits = np.ldexp(mantissa, 53).astype(np.int64)
    shift = np.where(digits > 0, exponent - exponent[digits > 0].min(), 0)
    whole: Whole = digits.astype(object) << shift.astype(object)
    return whole // math.gcd(*whole.tolist())


def _between(order: Ints, reached: Callable[[int], bool]) -> tuple[Flags, Flags]:
    """Which groups lie at their floor and which at their cap, found between two sorted breakpoints.

    A group leaves its floor at one breakpoint and reaches its cap at another; in between the total is
    linear. Bisection over the sorted breakpoints costs O(k log k) and, unlike running sums of slopes, loses
    nothing when weights differ by many powers of ten.
    """
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    below, above = 0, len(order)  # the total at `below` is at most the rest; at `above` it is more
    while above - below > 1:
        middle = (below + above) // 2
        if reached(int(order[middle])):
            below = middle
        else:
            above = middle
    groups = len(order) // 2
    return place[:groups] > below, place[groups:] <= below
