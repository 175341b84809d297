"""One vector a row: given ones, a column, images, or the embedder's; of the target's rows in the same way."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.own_text import OwnText
from datapruner.errors import DataPrunerError, RowError, in_words
from datapruner.geometry.blocks import iter_blocks, normalise_rows
from datapruner.models.embedders import load_image_embedder, load_text_embedder
from datapruner.models.encoders import Encoder, Named
from datapruner.models.known import opening
from datapruner.progress import say
from datapruner.signals.embedding import embed_and_tell, embed_images, missing_texts
from datapruner.signals.encoded import embed_with_encoder
from datapruner.signals.failing import Failing, NoNumberError
from datapruner.signals.given_vectors import given_embeddings
from datapruner.signals.store import SignalStore
from datapruner.signals.targets import TargetSet, joined
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.models.encoders import ImageEmbedder, TokenEmbedder
    from datapruner.recipe import Recipe
    from datapruner.samples.sample import Part
    from datapruner.samples.samples import Samples
    from datapruner.signals.run import Run

MANY = 0.1
"""Rows that are read in part: so many are told even where little is."""
EMBEDDER = "the embedder"
logger = logging.getLogger(__name__)


def measure_embedding(
    recipe: Recipe,
    samples: Samples,
    rows: Ints,
    store: SignalStore,
    *,
    own: OwnText,
    embeddings: Any = None,
    embedder: Encoder | Named[TokenEmbedder] | None = None,
    progress: bool = True,
    name: str = "embedding",
    unread: Flags | None = None,
    briefly: bool = False,
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
    embedder : Encoder or Named, optional
        Given as an object, or opened before; else the recipe's.
    own : OwnText
        What of the rows' texts is embedded.
    progress : bool
    name : str
        Of the pass.
    unread : ndarray, bool, shape (n,), optional
        Is set where the embedder knows too little of a source row for its vector to say anything.
    briefly : bool
        Only what concerns many rows is told.

    Returns
    -------
    Matrix, shape (len(rows), d)
    """
    given = given_embeddings(recipe, samples, embeddings)
    if given is not None:
        from datapruner.geometry.blocks import RowView

        return given if len(rows) == len(samples) else RowView(given, rows)
    if samples.layout.name == "image":
        failing = Failing("the image model", rows, collect=recipe.on_error == "drop", refusals=True)
        made = _image_embedding(recipe, samples, rows, store, progress, name, failing)
    else:
        texts = list(own.texts(recipe.embed, None if len(rows) == len(samples) else rows))
        reader = _named_embedder(recipe, store, progress) if embedder is None else embedder
        failing = Failing(EMBEDDER, rows, collect=recipe.on_error == "drop")
        made = _text_embedding(texts, reader, samples, rows, store, progress, name, failing, unread, briefly)
    _leave_out_useless(made, rows, failing)
    # Here, while the rows' source positions are known: later stages count among those that cleaning left.
    for start, stop, block in iter_blocks(made):
        normalise_rows(block, rows[start:stop])
    return made


def _leave_out_useless(made: Matrix, rows: Ints, failing: Failing) -> None:
    """Have rows whose vector says nothing among those that fail, where these are left out."""
    if not failing.collect:
        return
    for start, _, block in iter_blocks(made):
        finite: Flags = np.asarray(np.isfinite(block).all(axis=1))
        for place in np.flatnonzero(~finite | ~block.any(axis=1)).tolist():
            row, said = int(rows[start + place]), "a vector of zeros" if finite[place] else "no finite vector"
            sentence = f"{failing.who} gives {said} for row {row}"
            failing.refuse(start + place, NoNumberError(sentence, row, said))
    failing.end()


def _image_embedding(
    recipe: Recipe,
    samples: Samples,
    rows: Ints,
    store: SignalStore,
    progress: bool,
    name: str,
    failing: Failing,
) -> NDArray[np.float32]:
    model = image_model(recipe)

    def load() -> ImageEmbedder:
        say(f"loading the image model {model}", progress)
        return load_image_embedder(model)

    seeing = Named(load, lambda: opening("image model", model, store.notes, device=None))
    return embed_images(_Images(samples, rows), seeing, store, progress=progress, name=name, failing=failing)


