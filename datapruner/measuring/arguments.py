"""From a verb's arguments to a request: what has a name goes into the recipe, objects stand beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from datapruner.budget import Budget
from datapruner.cleaning.stage import make_step
from datapruner.cleaning.step import CleaningStep
from datapruner.engines.base import Engine, make_engine
from datapruner.errors import DataPrunerError
from datapruner.measuring.request import Request
from datapruner.option_types import DEFAULTS
from datapruner.parameters import one_or_more
from datapruner.parts import CLEANING, SCORERS, SELECTORS, is_named
from datapruner.recipe import MASKS, Method, make_recipe, method_of, plain
from datapruner.recipe.auto import expanded
from datapruner.samples.origins import COLUMN, named_sources
from datapruner.scorers import make_scorer
from datapruner.scorers.base import Scorer
from datapruner.selection.selector import Selector
from datapruner.selection.selectors import make_selector
from datapruner.signals.run import Objects

SECOND = ("pruned_model", "reference_model")
OBJECTS = ("embeddings", "embedder", "model", *SECOND, "divergences", "classifier", "judge")
"""Fields of a recipe that may be objects, which it cannot hold."""


def requested(
    source: Any,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] | None = None,
    budget: Mapping[str, Any] | None = None,
    budgets: Sequence[Budget] = (),
    selector: str | Selector | None = None,
    apart: Collection[str] = (),
    selects: bool = False,
    cache: str | Path | None = None,
    engine: str | Engine = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    num_gpus: float | None = None,
    progress: bool = True,
    trust_code: bool = False,
    **options: Any,
) -> Request:
    """Turn arguments into a request, and refuse those that have no meaning.

    Parameters
    ----------
    source, scorers, cache, engine, workers, ray_address, num_gpus, progress, trust_code
        As in :func:`datapruner.score`; where no scorer is named, or ``without`` is given, the default recipe is written
        out.
    budget : mapping, optional
        The fields of what is spent on the ranking, as they were given.
    budgets : sequence of Budget
        What is spent on the rankings, instead.
    selector : str or Selector, optional
        Default: each scorer's own.
    apart : collection of str
        Scorers that keep their own selector all the same.
    selects : bool
        The only scorer's selection becomes a dataset.
    **options
        Fields of the recipe, some of which may be objects: see :class:`datapruner.option_types.Scoring`.
    """
    named = named_sources(source)
    helping = make_engine(engine, workers=workers, ray_address=ray_address, num_gpus=num_gpus)
    scorers, options = in_full(scorers, {**options, **(budget or {})}, spends=budget is not None)
    if budget is not None:
        said = {name: options.pop(name, None) for name in (spec.name for spec in fields(Budget))}
        if said["group_share"] and said["per_group"] is None and isinstance(named, dict):
            said["per_group"] = options.get("source_column") or COLUMN
        budgets = [Budget(**{name: value for name, value in said.items() if value is not None})]
    made = tuple(make_scorer(method) for method in one_or_more(scorers))
    steps = tuple(_cleaning_of(options.pop("cleaning", ())))
    chooser = None if selector is None else make_selector(selector)
    given = {name: options.pop(name, DEFAULTS[name]) for name in OBJECTS}
    embedder, model = given["embedder"], given["model"]
    masks = {name: options.pop(name, None) for name in MASKS}
    if not isinstance(embedder, str) and not hasattr(embedder, "encode"):
        raise DataPrunerError(f"an embedder is a name or an object with `encode`, not {embedder!r}")
    _check_model(model, options)
    _check_whole(options, model=model is not None)
    for name in SECOND:
        one = given[name]
        makes = callable(one) and not hasattr(one, "get_input_embeddings")
        if not (_is_name(one) or isinstance(one, tuple) or makes):
            raise DataPrunerError(
                f"a {name.replace('_', ' ')} is a name, the pair (model, tokenizer) of transformers, or a function "
                f"that gives the pair, not a {type(one).__name__}"
            )
    for name in ("classifier", "judge"):
        _check_pair(name, given[name])
    if selects and len(made) != 1:
        raise DataPrunerError(
            f"one scorer chooses, not {len(made)}: join them by datapruner.scorers.Combined, or rank with several by "
            "datapruner.score"
        )
    # What every scorer would take by itself is not named: so it is after a selection, too.
    told = chooser is not None and any(
        chooser != scorer.selector() for scorer in made if scorer.name not in apart
    )
    held = {name: not _is_name(value) for name, value in given.items()}
    objects = {
        "source": named is None,
        **held,
        **{f"cleaning {step.name}": not is_named(CLEANING, step) for step in steps},
        **{f"scorer {scorer.name}": not is_named(SCORERS, scorer) for scorer in made},
        **(
            {} if chooser is None else {f"selector {chooser.name}": told and not is_named(SELECTORS, chooser)}
        ),
    }
    if len(budgets) == 1:
        options |= budgets[0].fields()
    recipe = make_recipe(
        source=named,
        in_memory=[name for name, by_object in objects.items() if by_object],
        scorers=[described(scorer) for scorer in made],
        selector=method_of(chooser.name, chooser.parameters(), named=is_named(SELECTORS, chooser))
        if told and chooser is not None
        else None,
        dedup=_steps(options.pop("dedup", False)),
        cleaning=[method_of(step.name, _changed(step), named=is_named(CLEANING, step)) for step in steps],
        **{name: str(value) for name, value in given.items() if value is not None and not held[name]},
        **{name: _mask_field(mask) for name, mask in masks.items()},
        **options,
    )
    return Request(
        recipe,
        made,
        tuple(budgets),
        chooser,
        apart,
        made[0].name if selects else None,
        source=None if named is not None else source,
        objects=Objects(
            **{name: value for name, value in given.items() if held[name]}, trust_code=trust_code
        ),
        masks=masks,
        cache=cache,
        engine=helping,
        progress=progress,
        cleaning=steps,
    )


def in_full(
    scorers: Any, options: Mapping[str, Any], *, spends: bool = False
) -> tuple[list[str | Scorer], dict[str, Any]]:
    """Give the scorers and the options as they are, or those of the default recipe where that is what is asked for.

    Parameters
    ----------
    scorers : str, Scorer, a sequence of them, or None
        None: none was named.
    options : mapping
        Fields of the recipe that were given, some of which may be objects.
    spends : bool
        A budget is among them, or all that cleaning leaves is kept.
    """
    named = [] if scorers is None else one_or_more(scorers)
    if scorers is not None and options.get("without") is None:
        return named, dict(options)
    given = expanded({**options, "scorers": named}, spends=spends)
    own = given.pop("scorers")
    return named or [make_scorer(one["name"], one.get("parameters")) for one in own], given


def requested_cleaning(source: Any, **options: Any) -> Request:
    """Ask for all that cleaning leaves: no scorer ranks, and no budget is spent."""
    return requested(source, scorers="unranked", budgets=[Budget(1.0)], selects=True, **options)


def described(scorer: Scorer) -> Method:
    """Say in a recipe which scorer it is: its name, and the parameters that differ from the defaults."""
    return method_of(scorer.name, _changed(scorer), named=is_named(SCORERS, scorer))


def _check_whole(options: Mapping[str, Any], *, model: bool) -> None:
    """Refuse an option that another one is missing for: it would be left out in silence."""
    if options.get("decontaminate_columns") is not None and options.get("decontaminate") is None:
        raise DataPrunerError("--decontaminate-columns is given, and no --decontaminate that it belongs to")
    if options.get("adapter") is not None and not model:
        raise DataPrunerError("--adapter is given, and no --model that it belongs to")


def _is_name(value: Any) -> bool:
    """Whether a recipe can hold it: a name, or nothing."""
    return value is None or isinstance(value, str | Path)


def _check_pair(called: str, model: Any) -> None:
    """Refuse what is neither a name nor a model with its tokenizer."""
    pair = isinstance(model, tuple) and len(model) == 2
    if not _is_name(model) and not (
        pair and hasattr(model[0], "get_input_embeddings") and hasattr(model[1], "eos_token_id")
    ):
        raise DataPrunerError(
            f"a {called} is a name or the pair (model, tokenizer) of transformers; take a wrapped one out of its "
            "wrapper"
        )


def _check_model(model: Any, options: Mapping[str, Any]) -> None:
    """Refuse what is neither a name nor a model with its tokenizer, and options that only loading could follow."""
    _check_pair("model", model)
    if _is_name(model):
        return
    for name in ("adapter", "dtype", "device", "device_map", "quantize"):
        if options.get(name) not in (None, "auto"):
            raise DataPrunerError(
                f"'{name}' is for a model that is loaded by its name; this one is loaded already"
            )


def _changed(part: Scorer | CleaningStep) -> dict[str, Any]:
    """Give the parameters that differ from the defaults."""
    out = {}
    for spec in fields(part):
        value = getattr(part, spec.name)
        default = spec.default if spec.default_factory is MISSING else spec.default_factory()
        if default is MISSING or not _same(value, default):
            out[spec.name] = value
    return out


def _same(first: Any, second: Any) -> bool:
    try:
        return bool(plain(first, "") == plain(second, ""))
    except DataPrunerError:
        return first is second


def _cleaning_of(given: Any) -> Iterator[CleaningStep]:
    """Make cleaning steps of names, of names with their parameters, and of objects."""
    for step in one_or_more(given):
        if isinstance(step, Mapping) and len(step) == 1:
            ((name, parameters),) = step.items()
            yield make_step(name, parameters or {})
        else:
            yield make_step(step)


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
