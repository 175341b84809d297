"""The recipe: what decides a run, its file, and what it can hold.

Lazy, so that the command line reads :mod:`datapruner.recipe.options` without what checks a recipe.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datapruner.recipe.files import MOST_ROWS, load_recipe
    from datapruner.recipe.places import FILES, PATHS
    from datapruner.recipe.recipe import Recipe, make_recipe
    from datapruner.recipe.values import LONG, MASKS, Method, method_of, plain

_WHERE = {
    "FILES": "places",
    "LONG": "values",
    "MASKS": "values",
    "MOST_ROWS": "files",
    "PATHS": "places",
    "Method": "values",
    "Recipe": "recipe",
    "load_recipe": "files",
    "make_recipe": "recipe",
    "method_of": "values",
    "plain": "values",
}

__all__ = [
    "FILES",
    "LONG",
    "MASKS",
    "MOST_ROWS",
    "PATHS",
    "Method",
    "Recipe",
    "load_recipe",
    "make_recipe",
    "method_of",
    "plain",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