def _text_embedding(
    texts: Sequence[str],
    embedder: Encoder | Named[TokenEmbedder],
    samples: Samples,
    rows: Ints,
    store: SignalStore,
    progress: bool,
    name: str,
    failing: Failing,
    unread: Flags | None = None,
    briefly: bool = False,
) -> NDArray[np.float32]:
    if not isinstance(embedder, Named):
        return embed_with_encoder(texts, embedder, store, progress=progress, name=name, failing=failing)
    vectors, reading = embed_and_tell(texts, embedder, store, progress=progress, name=name, failing=failing)
    _tell_reading(reading, samples, rows, name, briefly)
    if unread is not None:
        unread[rows[_is_unread(reading)]] = True
    return vectors


def _named_embedder(recipe: Recipe, store: SignalStore, progress: bool) -> Named[TokenEmbedder]:
    how: dict[str, Any] = {"pooling": recipe.pooling, "max_length": recipe.embedder_max_length}

    def load() -> TokenEmbedder:
        say(f"loading the embedder {recipe.embedder}", progress)
        return load_text_embedder(recipe.embedder, **how)

    return Named(load, lambda: opening("embedder", recipe.embedder, store.notes, device=None, **how))


def text_embedder(run: Run) -> Encoder | Named[TokenEmbedder] | None:
    """Give what embeds a run's texts, which is opened once for all that is embedded; None where nothing of it is."""
    if run.objects.embedder is not None:
        return run.objects.embedder
    if run.objects.embeddings is not None or run.recipe.has_embeddings or not run.samples.layout.has_text:
        return None
    if run.embedder is None:
        run.embedder = _named_embedder(run.recipe, run.store, run.progress)
    return run.embedder


def measure_sides(run: Run, wanted: frozenset[str]) -> dict[str, Matrix]:
    """Get one vector for each row's prompt, and one for its answer, whatever stands for the whole row.

    Parameters
    ----------
    run : Run
    wanted : frozenset of str
        ``prompt_embedding``, ``response_embedding`` or both.
    """
    embedder = text_embedder(run) or _named_embedder(run.recipe, run.store, run.progress)
    found: dict[str, Matrix] = {}
    sides: list[tuple[Part, str]] = [("prompt", "prompts"), ("response", "answers")]
    for side, called in sides:
        if (signal := f"{side}_embedding") in wanted:
            texts = list(run.own.texts(side, None if run.every else run.rows))
            failing = Failing(EMBEDDER, run.rows, collect=run.recipe.on_error == "drop")
            found[signal] = _text_embedding(
                texts,
                embedder,
                run.samples,
                run.rows,
                run.store,
                run.progress,
                called,
                failing,
                briefly=run.recipe.tells_parts,
            )
            _leave_out_useless(found[signal], run.rows, failing)
    return found


def missing_sides(run: Run) -> int | None:
    """Count the rows that have to be embedded on the side where more are missing; unknown where embedding tells."""
    if run.objects.embedder is not None:
        return None
    named = _named_embedder(run.recipe, run.store, progress=False)
    rows = None if run.every else run.rows
    return max(
        missing_texts(list(run.own.texts(side, rows)), named, run.store) for side in ("prompt", "response")
    )


def missing_vectors(run: Run) -> int | None:
    """Count the rows that have to be embedded; none where vectors are given, unknown where only embedding tells."""
    objects, recipe, samples = run.objects, run.recipe, run.samples
    if objects.embeddings is not None or recipe.has_embeddings or samples.layout.name == "embedding":
        return 0
    if objects.embedder is not None or samples.layout.name == "image":
        return None
    texts = list(run.own.texts(recipe.embed, None if run.every else run.rows))
    return missing_texts(texts, _named_embedder(recipe, run.store, progress=False), run.store)


