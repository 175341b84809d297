"""datapruner: prune and curate datasets for fine-tuning language models.

>>> import datapruner as dp
>>> selection = dp.prune("data.jsonl", keep=0.3)  # doctest: +SKIP
>>> selection.dataset  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from datapruner.moved import find_moved
from datapruner.version import __version__ as __version__

if TYPE_CHECKING:
    from datapruner import plots, scorers
    from datapruner.api import clean, prune, run, score
    from datapruner.comparison import Comparison, compare
    from datapruner.errors import DataPrunerError
    from datapruner.foresight import measure_part, plan
    from datapruner.outputs.hub import push_to_hub
    from datapruner.pruning_damage import Damage, damage
    from datapruner.ranking import Ranking
    from datapruner.results.explanation import Explanation
    from datapruner.results.summary import Summary
    from datapruner.samples.inspection import inspect_samples
    from datapruner.samples.source import load_samples
    from datapruner.saved import SavedSelection, load_selection
    from datapruner.scorers.base import Scorer
    from datapruner.scores import Scores, Selection, load_scores
    from datapruner.signals import Signals
    from datapruner.stability import Stability, compare_stability
    from datapruner.validation import Validation, validate
    from datapruner.verbs import explain, inspect, load, select

_WHERE = {
    "Comparison": "datapruner.comparison",
    "DataPrunerError": "datapruner.errors",
    "Ranking": "datapruner.ranking",
    "Scorer": "datapruner.scorers.base",
    "Scores": "datapruner.scores",
    "Selection": "datapruner.scores",
    "Signals": "datapruner.signals",
    "Stability": "datapruner.stability",
    "Damage": "datapruner.pruning_damage",
    "Explanation": "datapruner.results.explanation",
    "SavedSelection": "datapruner.saved",
    "Summary": "datapruner.results.summary",
    "Validation": "datapruner.validation",
    "clean": "datapruner.api",
    "compare": "datapruner.comparison",
    "compare_stability": "datapruner.stability",
    "damage": "datapruner.pruning_damage",
    "explain": "datapruner.verbs",
    "inspect": "datapruner.verbs",
    "inspect_samples": "datapruner.samples.inspection",
    "load": "datapruner.verbs",
    "load_samples": "datapruner.samples.source",
    "load_scores": "datapruner.scores",
    "load_selection": "datapruner.saved",
    "measure_part": "datapruner.foresight",
    "plan": "datapruner.foresight",
    "prune": "datapruner.api",
    "push_to_hub": "datapruner.outputs.hub",
    "run": "datapruner.api",
    "score": "datapruner.api",
    "select": "datapruner.verbs",
    "validate": "datapruner.validation",
}

__all__ = [
    "Comparison",
    "Damage",
    "DataPrunerError",
    "Explanation",
    "Ranking",
    "SavedSelection",
    "Scorer",
    "Scores",
    "Selection",
    "Signals",
    "Stability",
    "Summary",
    "Validation",
    "clean",
    "compare",
    "compare_stability",
    "damage",
    "explain",
    "inspect",
    "inspect_samples",
    "load",
    "load_samples",
    "load_scores",
    "load_selection",
    "measure_part",
    "plan",
    "plots",
    "prune",
    "push_to_hub",
    "run",
    "score",
    "scorers",
    "select",
    "validate",
]

find_moved()


def __getattr__(name: str) -> Any:
    # Lazy, so that `import datapruner` costs a fraction of a second although torch takes several.
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in ("plots", "scorers", "testing"):
        return importlib.import_module(f"datapruner.{name}")
    from datapruner.instead import missing

    raise AttributeError(missing(name, __all__))


def __dir__() -> list[str]:
    return sorted(__all__)
