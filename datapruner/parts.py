"""Parts by name, of every kind: built-in ones by their files, a plug-in's by its entry points.

A built-in part is the file ``<package>/<name>.py`` with the one class whose ``name`` is the file's; nothing else is
edited to add one. A plug-in's is an entry point of the kind's group. Files that begin with ``_``, and ``base``, hold
what parts share.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.parameters import build
from datapruner.text import did_you_mean, safe_repr, safe_text


@dataclass(frozen=True)
class Kind:
    """A kind of part.

    Attributes
    ----------
    noun : str
        What one is called in a sentence.
    package : str
        Where the built-in ones lie, a file each.
    group : str
        The entry points' group of plug-ins.
    """

    noun: str
    package: str
    group: str


SCORERS = Kind("scorer", "datapruner.scorers", "datapruner.scorers")
SELECTORS = Kind("selector", "datapruner.selection.selectors", "datapruner.selectors")
MEASUREMENTS = Kind("measurement", "datapruner.signals.measurements", "datapruner.measurements")
CLEANING = Kind("cleaning step", "datapruner.cleaning.steps", "datapruner.cleaning")
ENGINES = Kind("engine", "datapruner.engines", "datapruner.engines")
KINDS = {
    "scorers": SCORERS,
    "selectors": SELECTORS,
    "measurements": MEASUREMENTS,
    "cleaning": CLEANING,
    "engines": ENGINES,
}
"""By the word that users write."""


@cache
def built_in(kind: Kind) -> tuple[str, ...]:
    """Give the names of a kind's built-in parts, sorted; nothing of them is imported, and the folder is read once."""
    try:
        spec = importlib.util.find_spec(kind.package)
    except ModuleNotFoundError:
        return ()
    if spec is None or spec.submodule_search_locations is None:
        return ()
    return tuple(
        sorted(
            module.name
            for module in pkgutil.iter_modules(list(spec.submodule_search_locations))
            if not module.ispkg and not module.name.startswith("_") and module.name != "base"
        )
    )


def available(kind: Kind) -> dict[str, str]:
    """Give name -> where it is defined, sorted by name; a built-in part wins over a plug-in's of its name."""
    found = {point.name: point.value for point in reversed(_plugged(kind))}
    return dict(sorted((found | {name: f"{kind.package}.{name}" for name in built_in(kind)}).items()))


def find(kind: Kind, name: str) -> Any:
    """Import a part: its class, or the one object where a kind has objects.

    Raises
    ------
    DataPrunerError
        There is no part of that name, two plug-ins bring it, or it cannot be imported.
    """
    if name in built_in(kind):
        return _of_file(f"{kind.package}.{name}", name)
    points = {point.value: point for point in _plugged(kind) if point.name == name}
    if not points:
        names = list(available(kind))
        raise DataPrunerError(
            f"there is no {kind.noun} '{safe_text(name, 60)}'.{did_you_mean(name, names)} Available: "
            f"{', '.join(safe_text(one, 60) for one in names) or 'none'}"
        )
    if len(points) > 1:
        raise DataPrunerError(
            f"two plug-ins bring a {kind.noun} '{safe_text(name, 60)}': {safe_text(', '.join(points), 200)}; "
            "uninstall one of them"
        )
    ((where, point),) = points.items()
    try:
        part = point.load()
    except Exception as error:  # whatever a plug-in's file does when it is read
        raise DataPrunerError(
            f"the {kind.noun} '{safe_text(name, 60)}' cannot be imported from {safe_text(where, 200)}: "
            f"{safe_text(str(error) or type(error).__name__, 300)}"
        ) from error
    if (own := getattr(part, "name", None)) != name:
        raise DataPrunerError(
            f"the {kind.noun} '{safe_text(name, 60)}' of {safe_text(where, 200)} has the name {safe_repr(own)}; name "
            "and entry point must be the same"
        )
    return part


def find_class(kind: Kind, name: str, base: type[Any]) -> Any:
    """Import a part that must be a class of its kind.

    Parameters
    ----------
    kind : Kind
    name : str
    base : type
        What it derives from.

    Raises
    ------
    DataPrunerError
        See :func:`find`; or it is another thing.
    """
    part = find(kind, name)
    if not isinstance(part, type) or not issubclass(part, base):
        raise DataPrunerError(
            f"the {kind.noun} '{safe_text(name, 60)}' of {available(kind)[name]} does not derive from "
            f"{base.__module__}.{base.__qualname__}"
        )
    return part


def make(kind: Kind, base: type[Any], given: Any, parameters: Mapping[str, Any] | None = None) -> Any:
    """Build a part from its name and parameters; an object is passed through.

    Parameters
    ----------
    kind : Kind
    base : type
        What parts of the kind derive from.
    given : str or object
    parameters : mapping, optional

    Raises
    ------
    DataPrunerError
        Unknown name, unknown parameter or a value of the wrong type.
    """
    if isinstance(given, base):
        return given
    if not isinstance(given, str):
        called = f"; write {given.__name__}()" if isinstance(given, type) else ""
        raise DataPrunerError(
            f"a {kind.noun} is a name or a {base.__name__} object, not {safe_repr(given)}{called}"
        )
    return build(find_class(kind, given, base), given, parameters or {})


def is_named(kind: Kind, part: Any) -> bool:
    """Whether a recipe can build an object again by its name."""
    try:
        return find(kind, part.name) is type(part)
    except DataPrunerError:
        return False


def by_class(kind: Kind, name: str) -> Any | None:
    """Give the built-in part whose class has a name, None where there is none: ``KCenter`` is in ``k_center.py``."""
    folded = name.lower()
    for file in built_in(kind):
        if file.replace("_", "") in (folded, folded.removesuffix(kind.noun.split()[-1])):
            part = find(kind, file)
            return part if getattr(part, "__name__", None) == name else None
    return None


def class_names(kind: Kind) -> list[str]:
    """Give the names of all built-in parts' classes; imports them."""
    return sorted(find(kind, name).__name__ for name in built_in(kind))


def _plugged(kind: Kind) -> list[EntryPoint]:
    return list(entry_points(group=kind.group))


def _of_file(module: str, name: str) -> Any:
    """Give the part of a file: the class that the file defines by that name, or the object."""
    held = vars(importlib.import_module(module))
    classes = [
        one
        for one in held.values()
        if isinstance(one, type) and one.__module__ == module and vars(one).get("name") == name
    ]
    found = classes or [
        one for one in held.values() if not isinstance(one, type) and getattr(one, "name", None) == name
    ]
    if len(found) != 1:
        raise DataPrunerError(f"{module} must define one part with the name '{name}', and has {len(found)}")
    return found[0]
