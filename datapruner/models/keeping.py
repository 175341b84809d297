"""Models that stay open from one call to the next: in a worker, which measures one block of rows after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

Load = TypeVar("Load", bound=Callable[..., Any])

_open: dict[Any, Any] | None = None


def keep_open() -> None:
    """From here on hold what is loaded, and forget what was held before: it is another measurement's."""
    global _open  # noqa: PLW0603 - a process is a worker, or is none
    _open = {}


def kept(load: Load) -> Load:
    """Let a function that loads a model give the one that it has loaded, where models stay open."""

    @wraps(load)
    def once(*names: Any, **options: Any) -> Any:
        if _open is None:
            return load(*names, **options)
        key = (load.__qualname__, repr(names), repr(sorted(options.items())))
        if key not in _open:
            _open[key] = load(*names, **options)
        return _open[key]

    return cast(Load, once)
