"""What the plots of a page hold: histograms of all rows, and points of those that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.outputs.wording import counted_here
from datapruner.selection.quadrants import find_quadrants, quadrants_at
from datapruner.selection.selectors.eu_plane import NAMES, EUPlaneSelector

if TYPE_CHECKING:
    from datapruner.results.selected import Selected


BINS = 40
TAIL = 20.0
"""Interquartile ranges beyond the quartiles at which the outermost bar takes all the rest."""
SPREAD = 10.0
"""Ratio of the largest length to the median from which lengths are drawn on a logarithmic axis."""
AXES = {
    "log_ppl": "log perplexity, nats a token",
    "entropy": "entropy of the predictions, nats a token",
}


def digits(values: NDArray[Any], count: int = 5, there: Flags | None = None) -> list[Any]:
    """Give numbers for JSON: so many significant digits, None where there is none."""
    held: list[Any] = values.tolist()
    if values.dtype.kind == "f":
        held = [float(f"{value:.{count}g}") if np.isfinite(value) else None for value in held]
    elif values.dtype.kind not in "iu":
        held = [str(value) for value in held]
    if there is None:
        return held
    return [value if told else None for value, told in zip(held, there.tolist(), strict=True)]


def histogram(
    name: str, values: NDArray[Any], kept: Sequence[Flags], *, length: bool = False
) -> dict[str, Any]:
    """Count all rows, and the kept ones of every selection, in the same bins.

    Parameters
    ----------
    name : str
    values : ndarray, shape (n,)
        Rows whose value is not finite are left out.
    kept : sequence of ndarray, bool, shape (n,)
    length : bool
        Not negative; bins grow geometrically where it spreads over magnitudes.

    Returns
    -------
    dict
        ``edges`` (b + 1), ``all`` (b), ``kept`` (b for every selection), ``log``, and whether the first and the last
        bin hold everything beyond (``open``).
    """
    finite = np.isfinite(values)
    found = np.asarray(values[finite], dtype=np.float64)
    log = bool(length and len(found) and found.max() > SPREAD * max(float(np.median(found)), 1.0))
    edges = _edges(found, log=log)
    places = np.clip(np.searchsorted(edges, found, side="right") - 1, 0, len(edges) - 2)
    bins = len(edges) - 1
    return {
        "name": name,
        "edges": digits(edges, 6),
        "log": log,
        "open": [bool((found < edges[0]).any()), bool((found > edges[-1]).any())],
        "all": np.bincount(places, minlength=bins).tolist(),
        "kept": [np.bincount(places[mask[finite]], minlength=bins).tolist() for mask in kept],
    }


def _edges(found: Floats, *, log: bool) -> Floats:
    if not len(found):
        return np.array([0.0, 1.0])
    low, high = float(found.min()), float(found.max())
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    if log:
        low = max(low, 1.0)
        return np.unique(np.round(np.geomspace(low, high + 1, BINS + 1)))
    if high - low < BINS and (found == np.round(found)).all():
        return np.arange(low - 0.5, high + 1)
    q1, q3 = (float(q) for q in np.quantile(found, [0.25, 0.75]))
    if q3 > q1:
        low, high = max(low, q1 - TAIL * (q3 - q1)), min(high, q3 + TAIL * (q3 - q1))
    edges = np.linspace(low, high, BINS + 1)
    return edges if (np.diff(edges) > 0).all() else np.array([low, high])


def plane(selections: Sequence[Selected], rows: Ints) -> dict[str, Any] | None:
    """Give the error-uncertainty plane where entropy and log perplexity were measured.

    The lines are those of the selector where it cuts the plane for one budget over all rows, else the medians. Rows
    of a quadrant are counted over the whole set.
    """
    scores = selections[0].scores
    columns: dict[str, NDArray[Any]] = {}
    for ranking in scores.rankings.values():
        columns |= {
            name: held for name, held in ranking.columns.items() if name in AXES and name not in columns
        }
    if set(columns) != set(AXES):
        return None
    error, uncertainty = (columns[name].astype(np.float64) for name in ("log_ppl", "entropy"))
    there = np.isfinite(error) & np.isfinite(uncertainty)
    if not there.any():
        return None
    cuts = []
    for selection in selections:
        at = np.flatnonzero(there)
        found = quadrants_at(error[at], uncertainty[at], 0.5)
        cut = isinstance(selection.selector, EUPlaneSelector) and selection.budget.per_group is None
        if cut:
            at, budget, costs = _competing(selection)
            cut = budget > 0 and bool(there[at].all()) and len(at) > 0
        if cut:
            found = find_quadrants(error[at], uncertainty[at], budget, costs)
        cuts.append(
            {
                "x": digits(np.array(found.entropy), 6),
                "y": digits(np.array(found.log_ppl), 6),
                "medians": not cut,
                "quadrants": [
                    {
                        "name": NAMES[number].partition(" (")[0],
                        "rows": int((found.numbers == number).sum()),
                        "kept": int(selection.kept[at[found.numbers == number]].sum()),
                    }
                    for number in range(1, 5)
                ],
            }
        )
    return {
        "x": digits(uncertainty[rows]),
        "y": digits(error[rows]),
        "labels": [AXES["entropy"], AXES["log_ppl"]],
        "note": counted_here(~there, scores, rows),
        "cuts": cuts,
    }


def _competing(selection: Selected) -> tuple[Ints, int, Ints]:
    """Give the rows among which a selector chose, what it could spend, and what each costs."""
    scores = selection.scores
    eligible = np.isfinite(selection.values)
    costs = np.ones(len(eligible), dtype=np.int64)
    if selection.budget.keep_tokens is not None:
        costs = scores.tokens["num_supervised_tokens"]
        eligible &= (costs > 0) | scores.forced
    at = np.flatnonzero(eligible & ~scores.forced)
    forced = int(costs[eligible & scores.forced].sum())
    spent = int(selection.kept[at].sum())
    if selection.budget.keep_tokens is not None:
        spent = min(selection.budget.keep_tokens, int(costs[eligible].sum())) - forced
    return at, spent, costs[at]


def maps(selections: Sequence[Selected], rows: Ints) -> list[dict[str, Any]]:
    """Give the manifold whose coordinates the first scorer that has some left in its columns."""
    scores = selections[0].scores
    for selection in selections:
        columns = scores.rankings[selection.scorer].columns
        if "manifold_1" in columns and "manifold_2" in columns:
            method = scores.recipe.manifold.upper()
            x, y = columns["manifold_1"], columns["manifold_2"]
            return [
                {
                    "x": digits(x[rows]),
                    "y": digits(y[rows]),
                    "note": counted_here(~(np.isfinite(x) & np.isfinite(y)), scores, rows),
                    "labels": [
                        f"manifold 1 ({method}, standard deviations)",
                        "manifold 2 (standard deviations)",
                    ],
                }
            ]
    return []
