"""Small tables of escaped text alone, without scripts: what a notebook shows of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from datapruner.text import safe_text

_CELL = "padding:2px 10px 2px 0;vertical-align:top;"
_BARE = "border-collapse:collapse;margin:4px 0 10px 0;"


def table(
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


def title(text: str) -> str:
    """Write a line above tables."""
    return f'<div style="font-weight:600">{escape(safe_text(text))}</div>'


def block(parts: Iterable[str]) -> str:
    """Put tables together."""
    return f'<div class="datapruner">{"".join(parts)}</div>'
