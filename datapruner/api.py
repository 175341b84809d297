"""The verbs: score, select, prune, explain; every other way in ends here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from datapruner.arguments import takes
from datapruner.errors import DataPrunerError
from datapruner.measuring.measure import Measured, measure
from datapruner.options import DEFAULTS, PrunedModel, Running, Scoring, ScoringReading, notes
from datapruner.parameters import one_or_more
from datapruner.parts import SCORERS, is_named
from datapruner.recipe import Recipe, load_recipe, make_recipe, method_of, plain
from datapruner.scorers import make_scorer
from datapruner.scorers.base import Scorer
from datapruner.scores import Scores, Selection
from datapruner.selection.budget import Amount, Budget
from datapruner.selection.selector import Selector
from datapruner.selection.selectors import make_selector

if TYPE_CHECKING:
    from datapruner.models.encoders import Encoder


SELECTING = frozenset({"scorer", "selector", "keep", "keep_tokens", "quotas"})
"""A recipe's fields of the selection; `per_group` is taken, to find a typo before a model runs."""
_PARAMETERS = (
    "these are a scorer's own parameters; give an object, such as datapruner.scorers.Prototypes(n_clusters=8)"
)
SCORERS_OWN = dict.fromkeys(("n_clusters", "set", "parameters", "scorer_params"), _PARAMETERS)
_WRITES = "the result is written by its own save(FOLDER)"
RESULTS_OWN = dict.fromkeys(("out", "output", "output_dir", "overwrite", "report", "push_to_hub"), _WRITES)


