"""What is asked for: a recipe with its whole budget, and the objects that no recipe can hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from datapruner.budget import Budget
from datapruner.cleaning.step import CleaningStep
from datapruner.engines.base import Engine
from datapruner.engines.local import Local
from datapruner.errors import DataPrunerError
from datapruner.recipe import Recipe
from datapruner.scorers import make_scorer
from datapruner.scorers.base import Scorer
from datapruner.selection.selector import Selector
from datapruner.selection.selectors import make_selector
from datapruner.signals.run import Objects
from datapruner.text import did_you_mean, safe_text


@dataclass(frozen=True, eq=False)
class Request:
    """All that decides a run, made by every verb and refused as a whole before anything is read.

    Attributes
    ----------
    recipe : Recipe
        With the budget and the selector, where one budget is spent.
    scorers : tuple of Scorer
    budgets : tuple of Budget
        What will be spent on their rankings; empty where rows are only ranked.
    selector : Selector, optional
        Default: each scorer's own.
    apart : collection of str
        Scorers that keep their own selector all the same.
    chosen : str, optional
        The scorer whose selection becomes a dataset.
    cleaning : tuple of CleaningStep, optional
        Further cleaning steps as objects; default: those that the recipe names.
    source, objects, masks
        What stands in memory for something that the recipe names.
    cache, progress
        As in :func:`datapruner.score`.
    engine : Engine
        Who computes what is not stored.
    """

    recipe: Recipe
    scorers: tuple[Scorer, ...]
    budgets: tuple[Budget, ...] = ()
    selector: Selector | None = None
    apart: Collection[str] = ()
    chosen: str | None = None
    cleaning: tuple[CleaningStep, ...] | None = None
    source: Any = None
    objects: Objects = field(default_factory=Objects)
    masks: Mapping[str, Any] = field(default_factory=dict)
    cache: str | Path | None = None
    engine: Engine = field(default_factory=Local)
    progress: bool = True

    def __post_init__(self) -> None:
        """Refuse what could not be carried out, whatever the rows are."""
        names = [scorer.name for scorer in self.scorers]
        if not names:
            raise DataPrunerError("name a scorer")
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataPrunerError(f"the scorer '{twice[0]}' is named twice; name every scorer once")
        if self.recipe.embedding_column is not None and (
            self.recipe.embeddings is not None or self.objects.embeddings is not None
        ):
            raise DataPrunerError(
                "vectors come from a file or from a column: give --embeddings or --embedding-column"
            )
        given = [
            name
            for name in ("source", *(spec.name for spec in fields(Objects) if spec.name != "trust_code"))
            if getattr(self if name == "source" else self.objects, name) is not None
        ]
        if given and not self.engine.alone:
            raise DataPrunerError(
                f"workers read what has a name, and '{given[0]}' was given as an object: give a path or a hub name, or "
                "leave out --workers and --engine"
            )
        if self.chosen is not None and self.chosen not in names:
            raise DataPrunerError(
                f"this run has no scorer '{safe_text(self.chosen, 60)}'.{did_you_mean(self.chosen, names)} It has "
                f"{', '.join(names)}"
            )

    @property
    def in_tokens(self) -> bool:
        """Whether a budget counts supervised tokens."""
        return any(budget.in_tokens for budget in self.budgets)

    def selector_of(self, scorer: Scorer) -> Selector:
        """Give what chooses from a scorer's ranking."""
        given = None if scorer.name in self.apart else self.selector
        return scorer.selector() if given is None else given

    @property
    def read_by_selectors(self) -> dict[str, frozenset[str]]:
        """What selectors read besides their rankings, by what each is called in a sentence."""
        chosen = [self.selector_of(scorer) for scorer in self.scorers] if self.budgets else []
        return {f"the selector '{one.name}'": one.reads for one in chosen if one.reads}

    def check_selectors(self) -> None:
        """Refuse a selector that reads what a scorer is known not to give."""
        for scorer in self.scorers if self.budgets else ():
            if (held := scorer.offers) is not None:
                self.selector_of(scorer).check(held)

    def of(self, *scorers: Scorer) -> Request:
        """Give the same for some of its scorers, or for others; the recipe's list stays."""
        return replace(self, scorers=scorers)


def request_of(
    recipe: Recipe,
    *,
    cache: str | Path | None = None,
    engine: Engine | None = None,
    progress: bool = True,
    trust_code: bool = False,
) -> Request:
    """Ask for what a recipe says.

    Raises
    ------
    DataPrunerError
        It needs objects that were in memory, names no budget, or anything that it names is not there.
    """
    held = recipe.in_memory or ["source"] * (recipe.source is None)
    if held:
        raise DataPrunerError(
            f"this recipe was made with what was in memory ({', '.join(held)}); call datapruner.prune with "
            "the same again"
        )
    recipe = recipe.in_full
    budget = recipe.budget
    scorers = tuple(make_scorer(method.name, method.parameters) for method in recipe.scorers)
    chosen = recipe.scorer
    if chosen is None:
        if len(scorers) > 1:
            raise DataPrunerError(
                f"say which scorer is to choose: {', '.join(scorer.name for scorer in scorers)}"
            )
        chosen = next((scorer.name for scorer in scorers), None)
    named = recipe.selector
    return Request(
        recipe,
        scorers,
        (budget,),
        None if named is None else make_selector(named.name, named.parameters),
        chosen=chosen,
        objects=Objects(trust_code=trust_code),
        cache=cache,
        engine=engine or Local(),
        progress=progress,
    )
