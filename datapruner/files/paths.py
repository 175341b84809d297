"""Questions about paths that never fail: a name too long for the file system is a file that is not there."""

from __future__ import annotations

from pathlib import Path


def exists(path: Path) -> bool:
    """Whether anything lies there that can be reached."""
    try:
        return path.exists()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether a file lies there that can be reached."""
    try:
        return path.is_file()
    except OSError:
        return False


def resolved(path: Path) -> Path:
    """Follow links; what goes round in a circle stays as it is."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()


def expanded(path: Path) -> Path:
    """Put the home folder in for ``~``; a name such as ``~nobody`` that stands for none stays as it is."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path
