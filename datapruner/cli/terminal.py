"""Whether what is printed is looked at: colours and tables on a terminal, plain text for everything else."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

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
