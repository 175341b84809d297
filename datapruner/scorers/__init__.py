"""Scorers by name: one a file here, and any plug-in's under the entry point ``datapruner.scorers``.

``from datapruner.scorers import KCenter`` works for every built-in one: the class is looked up in the file of its
name. A type checker that should know it takes it from there, ``from datapruner.scorers.k_center import KCenter``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datapruner import parts

if TYPE_CHECKING:
    from datapruner.ranking import Ranking
    from datapruner.scorers.base import Scorer

__all__ = ["Ranking", "Scorer", "available_scorers", "make_scorer", "scorer_class"]


def available_scorers() -> dict[str, str]:
    """Name -> where it is defined; built-in names win over a plug-in's."""
    return parts.available(parts.SCORERS)


def scorer_class(name: str) -> type[Scorer]:
    """Import a scorer's class.

    Raises
    ------
    DataPrunerError
        There is no scorer of that name, or its plug-in cannot be imported.
    """
    from datapruner.scorers.base import Scorer as Base

    found: type[Scorer] = parts.find_class(parts.SCORERS, name, Base)
    return found


def make_scorer(scorer: str | Scorer, parameters: Mapping[str, Any] | None = None) -> Scorer:
    """Build a scorer from its name and parameters; an object is passed through.

    Raises
    ------
    DataPrunerError
        Unknown name, unknown parameter or a value of the wrong type.
    """
    from datapruner.scorers.base import Scorer as Base

    made: Scorer = parts.make(parts.SCORERS, Base, scorer, parameters)
    return made


def __getattr__(name: str) -> Any:
    if name in ("Ranking", "Scorer"):  # later than the names above, since they load numpy
        from datapruner.scorers import base

        return getattr(base, name)
    if (found := parts.by_class(parts.SCORERS, name)) is not None:
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *parts.class_names(parts.SCORERS)})
