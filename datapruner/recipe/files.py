"""The recipe's file is read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.files.checksums import check_file
from datapruner.files.paths import expanded, resolved
from datapruner.guards.bounded_yaml import load_yaml
from datapruner.recipe.formats import as_of_today
from datapruner.recipe.places import FILES, PATHS, absolute, is_path
from datapruner.recipe.recipe import Recipe, checked
from datapruner.recipe.targets import each_source, named_targets
from datapruner.recipe.values import MASKS
from datapruner.text import safe_repr

MOST_ROWS = 20_000_000


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; its relative paths count from its own folder.

    A path starts with ``.``, ``/`` or ``~``, is a pattern, ends like a data file, or is the bare name of something
    beside the recipe; anything else is a model or a hub dataset. A recipe without a scorer is the default one, which is
    written out; see :mod:`datapruner.recipe.auto`.

    Raises
    ------
    DataPrunerError
        The file is missing, is not YAML, or holds something a recipe does not know.
    """
    path = expanded(path)
    check_file(path)
    given = load_yaml(path, "the recipe")
    if not isinstance(given, dict):
        raise DataPrunerError(f"the recipe {path} must hold names and values")
    given = as_of_today(given, path.read_text(encoding="utf-8"))
    folder = str(resolved(path.parent))
    for name in PATHS:
        value = named_targets(given.get(name)) if name == "target" else given.get(name)
        if value is not None:
            given[name] = each_source(value, partial(_from, name=name, folder=folder))
    try:
        for name in MASKS:
            if isinstance(given.get(name), dict):
                given[name] = _rows(given[name], name)
        return checked({str(key): value for key, value in given.items()}, "{}").in_full
    except DataPrunerError as error:
        raise DataPrunerError(f"the recipe {path}: {error}") from error


def _from(value: str, *, name: str, folder: str) -> str:
    """Read what a field names as seen from the recipe's folder."""
    return absolute(value, folder) if name in FILES or is_path(value, folder, bare_only=True) else value


def _rows(given: dict[Any, Any], name: str) -> list[int]:
    """Read row numbers written as ``rows: 0-99,105``."""
    out: list[int] = []
    try:
        if set(given) != {"rows"}:
            raise ValueError
        for part in str(given["rows"]).split(","):
            first, dash, last = part.partition("-")
            found = range(int(first), int(last if dash else first) + 1)
            if len(out) + len(found) > MOST_ROWS:
                raise DataPrunerError(
                    f"{name}: more than {MOST_ROWS:,} rows are named one by one; put them into a boolean column"
                )
            out += found
    except (ValueError, OverflowError):
        raise DataPrunerError(
            f"{name}: row numbers are a list, or ranges such as `rows: 0-99,105`, not {safe_repr(given)}"
        ) from None
    return out
