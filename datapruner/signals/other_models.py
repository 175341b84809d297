"""Numbers that another model gives each row, through the store, in length buckets; rows that it cut are told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError, in_words
from datapruner.models.encoders import Named, TokenEmbedder
from datapruner.models.known import Opening, opening
from datapruner.progress import say
from datapruner.samples.preference import rejected_sides
from datapruner.samples.rendering import CODE_VERSION as RENDERING
from datapruner.signals.embedding import missing_rows, read_and_tell
from datapruner.signals.failing import Failing, NoNumberError
from datapruner.signals.language_model.memory import is_out_of_memory
from datapruner.signals.language_model.records import fed_content
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.models.classifiers.reading import Numbered
    from datapruner.recipe import Recipe
    from datapruner.signals.grading import Grading
    from datapruner.signals.run import Run
    from datapruner.signals.store import SignalStore

logger = logging.getLogger(__name__)

LOADING = ("dtype", "device", "device_map", "quantize")
"""What a causal language model is loaded with, of a recipe."""


def named_reader(
    kind: str, name: str | None, store: SignalStore, load: Callable[[], TokenEmbedder], **about: Any
) -> Named[TokenEmbedder]:
    """Give a model that is opened once a row is missing; one without a name is open already.

    Parameters
    ----------
    kind : str
        What it is called.
    name : str, optional
    store : SignalStore
    load : callable
    **about
        All that it is opened with.
    """

    def opened() -> Opening:
        return Opening(None, store.notes) if name is None else opening(kind, name, store.notes, **about)

    return Named(load, opened)


def classifier_of(recipe: Recipe, store: SignalStore, given: Any, *, progress: bool) -> Named[TokenEmbedder]:
    """Give the classifier that a recipe names, or the one given with its tokenizer."""
    name = recipe.classifier
    how: dict[str, Any] = {"reads": recipe.classifier_reads, "max_length": recipe.classifier_max_length}
    place = {key: getattr(recipe, key) for key in ("dtype", "device", "device_map")}

    def load() -> TokenEmbedder:
        from datapruner.models.classifiers.loading import load_classifier, opened_classifier

        if given is not None:
            model, tokenizer = given
            return opened_classifier("given", model, tokenizer, probe=True, **how)
        assert name is not None
        say(f"loading the classifier {name}", progress)
        return load_classifier(name, **how, **place)

    return named_reader("classifier", None if given is not None else name, store, load, **how, **place)


def judge_of(
    recipe: Recipe,
    store: SignalStore,
    given: Any,
    grading: Grading,
    opened: Callable[[], tuple[Any, Any]],
) -> Named[TokenEmbedder]:
    """Give the judge that a recipe names, or the one given, as it is asked one question; ``opened`` gives the pair."""
    name, length = recipe.judge, recipe.judge_max_length

    def load() -> TokenEmbedder:
        from datapruner.signals.language_model.judging import opened_judge

        called = "given" if given is not None else str(name)
        return opened_judge(called, *opened(), grading, max_length=length, probe=given is not None)

    how = {key: getattr(recipe, key) for key in LOADING}
    asked = {"asked": grading.signal, "max_length": length}
    return named_reader("judge", None if given is not None else name, store, load, **asked, **how)


def open_judge(recipe: Recipe, given: Any, *, progress: bool) -> tuple[Any, Any]:
    """Load the judge that a recipe names, or take the one given; a model and its tokenizer."""
    from datapruner.models.loading import load_causal_lm

    if given is not None:
        return given[0], given[1]
    assert recipe.judge is not None
    say(f"loading the judge {recipe.judge}", progress)
    return load_causal_lm(recipe.judge, **{key: getattr(recipe, key) for key in LOADING})


@dataclass(frozen=True)
class Reading:
    """What a model is to read.

    Attributes
    ----------
    contents : callable
        Gives what each one's key is made from.
    take : callable
        Places -> the source rows and what is read of them.
    rows : ndarray, int64, shape (m,)
        The source row of each.
    """

    contents: Callable[[], Iterator[bytes]]
    take: Callable[[Ints], list[Numbered]]
    rows: Ints


def of_rows(run: Run) -> Reading:
    """Read a run's rows."""

    def take(places: Ints) -> list[Numbered]:
        rows = run.rows[places]
        return list(zip(rows.tolist(), run.samples.iter_samples(rows, identity=False), strict=True))

    def contents() -> Iterator[bytes]:
        return map(fed_content, run.samples.iter_samples(run.rows, identity=False))

    return Reading(contents, take, run.rows)


def of_rejected(run: Run) -> tuple[Reading, Ints]:
    """Read a run's rows with their rejected answers in place of the chosen one, and tell where each row's begin."""
    flat, counts = rejected_sides(run.samples.iter_rows(run.rows))
    rows = np.repeat(run.rows, counts)

    def take(places: Ints) -> list[Numbered]:
        return [(int(rows[place]), flat[place]) for place in places.tolist()]

    return Reading(lambda: map(fed_content, flat), take, rows), np.cumsum(counts) - counts


def read_with(
    reader: Named[TokenEmbedder], run: Run, reading: Reading, called: str, length: str
) -> NDArray[np.float32]:
    """Have a model read something of a run's rows.

    Parameters
    ----------
    reader : Named
    run : Run
    reading : Reading
    called : str
        In messages, and the name of the signal in keys.
    length : str
        The option that sets how many tokens it reads.

    Returns
    -------
    ndarray, float32, shape (m, outputs)

    Raises
    ------
    DataPrunerError
        Memory runs out, or something of a row cannot be read.
    """
    failing = Failing(f"the {called}", reading.rows, collect=run.recipe.on_error == "drop")
    try:
        values, told = read_and_tell(
            reading.contents,
            reading.take,
            reader,
            run.store,
            signal=f"{called} {RENDERING}",
            batch_tokens=run.recipe.batch_tokens,
            progress=run.progress,
            name=called,
            failing=failing,
        )
    except Exception as error:
        if isinstance(error, DataPrunerError) or not is_out_of_memory(error):
            raise
        raise DataPrunerError(
            f"memory does not suffice for the {called}'s batches; pass a smaller --batch-tokens, or a smaller {length}"
        ) from error
    _tell_cut(told, called, length)
    for place in np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist():
        said, row = "no finite numbers", int(reading.rows[place])
        way_out = "load it in another --dtype, or look at its weights"
        failing.refuse(place, NoNumberError(f"the {called} gives {said} for row {row}; {way_out}", row, said))
    failing.end()
    return values


def missing_with(reader: Named[TokenEmbedder], run: Run, reading: Reading, called: str) -> int:
    """Count what it has not read."""
    return missing_rows(
        reading.contents,
        reader,
        run.store,
        signal=f"{called} {RENDERING}",
        batch_tokens=run.recipe.batch_tokens,
    )


def _tell_cut(reading: NDArray[np.float32], called: str, length: str) -> None:
    """Say how many rows were longer than what it reads."""
    tokens, read = reading[:, 0], reading[:, 2]
    cut = tokens > read
    if cut.any():
        logger.warning(
            "%s: %s of %s rows are longer than the %s tokens that it reads, and their middle was cut, up to %.0f %% of "
            "a row; %s sets the limit",
            safe_text(called),
            f"{int(cut.sum()):,}",
            f"{len(cut):,}",
            f"{int(read.max()):,}",
            100 * float((1 - read[cut] / tokens[cut]).max()),
            in_words(length),
        )
