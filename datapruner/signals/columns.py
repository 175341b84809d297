"""What needs no model: the labels, and how many tokens every row has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Ints
from datapruner.models.names import DEFAULT_TOKENIZER
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from datapruner.recipe import Recipe
    from datapruner.samples.rendered import TokenCounts
    from datapruner.samples.samples import Samples
    from datapruner.signals.tokens import NamedTokenizer


def measure_label(samples: Samples) -> Ints:
    """Give every row the number of its label, 0 for all rows where the dataset has no label column."""
    from datapruner.samples.labels import encode_labels

    # Beside a text, what is called a label may be a vote or a mark: there, groups are asked for by a column's name.
    column = None if samples.layout.has_text else samples.layout.columns.get("label")
    if column is None:
        return np.zeros(len(samples), dtype=np.int64)
    return encode_labels(samples.column(column))[1]


def measure_tokens(
    recipe: Recipe, samples: Samples, store: SignalStore, rows: Ints | None = None, *, required: bool
) -> TokenCounts | None:
    """Count every row's tokens and supervised tokens, or some rows'; nothing where no text is, and nobody asked."""
    from datapruner.signals.tokens import stored_counts

    if not samples.layout.has_text and not required:
        return None
    return stored_counts(
        samples,
        counting_tokenizer(recipe, store),
        store,
        rows,
        last_turn_only=recipe.last_turn_only,
        drop_failing=recipe.on_error == "drop",
    )


def counting_tokenizer(recipe: Recipe, store: SignalStore) -> NamedTokenizer:
    """Give the tokenizer that a recipe counts with: its own, the model's, or the bundled one."""
    from datapruner.signals.tokens import NamedTokenizer

    if recipe.tokenizer is None:
        return NamedTokenizer.of(recipe.model or DEFAULT_TOKENIZER, recipe.adapter, store)
    return NamedTokenizer.of(recipe.tokenizer, None, store)
