"""Scorers by name: the built-in ones and any plug-in's under the entry point ``datapruner.scorers``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.text import did_you_mean

if TYPE_CHECKING:
    from datapruner.scorers.base import Ranking, Scorer
    from datapruner.scorers.baselines import Length, Random, Stratified, Unranked
    from datapruner.scorers.combined import Combined
    from datapruner.scorers.concept_complexity import ConceptComplexity
    from datapruner.scorers.d2 import D2
    from datapruner.scorers.donod import Donod
    from datapruner.scorers.ifd import IFD
    from datapruner.scorers.k_center import KCenter
    from datapruner.scorers.losses import EL2N, GradNorm, MidPerplexity, Perplexity
    from datapruner.scorers.paser import Paser
    from datapruner.scorers.prototypes import Prototypes
    from datapruner.scorers.qtuning import QTuning
    from datapruner.scorers.response_noise import ResponseNoise
    from datapruner.scorers.target import FeatureMapping, LabelMapping
    from datapruner.scorers.topoprune import TopoPrune

BUILT_IN = {
    "combined": "datapruner.scorers.combined:Combined",
    "concept_complexity": "datapruner.scorers.concept_complexity:ConceptComplexity",
    "d2": "datapruner.scorers.d2:D2",
    "donod": "datapruner.scorers.donod:Donod",
    "el2n": "datapruner.scorers.losses:EL2N",
    "feature_mapping": "datapruner.scorers.target:FeatureMapping",
    "grad_norm": "datapruner.scorers.losses:GradNorm",
    "ifd": "datapruner.scorers.ifd:IFD",
    "k_center": "datapruner.scorers.k_center:KCenter",
    "label_mapping": "datapruner.scorers.target:LabelMapping",
    "length": "datapruner.scorers.baselines:Length",
    "mid_perplexity": "datapruner.scorers.losses:MidPerplexity",
    "paser": "datapruner.scorers.paser:Paser",
    "perplexity": "datapruner.scorers.losses:Perplexity",
    "prototypes": "datapruner.scorers.prototypes:Prototypes",
    "qtuning": "datapruner.scorers.qtuning:QTuning",
    "response_noise": "datapruner.scorers.response_noise:ResponseNoise",
    "random": "datapruner.scorers.baselines:Random",
    "stratified": "datapruner.scorers.baselines:Stratified",
    "topoprune": "datapruner.scorers.topoprune:TopoPrune",
    "unranked": "datapruner.scorers.baselines:Unranked",
}
_CLASSES = {path.partition(":")[2]: path for path in BUILT_IN.values()} | {
    "Ranking": "datapruner.scorers.base:Ranking",
    "Scorer": "datapruner.scorers.base:Scorer",
}

__all__ = [
    "D2",
    "EL2N",
    "IFD",
    "Combined",
    "ConceptComplexity",
    "Donod",
    "FeatureMapping",
    "GradNorm",
    "KCenter",
    "LabelMapping",
    "Length",
    "MidPerplexity",
    "Paser",
    "Perplexity",
    "Prototypes",
    "QTuning",
    "Random",
    "Ranking",
    "ResponseNoise",
    "Scorer",
    "Stratified",
    "TopoPrune",
    "Unranked",
    "available_scorers",
    "make_scorer",
    "scorer_class",
]


def available_scorers() -> dict[str, str]:
    """Name -> where it is defined; built-in names win over a plug-in's."""
    plugged = {point.name: point.value for point in entry_points(group="datapruner.scorers")}
    return dict(sorted((plugged | BUILT_IN).items()))


def scorer_class(name: str) -> type[Scorer]:
    """Import a scorer's class.

    Raises
    ------
    DataPrunerError
        There is no scorer of that name, or its plug-in cannot be imported.
    """
    found = available_scorers()
    if name not in found:
        raise DataPrunerError(
            f"there is no scorer '{name}'.{did_you_mean(name, found)} Available: {', '.join(found)}"
        )
    module, _, attribute = found[name].partition(":")
    try:
        cls: type[Scorer] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise DataPrunerError(
            f"the scorer '{name}' cannot be imported from {found[name]}: {error}"
        ) from error
    return cls


def make_scorer(scorer: str | Scorer, parameters: Mapping[str, Any] | None = None) -> Scorer:
    """Build a scorer from its name and parameters; an object is passed through.

    Raises
    ------
    DataPrunerError
        Unknown name, unknown parameter or a value of the wrong type.
    """
    from datapruner.scorers.base import Scorer as Base

    if isinstance(scorer, Base):
        return scorer
    if not isinstance(scorer, str):
        called = f"; write {scorer.__name__}()" if isinstance(scorer, type) else ""
        raise DataPrunerError(f"a scorer is a name or a Scorer object, not {scorer!r}{called}")
    from datapruner.parameters import build

    return build(scorer_class(scorer), scorer, parameters or {})


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        module, _, attribute = _CLASSES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