def _is_unread(reading: NDArray[np.float32]) -> Flags:
    """Mark rows most of whose tokens, but for the two that frame a row, are unknown: their vectors say nothing."""
    return np.asarray(2 * reading[:, 1] > np.maximum(reading[:, 0] - 2, 1))


def _tell_reading(
    reading: NDArray[np.float32], samples: Samples, rows: Ints, name: str, briefly: bool
) -> None:
    """Say how many rows the embedder read in part, or not at all."""
    tokens, read = reading[:, 0], reading[:, 2]
    cut = tokens > read
    if cut.sum() > briefly * MANY * len(rows):
        logger.warning(
            "%s: %s of %s rows are longer than the %s tokens that the embedder reads, and their middle was cut, up to "
            "%.0f %% of a row; %s sets the limit",
            safe_text(name),
            f"{int(cut.sum()):,}",
            f"{len(rows):,}",
            f"{int(read.max()):,}",
            100 * float((1 - read[cut] / tokens[cut]).max()),
            in_words("--embedder-max-length"),
        )
    if (unread := _is_unread(reading)).any():
        first = int(np.argmax(unread))
        logger.warning(
            "%s: %s of %s rows are in a script that the embedder's vocabulary does not hold (%s: %s of %s tokens "
            "unknown): their vectors say next to nothing, and none of them is dropped as a semantic duplicate; name a "
            "model that reads it with %s",
            safe_text(name),
            f"{int(unread.sum()):,}",
            f"{len(rows):,}",
            samples.row_words(int(rows[first])),
            int(reading[first, 1]),
            int(tokens[first]),
            in_words("--embedder"),
        )


def measure_target(run: Run, targets: Sequence[TargetSet]) -> Matrix:
    """Get one vector for each row of the target, task after task, made as those of the rows are.

    Parameters
    ----------
    run : Run
        Of the rows that are chosen from: what is left out of their texts is left out of the target's.
    targets : sequence of TargetSet
    """
    recipe = run.recipe
    found = []
    for target in targets:
        with target.told():
            if vectors_are_given(run) and not has_vectors(recipe, target):
                raise DataPrunerError(
                    "the rows' vectors are given, so its own have to be as well; pass them with --embeddings"
                )
            file, column = target.task.embeddings, recipe.embedding_column
            as_its = recipe.model_copy(
                update={"embeddings": file, "embedding_column": None if file is not None else column}
            )
            found.append(
                measure_embedding(
                    as_its,
                    target.samples,
                    np.arange(len(target.samples), dtype=np.int64),
                    run.store,
                    embedder=text_embedder(run),
                    own=run.own.of(target.samples),
                    progress=run.progress,
                    name=f"embedding {target.task.called}",
                )
            )
    return joined(found)


def vectors_are_given(run: Run) -> bool:
    """Whether the rows' vectors are given: in memory, in a file or in a column."""
    recipe = run.recipe
    given = run.objects.embeddings is not None or bool(recipe.embeddings or recipe.embedding_column)
    return given or run.samples.layout.name == "embedding"


def has_vectors(recipe: Recipe, target: TargetSet) -> bool:
    """Whether a target's own vectors are given."""
    named = target.task.embeddings or recipe.embedding_column
    return bool(named) or target.samples.layout.name == "embedding"


def image_model(recipe: Recipe) -> str:
    """Give the name of the model that sees images, which has no default."""
    if recipe.embedder == "minilm":
        raise DataPrunerError(
            "images need an image model: pass --embedder with its path or hub name, or --embeddings"
        )
    return recipe.embedder


@dataclass(frozen=True)
class _Images:
    """Images read one by one, so that they are never all in memory."""

    samples: Samples
    rows: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Any:
        column = self.samples.layout.columns["image"]
        value = self.samples.dataset[int(self.rows[place])][column]
        if value is None or not hasattr(value, "convert"):
            row = int(self.rows[place])
            raise RowError(f"row {row} has no readable image in column '{column}'", row)
        return value
