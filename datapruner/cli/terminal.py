"""Whether what is printed is looked at: colours and tables on a terminal, plain text for everything else."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Line = list[tuple[str, str]]
"""Parts of a line and their styles, as rich calls them."""

WIDEST = 120
"""Columns beyond which a line is hard to read."""


def is_styled(stream: Any = None) -> bool:
    """Whether a stream, standard output by default, shows colours: a terminal, and nobody asked for none."""
    stream = sys.stdout if stream is None else stream
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(stream.isatty())


def width() -> int:
    """Give the terminal's columns, or 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def console() -> Console:
    """Give what draws on a terminal; it reads no markup, and what it draws is a text."""
    from rich.console import Console

    return Console(
        force_terminal=True,
        color_system="standard",
        width=min(width(), WIDEST),
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def drawn(lines: Sequence[Line]) -> str:
    """Write lines: in their styles on a terminal, else as they are."""
    if not is_styled():
        return "\n".join("".join(part for part, _ in line) for line in lines)
    from rich.text import Text

    return rendered(*(Text.assemble(*line) for line in lines), wrapped=False)


def headed(text: str) -> str:
    """Write tables as text, each below a line that is not indented, which stands out on a terminal."""
    return drawn([[(line, "" if line.startswith(" ") else "bold")] for line in text.split("\n")])


def rendered(*shown: RenderableType, wrapped: bool = True) -> str:
    """Write what rich draws, for a terminal."""
    screen = console()
    with screen.capture() as text:
        for one in shown:
            screen.print(one, soft_wrap=not wrapped)
    return text.get().rstrip("\n")
