"""Modules that stand elsewhere now: what imports a name from its old place goes on, and is told the new one."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {
    "datapruner.apart": ("datapruner.guards.apart",),
    "datapruner.bounded": ("datapruner.guards.bounded",),
    "datapruner.bounded_yaml": ("datapruner.guards.bounded_yaml",),
    "datapruner.cache": ("datapruner.files.cache",),
    "datapruner.checksums": ("datapruner.files.checksums",),
    "datapruner.limits": ("datapruner.guards.limits",),
    "datapruner.notes": ("datapruner.files.notes",),
    "datapruner.paths": ("datapruner.files.paths",),
    "datapruner.patterns": ("datapruner.files.patterns",),
    "datapruner.temporary": ("datapruner.files.temporary",),
    "datapruner.comparison.plots": ("datapruner.comparison.pictures",),
    "datapruner.explaining": ("datapruner.cli.explaining",),
    "datapruner.names": ("datapruner.verbs", "datapruner.instead"),
    "datapruner.options": ("datapruner.option_types",),
    "datapruner.outputs.reading": ("datapruner.saved", "datapruner.verbs"),
    "datapruner.outputs.report.facets": ("datapruner.outputs.facets",),
    "datapruner.outputs.report.words": (
        "datapruner.outputs.wording",
        "datapruner.outputs.warnings",
        "datapruner.outputs.report.summary",
        "datapruner.outputs.report.contrasts",
    ),
    "datapruner.outputs.scores": ("datapruner.scores", "datapruner.outputs.score_files"),
    "datapruner.scorers.baselines": (
        "datapruner.scorers.length",
        "datapruner.scorers.random",
        "datapruner.scorers.stratified",
        "datapruner.scorers.unranked",
        "datapruner.scorers._baselines",
    ),
    "datapruner.scorers.grouping": ("datapruner.scorers._grouping",),
    "datapruner.scorers.losses": (
        "datapruner.scorers.perplexity",
        "datapruner.scorers.mid_perplexity",
        "datapruner.scorers.el2n",
        "datapruner.scorers.grad_norm",
    ),
    "datapruner.scorers.target": (
        "datapruner.scorers.feature_mapping",
        "datapruner.scorers.label_mapping",
        "datapruner.scorers._target",
    ),
    "datapruner.recipe_formats": ("datapruner.recipe.formats",),
    "datapruner.selection.cleaning": ("datapruner.cleaning.steps.no_answer",),
    "datapruner.selection.coverage": ("datapruner.selection.selectors.coverage",),
    "datapruner.selection.decontamination": ("datapruner.cleaning.steps.contaminated",),
    "datapruner.selection.deduplication": (
        "datapruner.cleaning.steps.exact",
        "datapruner.cleaning.steps.near",
        "datapruner.cleaning.steps.semantic",
        "datapruner.cleaning.rows",
    ),
    "datapruner.selection.eu_plane": ("datapruner.selection.selectors.eu_plane",),
    "datapruner.selection.budget": (
        "datapruner.budget",
        "datapruner.selection.budget_rows",
        "datapruner.samples.labels",
    ),
    "datapruner.selection.explanation": ("datapruner.results.explanation", "datapruner.results.summary"),
    "datapruner.selection.grams": ("datapruner.cleaning.grams",),
    "datapruner.selection.message_passing": ("datapruner.selection.selectors.message_passing",),
    "datapruner.selection.own_text": ("datapruner.cleaning.own_text",),
    "datapruner.selection.pairs": ("datapruner.cleaning.pairs",),
    "datapruner.selection.paser": ("datapruner.selection.selectors.paser",),
    "datapruner.selection.result": ("datapruner.scores",),
    "datapruner.selection.standing": ("datapruner.results.standing",),
    "datapruner.selection.telling": ("datapruner.cleaning.telling",),
    "datapruner.selection.vetoes": ("datapruner.cleaning.vetoes",),
    "datapruner.signals.attention": ("datapruner.signals.language_model.attention",),
    "datapruner.signals.concepts": ("datapruner.signals.texts.concepts",),
    "datapruner.signals.divergence": ("datapruner.signals.language_model.divergence",),
    "datapruner.signals.keywords": ("datapruner.signals.texts.keywords",),
    "datapruner.signals.output_layer": (
        "datapruner.signals.language_model.output_layer",
        "datapruner.signals.language_model.find_output_layer",
        "datapruner.signals.language_model.token_statistics",
    ),
    "datapruner.signals.ragged": ("datapruner.ragged",),
    "datapruner.signals.readers": ("datapruner.signals.language_model.reader",),
    "datapruner.signals.records": ("datapruner.signals.language_model.records",),
    "datapruner.signals.stop_words": ("datapruner.signals.texts.stop_words",),
    "datapruner.signals.twins": ("datapruner.signals.language_model.twins",),
}
"""A module that is gone -> those that its names stand in now. No file is left behind for it: a line here is enough."""


def moved(old: str, new: Iterable[str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module that is no longer where its names stand.

    Parameters
    ----------
    old : str
        The module, by its ``__name__``.
    new : iterable of str
        The modules where its names stand now, of which the one that defines it gives it.
    """
    places = tuple(new)

    def look_up(name: str) -> Any:
        holders = {} if name.startswith("__") else {place: importlib.import_module(place) for place in places}
        found = {place: getattr(holder, name) for place, holder in holders.items() if name in vars(holder)}
        if not found:
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        # Rather where it is defined than where it is only imported.
        own = (place for place, value in found.items() if getattr(value, "__module__", None) == place)
        place = next(own, next(iter(found)))
        warnings.warn(
            f"{old}.{name} has moved to {place}.{name}; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return found[place]

    return look_up


class _OldPlaces:
    """Finds the modules of :data:`MOVED`, which have no file. Asked last, when nothing else finds a module."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give the specification of a module that is gone."""
        return ModuleSpec(name, self) if name in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave that to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with nothing but the way to its names."""
        module.__doc__ = f"Stands elsewhere now: {', '.join(MOVED[module.__name__])}."
        module.__dict__["__getattr__"] = moved(module.__name__, MOVED[module.__name__])


def find_moved() -> None:
    """Let Python find the modules of :data:`MOVED`."""
    if not any(isinstance(finder, _OldPlaces) for finder in sys.meta_path):
        sys.meta_path.append(_OldPlaces())
