"""Names that stand elsewhere now: what imports them from their old place goes on, and is told the new one."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved(old: str, new: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module that is no longer where its names stand.

    Parameters
    ----------
    old : str
        The module, by its ``__name__``.
    new : mapping
        Name -> the module where it stands now.
    """

    def look_up(name: str) -> Any:
        if name not in new:
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        warnings.warn(
            f"{old}.{name} has moved to {new[name]}.{name}; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(new[name]), name)

    return look_up
