"""The lines of ``datapruner explain``: one row, or the rows that were looked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from datapruner.errors import DataPrunerError
from datapruner.outputs.notebook import excerpt
from datapruner.samples.inspection import render_sample
from datapruner.scores import Scores
from datapruner.text import safe_text
from datapruner.verbs import explain, load

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples
    from datapruner.saved import SavedSelection

MOST = 10
"""Rows that are listed."""


def explain_row(
    folder: Path, row: int, *, text: bool = False, scorer: str | None = None, width: int = 100
) -> list[str]:
    """Say everything that is known of a row, and with ``text`` what it says."""
    return _lines(load(folder), row, text, scorer, width)


def explain_rows(
    folder: Path,
    match: str | None,
    where: Mapping[str, str] | None,
    *,
    text: bool = False,
    scorer: str | None = None,
    width: int = 100,
) -> list[str]:
    """Find rows by a text or by columns' values: one is explained, several are listed.

    Raises
    ------
    DataPrunerError
        Nothing was asked for, or no row is like that.
    """
    if match is None and not where:
        raise DataPrunerError("say which row: --row=17, --match=TEXT or --where=COLUMN=VALUE")
    held = load(folder)
    found = held.find(match, where)
    if not found.size:
        sought = [] if match is None else [f"holds “{safe_text(match, 60)}”"]
        sought += [
            f"has “{safe_text(value, 40)}” as {safe_text(column, 40)}"
            for column, value in (where or {}).items()
        ]
        raise DataPrunerError(f"no row of {safe_text(_source(held).source, 200)} {' and '.join(sought)}")
    if len(found) == 1:
        return _lines(held, int(found[0]), text, scorer, width)
    lines = [f"{len(found):,} rows:"]
    for row in found[:MOST].tolist():
        told = explain(held, row, scorer)
        lines += ["", *_wrapped(f"row {row:,}  ", told.reason, width)]
        if _source(held).layout.has_text:
            for said in _source(held)[row].stands_for():
                if said.strip():
                    lines.append(f"  {excerpt(said, max(width, 40) - 2)}")
    if len(found) > MOST:
        lines += ["", f"and {len(found) - MOST:,} more"]
    return [*lines, "", f"  datapruner explain {safe_text(str(folder))} --row {found[0]}"]


def _lines(held: SavedSelection | Scores, row: int, text: bool, scorer: str | None, width: int) -> list[str]:
    told = explain(held, row, scorer)
    lines: list[str] = []
    for name, value in told.told().items():
        lines += _wrapped(f"{name:>22}  ", value, width)
    if text:
        lines += ["", *render_sample(_source(held)[row], width, lines=20)]
    return lines


def _source(held: SavedSelection | Scores) -> Samples:
    return held.samples if isinstance(held, Scores) else held.source


def _wrapped(head: str, text: str, width: int) -> list[str]:
    """Fold a text that stands beside a head; it is harmless already."""
    import textwrap

    room = max(width - len(head), 30)
    pieces = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
    return [f"{head if not place else ' ' * len(head)}{piece}" for place, piece in enumerate(pieces)]