@takes(
    ScoringReading,
    defaults=DEFAULTS,
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
    scorers: str | Scorer | Sequence[str | Scorer] = "concept_complexity",
    embeddings: str | Path | ArrayLike | None = None,
    embedder: str | Encoder = "minilm",
    model: str | Path | tuple[Any, Any] | None = None,
    pruned_model: PrunedModel | None = None,
    divergences: str | Path | ArrayLike | None = None,
    always_keep: str | ArrayLike | None = None,
    never_keep: str | ArrayLike | None = None,
    dedup: bool | Sequence[str] = False,
    count_tokens: bool = False,
    cache: str | Path | None = None,
    progress: bool = True,
    trust_code: bool = False,
    **options: Unpack[ScoringReading],
) -> Scores:
    """Rank every row with one or more scorers, in as few passes as they need together.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        A hub name ``org/name[:config][@revision]``, a file, a glob, a folder, or data in memory.
    scorers : str, Scorer, or a sequence of them
        Names from ``datapruner scorers``, or objects with parameters of their own.
    embeddings : path or array of shape (n, d), optional
        Vectors that exist already: ``.npy``, ``.parquet`` or an array.
    embedder : str or Encoder
        Alias, path or hub name; or any object with ``encode(list[str])``.
    model : str, Path or (model, tokenizer), optional
        The causal language model for scorers that read losses: a path, a hub name, an alias, or objects of
        transformers.
    pruned_model : str, Path, (model, tokenizer) or callable, optional
        The same model after weights were removed, for scorers that choose data to heal it: whatever
        :func:`datapruner.models.load_pruned_lm` takes, objects of transformers, or a function that gives them.
    divergences : path or array of shape (n,), optional
        Instead of the two models: the Jensen-Shannon divergence of every row, nats.
    always_keep, never_keep : str or array, optional
        A boolean column's name, a boolean mask, or row numbers.
    dedup : bool or sequence of {"exact", "near", "semantic"}
        True means exact and near.
    count_tokens : bool
        Count tokens even if no scorer needs them, for token budgets later on.
    cache : path, optional
        Folder of the signals; default ``DATAPRUNER_CACHE``, else the user's cache folder.
    progress : bool
        Show progress on a terminal.
    trust_code : bool
        Run the code that a pruned model's name, or its pickle, holds.
    **options
        Fields of :class:`datapruner.recipe.Recipe`, as listed below.

    Returns
    -------
    Scores

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    return run_scores(
        **run_arguments(
            source,
            scorers=scorers,
            embeddings=embeddings,
            embedder=embedder,
            model=model,
            pruned_model=pruned_model,
            divergences=divergences,
            always_keep=always_keep,
            never_keep=never_keep,
            dedup=dedup,
            count_tokens=count_tokens,
            cache=cache,
            progress=progress,
            trust_code=trust_code,
            **options,
        )
    )


def run_arguments(
    source: Any,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] = "concept_complexity",
    embeddings: str | Path | ArrayLike | None = None,
    embedder: str | Encoder = "minilm",
    model: str | Path | tuple[Any, Any] | None = None,
    pruned_model: PrunedModel | None = None,
    divergences: str | Path | ArrayLike | None = None,
    always_keep: str | ArrayLike | None = None,
    never_keep: str | ArrayLike | None = None,
    dedup: bool | Sequence[str] = False,
    count_tokens: bool = False,
    cache: str | Path | None = None,
    progress: bool = True,
    trust_code: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Turn the arguments of :func:`score` into those of :func:`run_scores`: a recipe, and what it cannot hold."""
    made = [make_scorer(method) for method in one_or_more(scorers)]
    if not isinstance(embedder, str) and not hasattr(embedder, "encode"):
        raise DataPrunerError(f"an embedder is a name or an object with `encode`, not {embedder!r}")
    _check_model(model, options)
    if not (pruned_model is None or isinstance(pruned_model, str | Path | tuple) or callable(pruned_model)):
        raise DataPrunerError(
            "a pruned model is a name, the pair (model, tokenizer) of transformers, or a function that gives the pair, "
            f"not a {type(pruned_model).__name__}"
        )
    named = isinstance(source, str | Path)
    objects = {
        "source": not named,
        "embeddings": embeddings is not None and not isinstance(embeddings, str | Path),
        "embedder": not isinstance(embedder, str),
        "model": isinstance(model, tuple),
        "pruned_model": pruned_model is not None and not isinstance(pruned_model, str | Path),
        "divergences": divergences is not None and not isinstance(divergences, str | Path),
        **{f"scorer {scorer.name}": not is_named(SCORERS, scorer) for scorer in made},
    }
    recipe = make_recipe(
        source=str(source) if named else None,
        in_memory=[name for name, held in objects.items() if held],
        scorers=[
            method_of(scorer.name, _changed(scorer), named=is_named(SCORERS, scorer)) for scorer in made
        ],
        embeddings=str(embeddings) if isinstance(embeddings, str | Path) else None,
        embedder=embedder if isinstance(embedder, str) else "minilm",
        model=str(model) if isinstance(model, str | Path) else None,
        pruned_model=str(pruned_model) if isinstance(pruned_model, str | Path) else None,
        divergences=str(divergences) if isinstance(divergences, str | Path) else None,
        always_keep=_mask_field(always_keep),
        never_keep=_mask_field(never_keep),
        dedup=_steps(dedup),
        count_tokens=count_tokens,
        **options,
    )
    return {
        "recipe": recipe,
        "scorers": made,
        "source": None if named else source,
        "embeddings": None if isinstance(embeddings, str | Path) else embeddings,
        "embedder": None if isinstance(embedder, str) else embedder,
        "model": model if isinstance(model, tuple) else None,
        "pruned_model": None if isinstance(pruned_model, str | Path) else pruned_model,
        "divergences": None if isinstance(divergences, str | Path) else divergences,
        "masks": {"always_keep": always_keep, "never_keep": never_keep},
        "cache": cache,
        "progress": progress,
        "trust_code": trust_code,
    }


