"""Everything that a page's script needs, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags
from datapruner.outputs.facets import Facet
from datapruner.outputs.report.figure_data import digits, histogram, maps, plane
from datapruner.outputs.report.made import recipe_text
from datapruner.outputs.report.shown import Shown
from datapruner.outputs.wording import by_budget, counted_here
from datapruner.ranking import DRAW
from datapruner.results.scored import Scored
from datapruner.results.selected import Selected
from datapruner.text import safe_text

BARS = 40
"""Groups that are drawn one by one; the smaller ones are added up."""
SENTENCE = 400
"""Characters of a reason."""


def payload(shown: Shown) -> dict[str, Any]:
    """Give everything but the rows' texts."""
    rows, scores = shown.rows, shown.scores
    masks = [selection.kept for selection in shown.selections]
    columns = _columns(shown)
    budgets = {place: number for number, held in enumerate(by_budget(shown.selections)) for place in held}
    return {
        "total": len(scores),
        "rows": rows.tolist(),
        "copied": shown.copied.tolist() if (shown.copied >= 0).any() else [],
        "original_rows": shown.originals.tolist(),
        "selections": [
            _selection(shown, selection, shown.names[place], budgets[place])
            for place, selection in enumerate(shown.selections)
        ],
        "scorers": [
            {
                "name": name,
                "called": _called(scores, name),
                "scored": int(np.isfinite(ranking.values).sum()),
                "note": counted_here(~np.isfinite(ranking.values), scores, rows),
                "score": digits(ranking.values[rows], 6),
                "rank": [
                    None if np.isnan(place) else int(place) for place in shown.places[name][rows].tolist()
                ],
            }
            for name, ranking in scores.rankings.items()
        ],
        "facets": [_facet(shown, facet, masks) for facet in shown.facets],
        "lengths": None
        if shown.lengths is None
        else {"unit": shown.unit, "values": shown.lengths[rows].tolist()},
        "columns": {name: digits(held[rows], there=there[rows]) for name, (held, there) in columns.items()},
        "histograms": _histograms(shown, masks, columns),
        "plane": plane(shown.selections, rows),
        "maps": maps(shown.selections, rows),
        "disagreement": None if shown.disagreement is None else digits(shown.disagreement[rows], 3),
    }


def _selection(shown: Shown, selection: Selected, name: str, budget: int) -> dict[str, Any]:
    rows = shown.rows
    used, places = np.unique(selection.codes[rows], return_inverse=True)
    causes, fates = selection.fates()
    return {
        "name": name,
        "scorer": list(shown.scores.rankings).index(selection.scorer),
        "budget": budget,
        "kept": "".join("1" if kept else "0" for kept in selection.kept[rows].tolist()),
        "count": len(selection),
        "cause": fates[rows].tolist(),
        "causes": [safe_text(selection.reasons_by_code[name].label, 60) for name in causes],
        "recipe": recipe_text(selection).splitlines(),
        "reason": places.tolist(),
        "reasons": [safe_text(selection.texts[code], SENTENCE) for code in used.tolist()],
    }


def _facet(shown: Shown, facet: Facet, masks: Sequence[Flags]) -> dict[str, Any]:
    """Give the largest groups one by one, the others together, and the names of those that are shown."""
    sizes, codes = facet.sizes, facet.codes[shown.rows]
    order = [j for j in np.argsort(-sizes, kind="stable").tolist() if sizes[j]]
    head, rest = np.array(order[:BARS], dtype=np.int64), order[BARS:]
    named = np.unique(np.concatenate([codes[codes >= 0], head]))
    kept = [facet.counts(mask) for mask in masks]
    return {
        "name": facet.name,
        "scorer": facet.scorer,
        "names": [facet.names[j] for j in named.tolist()],
        "notes": [facet.notes[j] for j in named.tolist()] if facet.notes else [],
        "codes": np.where(codes < 0, -1, np.searchsorted(named, codes)).tolist(),
        "note": counted_here(facet.codes < 0, shown.scores),
        "bars": [
            {"group": place, "size": int(sizes[j]), "kept": [int(k[j]) for k in kept]}
            for j, place in zip(head.tolist(), np.searchsorted(named, head).tolist(), strict=True)
        ],
        "rest": {
            "groups": len(rest),
            "size": int(sizes[rest].sum()),
            "kept": [int(k[rest].sum()) for k in kept],
        },
    }


def _columns(shown: Shown) -> dict[str, tuple[NDArray[Any], Flags]]:
    """Give the columns that explain scores, and of which rows they tell.

    Groups are apart, and a column has a name of its own where two scorers differ. Of rows that were dropped
    before scoring a scorer's column holds what fills a place, no value.
    """
    every = np.ones(len(shown.scores), dtype=np.bool_)
    found: dict[str, tuple[NDArray[Any], Flags]] = {
        name: (held, every) for name, held in shown.scores.tokens.items()
    }
    for scorer, ranking in shown.scores.rankings.items():
        scored = np.isfinite(ranking.values)
        for name, held in ranking.columns.items():
            if name in shown.scores.tokens or (
                ranking.groups is not None and np.array_equal(held, ranking.groups)
            ):
                continue
            if name in found and not np.array_equal(found[name][0], held, equal_nan=held.dtype.kind == "f"):
                name = f"{name} ({scorer})"  # noqa: PLW2901
            found[name] = held, scored
    return found


def _called(scores: Scored, name: str) -> str:
    """Say what a scorer's values are."""
    return f"{DRAW if scores.scorers[name].drawn else 'score'} of {name}"


def _histograms(
    shown: Shown, masks: Sequence[Flags], columns: Mapping[str, tuple[NDArray[Any], Flags]]
) -> list[dict[str, Any]]:
    """Count all rows by score, by length, and by every measured column."""
    used = {selection.scorer for selection in shown.selections}
    held: list[tuple[str | None, str, NDArray[Any]]] = [
        (name, _called(shown.scores, name), ranking.values)
        for name, ranking in shown.scores.rankings.items()
        if name in used
    ]
    length = f"length in {shown.unit}"
    if shown.lengths is not None:
        held.append((None, length, shown.lengths))
    held += [
        (None, name, np.where(there, values, np.nan))
        for name, (values, there) in columns.items()
        if values.dtype.kind == "f"  # whole numbers are orders and names of groups
    ]
    return [
        {
            "scorer": scorer,
            "note": counted_here(~np.isfinite(values), shown.scores),
            **histogram(name, values, masks, length=name == length),
        }
        for scorer, name, values in held
    ]
