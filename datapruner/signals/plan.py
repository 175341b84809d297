"""Merge the needs of all scorers in a run into the fewest passes, and make them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import iter_blocks, normalise_rows
from datapruner.models.embedders import Encoder, load_image_embedder, load_text_embedder
from datapruner.models.loading import DEFAULT_TOKENIZER, load_tokenizer
from datapruner.paths import expanded
from datapruner.signals import COLUMN, KNOWN
from datapruner.signals.embedding import (
    check_embeddings,
    column_embeddings,
    embed_images,
    embed_texts,
    embed_with_encoder,
    read_embeddings,
)
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.recipe import Recipe
    from datapruner.samples.base import Samples
    from datapruner.scorers.base import Scorer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Which signals a run measures.

    Attributes
    ----------
    embedding, tokens, text : bool
    tokens_required : bool
        A scorer or the budget needs them: a dataset without text is then an error.
    cleaning : bool
        A cleaning step reads the texts.
    """

    embedding: bool
    tokens: bool
    text: bool
    tokens_required: bool
    cleaning: bool


def make_plan(recipe: Recipe, scorers: Sequence[Scorer]) -> Plan:
    """Work out what the scorers, the cleaning steps and the budget need.

    Raises
    ------
    DataPrunerError
        A scorer needs a signal that does not exist.
    """
    needs: set[str] = set()
    for scorer in scorers:
        for need in (need for need in scorer.requires - KNOWN.keys() if not need.startswith(COLUMN)):
            raise DataPrunerError(
                f"the scorer '{scorer.name}' needs a signal '{need}'; there are {', '.join(KNOWN)}"
            )
        needs |= scorer.requires
    required = recipe.keep_tokens is not None or bool(needs & {"num_tokens", "num_supervised_tokens"})
    return Plan(
        tokens_required=required,
        embedding="embedding" in needs or "semantic" in recipe.dedup,
        tokens=recipe.count_tokens or required,
        text="text" in needs,
        cleaning=bool({"exact", "near"} & set(recipe.dedup)) or recipe.decontaminate is not None,
    )


def measure_embedding(
    recipe: Recipe,
    samples: Samples,
    rows: NDArray[np.int64],
    store: SignalStore,
    *,
    embeddings: Any = None,
    embedder: Encoder | None = None,
    progress: bool = True,
) -> Matrix:
    """Get one vector for each of ``rows``: given ones, a column, images, or the embedder's.

    Parameters
    ----------
    recipe : Recipe
    samples : Samples
    rows : ndarray, int64, ascending
        The rows that cleaning left.
    store : SignalStore
    embeddings : array of shape (n, d), optional
        Given in memory.
    embedder : Encoder, optional
        Given as an object.
    progress : bool

    Returns
    -------
    Matrix, shape (len(rows), d)
    """
    given = _given_embeddings(recipe, samples, embeddings)
    if given is not None:
        from datapruner.geometry.blocks import RowView

        return given if len(rows) == len(samples) else RowView(given, rows)
    made = _make_embedding(recipe, samples, rows, store, embedder, progress)
    # Here, while the rows' source positions are known: later stages count among those that cleaning left.
    for start, stop, block in iter_blocks(made):
        normalise_rows(block, rows[start:stop])
    return made


def _make_embedding(
    recipe: Recipe,
    samples: Samples,
    rows: NDArray[np.int64],
    store: SignalStore,
    embedder: Encoder | None,
    progress: bool,
) -> NDArray[np.float32]:
    if samples.layout.name == "image":
        images = _Images(samples, rows)
        return embed_images(images, load_image_embedder(_image_model(recipe)), store, progress=progress)
    texts = samples.texts(recipe.embed, None if len(rows) == len(samples) else rows)
    if embedder is not None:
        return embed_with_encoder(texts, embedder, store, progress=progress)
    loaded = load_text_embedder(recipe.embedder, pooling=recipe.pooling, max_length=recipe.max_length)
    return embed_texts(texts, loaded, store, progress=progress)


def measure_tokens(recipe: Recipe, samples: Samples, *, required: bool) -> dict[str, NDArray[np.int64]]:
    """Count every row's tokens and supervised tokens; nothing where there is no text and nobody asked."""
    from datapruner.samples.rendering import count_tokens

    if not samples.layout.has_text and not required:
        return {}
    tokenizer = load_tokenizer(recipe.tokenizer or DEFAULT_TOKENIZER)
    num_tokens, num_supervised = count_tokens(samples, tokenizer)
    return {"num_tokens": num_tokens, "num_supervised_tokens": num_supervised}


def _given_embeddings(recipe: Recipe, samples: Samples, embeddings: Any) -> Matrix | None:
    if embeddings is not None:
        try:
            array = np.asanyarray(embeddings)
        except ValueError as error:
            raise DataPrunerError(
                "the given embeddings are ragged; one vector of one length a row"
            ) from error
        return check_embeddings(array, len(samples), "the given array")
    if recipe.embeddings is not None and recipe.embedding_column is not None:
        raise DataPrunerError(
            "vectors come from a file or from a column: give embeddings or embedding_column"
        )
    if recipe.embeddings is not None:
        return read_embeddings(expanded(Path(recipe.embeddings)), len(samples))
    if recipe.embedding_column is not None or samples.layout.name == "embedding":
        name = recipe.embedding_column or samples.layout.columns.get("embedding")
        if name is None:
            raise DataPrunerError(
                "this dataset has no text and no embedding column; pass --embeddings with its vectors"
            )
        samples.check_column(name)
        column = samples.dataset.with_format("arrow").select_columns([name])[:].column(0)
        return check_embeddings(
            column_embeddings(column, f"column '{name}'"), len(samples), f"column '{name}'"
        )
    return None


def _image_model(recipe: Recipe) -> str:
    if recipe.embedder == "minilm":
        raise DataPrunerError(
            "images need an image model: pass --embedder with its path or hub name, or --embeddings"
        )
    return recipe.embedder


@dataclass(frozen=True)
class _Images:
    """Images read one by one, so that they are never all in memory."""

    samples: Samples
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Any:
        column = self.samples.layout.columns["image"]
        value = self.samples.dataset[int(self.rows[place])][column]
        if value is None or not hasattr(value, "convert"):
            raise DataPrunerError(f"row {int(self.rows[place])} has no readable image in column '{column}'")
        return value