@takes(
    Scoring,
    defaults=DEFAULTS,
    told=notes(Scoring),
    elsewhere={
        "scorers": "it takes one `scorer`; use datapruner.score for several `scorers`",
        **SCORERS_OWN,
        **RESULTS_OWN,
    },
)
def prune(
    source: Any,
    *,
    scorer: str | Scorer = "concept_complexity",
    keep: Amount | None = None,
    keep_tokens: int | None = None,
    per_group: str | None = None,
    quotas: Mapping[str, Amount] | None = None,
    selector: str | Selector | None = None,
    **options: Unpack[Scoring],
) -> Selection:
    """Choose the rows to train on.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`score`.
    scorer : str or Scorer
    keep : float or int, optional
        A float in (0, 1] is a fraction of the rows, an int a number of rows.
    keep_tokens : int, optional
        Supervised tokens instead of rows.
    per_group : str, optional
        Column whose values share the budget in proportion to their size.
    quotas : mapping, optional
        Group -> its own fraction or number; the others share what is left.
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
    # Refused before a model runs, not after.
    Budget(keep, keep_tokens, per_group, {} if quotas is None else quotas)
    chooser = None if selector is None else make_selector(selector)
    options["count_tokens"] = options.get("count_tokens", False) or keep_tokens is not None
    scores = score(source, scorers=scorer, per_group=per_group, **options)
    return scores.select(
        keep=keep, keep_tokens=keep_tokens, per_group=per_group, quotas=quotas, selector=chooser
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
    return prune(source, scorer="unranked", keep=1.0, **options)


@takes(Running, defaults=DEFAULTS, told=notes(Running))
def run(recipe: str | Path | Recipe, **objects: Unpack[Running]) -> Selection:
    """Do again what a recipe says.

    Parameters
    ----------
    recipe : path or Recipe
        As saved beside a result.
    **objects
        ``cache``, ``progress``, ``trust_code`` and ``limits`` as in :func:`score`; ``changed_source=True`` goes on
        where the source, or another input, has another content than the recipe says.

    Raises
    ------
    DataPrunerError
        The source or another input has changed, or anything else that the user can put right.
    """
    plan = load_recipe(Path(recipe)) if isinstance(recipe, str | Path) else recipe.located()
    held = plan.in_memory or ["source"] * (plan.source is None)
    if held:
        raise DataPrunerError(
            f"this recipe was made with what was in memory ({', '.join(held)}); call datapruner.prune with "
            "the same again"
        )
    if objects.pop("changed_source", False):
        plan = plan.taken_as_it_is
    Budget(plan.keep, plan.keep_tokens, plan.per_group, plan.quotas)
    chooser = None if plan.selector is None else make_selector(plan.selector.name, plan.selector.parameters)
    scores = run_scores(plan, **objects)
    return scores.select(
        plan.scorer,
        keep=plan.keep,
        keep_tokens=plan.keep_tokens,
        per_group=plan.per_group,
        quotas=plan.quotas,
        selector=chooser,
    )


def run_scores(recipe: Recipe, **objects: Any) -> Scores:
    """Carry out the scoring half of a recipe: read, clean, measure, rank; takes what :func:`measure` takes."""
    return rank(measure(recipe, **objects))


def rank(measured: Measured, scorers: Sequence[Scorer] | None = None) -> Scores:
    """Rank what was measured, with the run's scorers or with others that need no more than they do."""
    made = measured.scorers if scorers is None else list(scorers)
    rows, n = measured.rows, len(measured.samples)
    return Scores(
        measured.samples,
        measured.recipe,
        {scorer.name: scorer for scorer in made},
        {scorer.name: scorer.score(measured.signals).scatter(rows, n) for scorer in made},
        measured.vetoes,
        measured.forced,
        measured.tokens,
        measured.renderer,
    )


def _check_model(model: Any, options: Mapping[str, Any]) -> None:
    """Refuse what is neither a name nor a model with its tokenizer, and options that only loading could follow."""
    if model is None or isinstance(model, str | Path):
        return
    pair = isinstance(model, tuple) and len(model) == 2
    if not pair or not hasattr(model[0], "get_input_embeddings") or not hasattr(model[1], "eos_token_id"):
        raise DataPrunerError(
            "a model is a name or the pair (model, tokenizer) of transformers; take a wrapped one out of its wrapper"
        )
    for name in ("adapter", "dtype", "device", "device_map", "quantize"):
        if options.get(name) not in (None, "auto"):
            raise DataPrunerError(
                f"'{name}' is for a model that is loaded by its name; this one is loaded already"
            )


def _changed(scorer: Scorer) -> dict[str, Any]:
    """Give the parameters that differ from the defaults."""
    from dataclasses import MISSING, fields

    out = {}
    for spec in fields(scorer):
        value = getattr(scorer, spec.name)
        default = spec.default if spec.default_factory is MISSING else spec.default_factory()
        if default is MISSING or not _same(value, default):
            out[spec.name] = value
    return out


def _same(first: Any, second: Any) -> bool:
    try:
        return bool(plain(first, "") == plain(second, ""))
    except DataPrunerError:
        return first is second


def _steps(dedup: Any) -> Any:
    """Give the cleaning steps by name; what is none of them is left for the recipe to refuse."""
    if isinstance(dedup, bool):
        return ["exact", "near"] if dedup else []
    return list(dedup) if isinstance(dedup, tuple) else dedup


def _mask_field(value: str | ArrayLike | None) -> str | list[int] | None:
    """Turn a mask or row numbers into what a recipe holds."""
    if value is None or isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.size == 0 and array.ndim == 1:
        return None
    if array.ndim != 1 or array.dtype.kind not in "bui":
        raise DataPrunerError(
            "always_keep and never_keep take a column's name, a boolean mask or row numbers"
        )
    listed: list[int] = (np.flatnonzero(array) if array.dtype.kind == "b" else array).tolist()
    return listed
