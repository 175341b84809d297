"""The verbs: score, prune, clean, run. Each asks in its own words, and all go one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from datapruner.arguments import takes
from datapruner.budget import Amount
from datapruner.engines.base import make_engine
from datapruner.measuring.arguments import requested, requested_cleaning
from datapruner.measuring.request import request_of
from datapruner.option_types import (
    DEFAULTS,
    RESULTS_OWN,
    SCORERS_OWN,
    SELECTING,
    Choosing,
    Running,
    Scoring,
    ScoringReading,
    notes,
)
from datapruner.recipe import Recipe, load_recipe
from datapruner.running import scored, selected
from datapruner.scorers.base import Scorer
from datapruner.scores import Scores, Selection
from datapruner.selection.selector import Selector


@takes(
    ScoringReading,
    defaults={**DEFAULTS, "count_tokens": True},
    told=notes(ScoringReading),
    elsewhere={
        **dict.fromkeys(SELECTING, "it ranks with `scorers`, and `select` on its result spends a budget"),
        **SCORERS_OWN,
        **RESULTS_OWN,
    },
)
def score(
    source: Any,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] | None = None,
    **options: Unpack[ScoringReading],
) -> Scores:
    """Rank every row with one or more scorers, in as few passes as they need together.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        A hub name ``org/name[:config][@revision]``, a file, a glob, a folder, or data in memory.
    scorers : str, Scorer, or a sequence of them, optional
        Names from ``datapruner scorers``, or objects with parameters of their own. None named: the default recipe, see
        :func:`prune`.
    **options
        Fields of :class:`datapruner.recipe.Recipe`, as listed below and on the page of options; some may be objects.

    Returns
    -------
    Scores

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    options.setdefault("count_tokens", True)
    return scored(requested(source, scorers=scorers, **options))


@takes(
    Choosing,
    defaults=DEFAULTS,
    told=notes(Choosing),
    elsewhere={
        "scorers": "it takes one `scorer`; use datapruner.score for several `scorers`",
        **SCORERS_OWN,
        **RESULTS_OWN,
    },
)
def prune(
    source: Any,
    *,
    scorer: str | Scorer | None = None,
    keep: Amount | None = None,
    keep_tokens: int | None = None,
    per_group: str | None = None,
    quotas: Mapping[str, Amount] | None = None,
    group_share: Mapping[str, float] | None = None,
    selector: str | Selector | None = None,
    **options: Unpack[Choosing],
) -> Selection:
    """Choose the rows to train on.

    Where no scorer is named, the default recipe runs: rows that leak from a test set go, copies, what rules find to be
    broken, and noise; the others share the budget by the scorer ``auto``, or, where a target is named, are taken by
    ``nearest_target``. ``selection.summary`` says what each of these
    did, and ``without`` leaves one out.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`score`.
    scorer : str or Scorer, optional
        What ranks the rows; nothing is then cleaned but what is asked for.
    keep : float or int, optional
        A float in (0, 1] is a fraction of the rows, an int a number of rows. The default recipe keeps all that cleaning
        left where no budget is given.
    keep_tokens : int, optional
        Supervised tokens instead of rows.
    per_group : str, optional
        Column whose values share the budget in proportion to their size.
    quotas : mapping, optional
        Group -> its own fraction or number; the others share what is left.
    group_share : mapping, optional
        Group -> which part of what is kept it is; of several sources, where no `per_group` is named.
    selector : str or Selector, optional
        Default: the one the method was published with.
    **options
        Everything :func:`score` takes, as listed below.

    Returns
    -------
    Selection
        ``selection.dataset`` is the pruned dataset; ``save``, ``rebudget``, ``explain`` do the rest.

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    budget = {
        "keep": keep,
        "keep_tokens": keep_tokens,
        "per_group": per_group,
        "quotas": quotas,
        "group_share": group_share,
    }
    return selected(
        requested(source, scorers=scorer, budget=budget, selector=selector, selects=True, **options)
    )


@takes(
    Scoring,
    defaults={**DEFAULTS, "dedup": True},
    told=notes(Scoring),
    elsewhere={
        **dict.fromkeys(
            ("scorer", "scorers", *SELECTING), "cleaning ranks nothing and spends no budget; prune does"
        ),
        **RESULTS_OWN,
    },
)
def clean(source: Any, **options: Unpack[Scoring]) -> Selection:
    """Drop what must not be trained on, and nothing else: no scorer ranks, no budget is spent.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`score`.
    **options
        Everything :func:`score` takes, as listed below; ``dedup`` (here on by default), ``decontaminate``, ``match``,
        ``near_threshold`` and ``on_empty`` are the ones that clean.

    Returns
    -------
    Selection
        ``selection.dataset`` is what is left, ``dropped`` what is not and why, ``pairs()`` the copies beside what
        they were dropped for.

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    options.setdefault("dedup", True)
    return selected(requested_cleaning(source, **options))


@takes(Running, defaults=DEFAULTS, told=notes(Running))
def run(recipe: str | Path | Recipe, **objects: Unpack[Running]) -> Selection:
    """Do again what a recipe says.

    Parameters
    ----------
    recipe : path or Recipe
        As saved beside a result.
    **objects
        ``cache``, ``engine`` and its options, ``progress``, ``trust_code`` and ``limits`` as in :func:`score`;
        ``changed_source=True`` goes on where the source, or another input, has another content than the recipe says.

    Raises
    ------
    DataPrunerError
        The source or another input has changed, or anything else that the user can put right.
    """
    held = load_recipe(Path(recipe)) if isinstance(recipe, str | Path) else recipe.located()
    if objects.pop("changed_source", False):
        held = held.taken_as_it_is
    cache, progress = objects.get("cache"), objects.get("progress", True)
    engine = make_engine(
        objects.get("engine", "local"),
        workers=objects.get("workers"),
        ray_address=objects.get("ray_address"),
        num_gpus=objects.get("num_gpus"),
    )
    trust_code = objects.get("trust_code", False)
    return selected(request_of(held, cache=cache, engine=engine, progress=progress, trust_code=trust_code))
