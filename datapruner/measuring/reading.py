"""Read the rows that a recipe names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.inputs import WAY
from datapruner.measuring.request import Request
from datapruner.recipe import Recipe
from datapruner.samples import load_samples
from datapruner.samples.portable import check_format, check_splits
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples


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
    )
    splits = {samples.split: samples.dataset, **samples.others}
    if source is None:  # data in memory may stay there
        check_splits(splits)
    check_format(splits, recipe.format)
    if recipe.source_content is not None and samples.content != recipe.source_content:
        raise DataPrunerError(
            f"{safe_text(samples.source, 200)} has other rows than when this was made (content "
            f"{samples.content}, then {recipe.source_content}); {WAY}"
        )
    return samples
