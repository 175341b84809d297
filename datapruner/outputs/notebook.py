"""What a notebook shows of results: small tables, of escaped text alone, without scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.html_tables import block, table, title
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.results.scored import Scored
    from datapruner.results.view import SelectionView

FIRST_ROWS = 5
EXCERPT = 110
"""Characters of a turn."""


def selection_html(selection: SelectionView) -> str:
    """Show a selection: what was kept of all, rows by cause and by group, the first kept rows."""
    held = selection.summary
    head = (
        f"{held.kept:,} of {held.rows:,} rows kept by {selection.scorer}, selector {held.selector}, for a budget of "
        f"{held.budget}"
    )
    rows = selection.indices[:FIRST_ROWS]
    excerpts = _excerpts(selection, rows)
    shown = [
        [f"{row:,}", _score(selection, int(row)), prompt, answer]
        for row, (prompt, answer) in zip(rows.tolist(), excerpts, strict=True)
    ]
    name = selection.measure.name
    parts = [title(head), *held.html_tables()]
    if shown:
        more = held.kept - len(shown)
        caption = "the first kept rows" if more else "the kept rows"
        parts.append(table([["row", name, "asked", "answered"], *shown], caption=caption, right=2))
    return block(parts)


def scores_html(scores: Scored) -> str:
    """Show scores: rows by cause, and how each scorer's values spread."""
    held = scores.summary
    spread = [["scorer", "of", "lowest", "median", "highest", "kept"]]
    for name, ranking in scores.rankings.items():
        values = ranking.values[np.isfinite(ranking.values)]
        measure = ranking.measure
        if values.size:
            found = sorted(measure.shown(float(value)) for value in np.quantile(values, [0, 0.5, 1]))
            end = "high" if measure.high else "low"
            spread.append([name, measure.name, *(f"{value:.5g}" for value in found), f"{end} first"])
    names = "scorer" if len(scores.rankings) == 1 else "scorers"
    head = f"{held.rows:,} rows, {held.kept:,} of them ranked by {len(scores.rankings)} {names}; nothing is chosen yet"
    return block([title(head), *held.html_tables(), table(spread, caption="scores", left=2)])


def excerpt(text: str, limit: int = EXCERPT) -> str:
    """Cut a text, of which white space does not count, and make it harmless to print."""
    return safe_text(" ".join(text[: 4 * limit].split()), limit)


def _excerpts(selection: SelectionView, rows: np.ndarray) -> list[tuple[str, str]]:
    try:
        samples, places = selection._shown(rows)
        if not samples.layout.has_text:
            return [("", "")] * len(rows)
        return [
            (excerpt(asked), excerpt(answer))
            for asked, answer in (one.stands_for() for one in samples.iter_samples(places, identity=False))
        ]
    except DataPrunerError as error:
        # A notebook shows what there is: the counts are right although the rows cannot be read.
        return [("", excerpt(f"cannot be read: {error}"))] * len(rows)


def _score(selection: SelectionView, row: int) -> str:
    value = float(selection.values[row])
    return f"{selection.measure.shown(value):.5g}" if np.isfinite(value) else ""
