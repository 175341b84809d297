"""Selectors by name: one a file here, and any plug-in's under the entry point ``datapruner.selectors``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from datapruner import parts
from datapruner.selection.selector import Choice as Choice
from datapruner.selection.selector import Selector as Selector
from datapruner.selection.selector import best_first as best_first
from datapruner.selection.selector import fill as fill
from datapruner.selection.selector import take as take


def available_selectors() -> dict[str, str]:
    """Name -> where it is defined; built-in names win over a plug-in's."""
    return parts.available(parts.SELECTORS)


def selector_class(name: str) -> type[Selector]:
    """Import a selector's class.

    Raises
    ------
    DataPrunerError
        There is no selector of that name, or its plug-in cannot be imported.
    """
    found: type[Selector] = parts.find_class(parts.SELECTORS, name, Selector)
    return found


def make_selector(selector: str | Selector, parameters: Mapping[str, Any] | None = None) -> Selector:
    """Build a selector from its name and parameters; an object is passed through.

    Raises
    ------
    DataPrunerError
        Unknown name, unknown parameter or a value of the wrong type.
    """
    made: Selector = parts.make(parts.SELECTORS, Selector, selector, parameters)
    return made


def __getattr__(name: str) -> Any:
    if name == "SELECTORS":
        warnings.warn(
            f"{__name__}.SELECTORS goes with the next release; ask available_selectors() and selector_class(name)",
            DeprecationWarning,
            stacklevel=2,
        )
        return {one: selector_class(one) for one in available_selectors()}
    if (found := parts.by_class(parts.SELECTORS, name)) is not None:
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *parts.class_names(parts.SELECTORS)})
