"""Read the rows that a recipe names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.files.remote import label_of
from datapruner.inputs import WAY
from datapruner.measuring.request import Request
from datapruner.recipe import Recipe
from datapruner.recipe.auto import CLUSTERED, LEAKS, NOISE, RULES, SCORER, STEPS, WHOLE
from datapruner.samples import load_samples
from datapruner.samples.origins import OF_SOURCE
from datapruner.samples.portable import check_format, check_splits
from datapruner.samples.source import other_split
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples


TEST = "test"
LOOKED_AT = 200
"""Rows whose prompts are looked at."""


def fitted(request: Request, samples: Samples) -> Request:
    """Fit the default recipe to the rows: what of it they cannot have goes, and their own test split is looked for."""
    recipe = request.recipe
    if recipe.without is None:
        return request
    changed: dict[str, Any] = {}
    if not samples.layout.has_text:
        reading = {step for part in (RULES, NOISE) for step in STEPS[part]}
        unread = {"near"} if samples.layout.columns else {"near", "exact"}
        changed["dedup"] = [step for step in recipe.dedup if step not in unread]
        changed["cleaning"] = [step for step in recipe.cleaning if step.name not in reading]
    elif LEAKS not in recipe.without and recipe.decontaminate is None and recipe.decontaminate_split is None:
        changed |= {"decontaminate_split": TEST} if _has_tests(samples) else {}
    shares = any(scorer.name == SCORER for scorer in recipe.scorers)
    if shares and recipe.embed == CLUSTERED and not _differ_in_prompts(samples):
        changed["embed"] = WHOLE
    if not changed:
        return request
    recipe = recipe.model_copy(update=changed)
    left = {step.name for step in recipe.cleaning}
    cleaning = request.cleaning
    return replace(
        request,
        recipe=recipe,
        cleaning=None if cleaning is None else tuple(step for step in cleaning if step.name in left),
    )


def _differ_in_prompts(samples: Samples) -> bool:
    """Whether most rows, as far as some of them tell, have a prompt of their own."""
    if not samples.layout.has_text:
        return False
    rows = np.linspace(0, len(samples) - 1, min(len(samples), LOOKED_AT)).astype(np.int64)
    return len({text for text in samples.iter_parts("prompt", rows) if text.strip()}) > len(rows) / 2


def _has_tests(samples: Samples) -> bool:
    try:
        return TEST in samples.others and other_split(samples, TEST).layout.has_text
    except DataPrunerError:  # it is no set of rows like these, and nobody named it
        return False


def read_rows(request: Request) -> Samples:
    """Load the rows of a request."""
    return read_samples(
        request.recipe, request.source, embeddings_given=request.objects.embeddings is not None
    )


def read_samples(recipe: Recipe, source: Any = None, *, embeddings_given: bool = False) -> Samples:
    """Load the rows that a recipe names, or those given in memory; what could not be saved is refused now."""
    samples = load_samples(
        recipe.source if source is None else source,
        split=recipe.split,
        columns=recipe.columns,
        layout=recipe.layout,
        embeddings_given=embeddings_given or recipe.has_embeddings,
        source_column=recipe.source_column,
    )
    splits = {samples.split: samples.dataset, **samples.others}
    if source is None:  # data in memory may stay there
        check_splits(splits)
    check_format(samples, recipe.format)
    if recipe.source_content is not None and samples.content != recipe.source_content:
        raise DataPrunerError(
            f"{changed_source(samples, recipe)} has other rows than when this was made (content "
            f"{samples.content}, then {recipe.source_content}); {WAY}"
        )
    return samples


def changed_source(samples: Samples, recipe: Recipe) -> str:
    """Name what has other rows than a recipe says: of several sources the first of them, where the recipe tells."""
    for origin in samples.origins:
        then = recipe.inputs_content.get(f"{OF_SOURCE}{origin.name}")
        if then not in (None, samples.origin_contents[origin.name]):
            return f"the source '{safe_text(origin.name, 60)}' ({label_of(origin.source)})"
    return safe_text(samples.source, 200)
