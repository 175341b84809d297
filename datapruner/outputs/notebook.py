"""What a notebook shows of results: small tables, of escaped text alone, without scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.selection.explanation import Explanation, Summary
    from datapruner.selection.result import Scores
    from datapruner.selection.view import SelectionView

FIRST_ROWS = 5
MOST_GROUPS = 10
EXCERPT = 110
"""Characters of a turn."""
_CELL = "padding:2px 10px 2px 0;vertical-align:top;"
_BARE = "border-collapse:collapse;margin:4px 0 10px 0;"


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
    parts = [_title(head), _causes(held), _groups(held)]
    if shown:
        more = held.kept - len(shown)
        caption = "the first kept rows" if more else "the kept rows"
        parts.append(_table([["row", name, "asked", "answered"], *shown], caption=caption, right=2))
    return _block(parts)


def scores_html(scores: Scores) -> str:
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
    return _block([_title(head), _causes(held), _table(spread, caption="scores", left=2)])


def summary_html(held: Summary) -> str:
    """Show counts by cause and by group."""
    return _block([_causes(held), _groups(held)])


def explanation_html(held: Explanation) -> str:
    """Show what is known of a row."""
    return _block([_table([[name, value] for name, value in held.told().items()], head=False, left=2)])


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


def _causes(held: Summary) -> str:
    counts = [
        [f"{count:,}", f"{100 * count / max(held.rows, 1):.1f} %", words]
        for words, count in held.words().items()
    ]
    return _table(counts, head=False, right=2)


def _groups(held: Summary) -> str:
    if not held.groups:
        return ""
    groups = list(held.groups.items())
    unit = groups[0][1][2]
    shown = [
        [safe_text(name, 60), f"{kept:,}", f"{whole:,}", f"{100 * kept / max(whole, 1):.1f} %"]
        for name, (kept, whole, _) in groups[:MOST_GROUPS]
    ]
    if len(groups) > MOST_GROUPS:
        shown.append([f"and {len(groups) - MOST_GROUPS:,} more", "", "", ""])
    return _table([["group", "kept", f"of {unit}", ""], *shown], caption="by group", left=1)


def _table(
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    head: bool = True,
    left: int | None = None,
    right: int | None = None,
) -> str:
    """Write a table; the first ``right`` columns hold numbers, or all after the first ``left``."""

    def cells(row: Sequence[str], tag: str) -> str:
        out = []
        for place, cell in enumerate(row):
            number = place < right if right is not None else place >= (left or 0)
            align = "right" if number else "left"
            out.append(f'<{tag} style="{_CELL}text-align:{align}">{escape(safe_text(cell))}</{tag}>')
        return f"<tr>{''.join(out)}</tr>"

    top = (
        f'<caption style="text-align:left;caption-side:top;opacity:.7">{escape(caption)}</caption>'
        if caption
        else ""
    )
    body = "".join(cells(row, "th" if head and not place else "td") for place, row in enumerate(rows))
    return f'<table style="{_BARE}">{top}<tbody>{body}</tbody></table>'


def _title(text: str) -> str:
    return f'<div style="font-weight:600">{escape(safe_text(text))}</div>'


def _block(parts: Iterable[str]) -> str:
    return f'<div class="datapruner">{"".join(parts)}</div>'
