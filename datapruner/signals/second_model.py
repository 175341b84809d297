"""A second model over the same rows: pruned from the first, or a reference for it.

The two are loaded alike, from whatever names a model, and read the same tokens: those of the first one's tokenizer and
template. What is compared differs. A pruned model's predictions are held against the dense one's whole, so that both
run side by side (:mod:`datapruner.signals.language_model.twins`). Of a reference only its own losses are wanted: it
makes a pass of its own, whose records are those that it would leave as ``--model``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.models.identity import tokenizer_hash
from datapruner.models.known import Known, known_model, learn_model
from datapruner.models.tokenizers import load_tokenizer
from datapruner.progress import say
from datapruner.signals.language_model.reader import LanguageModel, NamedModel, Reader
from datapruner.signals.language_model.records import Asked
from datapruner.signals.models import loading, opening_of
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from datapruner.arrays import Ints
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples
    from datapruner.signals.run import Run


@dataclass(frozen=True)
class Second:
    """A place for a second model.

    Attributes
    ----------
    field : str
        Of the recipe, which names it.
    called : str
        In sentences.
    noted : str
        What the note about its opening is filed under; where a first model's is, that note serves both.
    """

    field: str
    called: str
    noted: str


PRUNED = Second("pruned_model", "pruned model", "pruned model")
REFERENCE = Second("reference_model", "reference model", "language model")


def open_second(second: Second, run: Run, reader: Reader) -> LanguageModel:
    """Load the second model that a recipe names, or take the one given: a pair, or a function that makes one.

    Parameters
    ----------
    second : Second
    run : Run
        Names it, or holds it as an object; its store notes what it is, where its files tell.
    reader : LanguageModel or NamedModel
        The first model, which decides how rows are fed.

    Returns
    -------
    LanguageModel
        With its own tokenizer, or None where it came without one.

    Raises
    ------
    DataPrunerError
        It cannot be had, or reads fewer tokens than the rows have.
    """
    from datapruner.models.foreign import checked_pair, runs_code
    from datapruner.models.sizes import positions
    from datapruner.models.twins import load_pruned_lm

    recipe, given, known = run.recipe, getattr(run.objects, second.field), None
    if given is not None:
        pair = given() if callable(given) else given
        model, tokenizer = checked_pair(second.field, *(pair if isinstance(pair, tuple) else (pair,))[:2])
    else:
        name = _named(second, recipe)
        assert name is not None
        opened = opening_of(recipe, second.noted, name, run.store)
        say(f"loading the {second.called} {name}", run.progress)
        model, tokenizer = load_pruned_lm(name, trust_code=run.objects.trust_code, **loading(recipe))
        if not runs_code(name):
            known = learn_model(model, tokenizer, probe=False)
            # As a first model it would need a tokenizer, and the note would be taken to say that there is one.
            if second is PRUNED or tokenizer is not None:
                opened.note(asdict(known), opening_of(recipe, second.noted, name, run.store))
    _check_reach(second, positions(model, tokenizer), reader.max_length)
    return LanguageModel(model, tokenizer, *_as(reader), known=known)


def known_second(
    second: Second, recipe: Recipe, store: SignalStore, given: Any, max_length: int
) -> Known | None:
    """Tell what the second model is, where a name says it and its files have been opened before.

    Raises
    ------
    DataPrunerError
        It reads fewer tokens than the rows have.
    """
    from datapruner.models.foreign import runs_code

    name = _named(second, recipe)
    if given is not None or name is None or runs_code(name):
        return None
    known = known_model(opening_of(recipe, second.noted, name, store))
    if known is not None:
        _check_reach(second, known.positions, max_length)
    return known


def reference_reader(run: Run, reader: Reader) -> Reader:
    """Give a run's reference model as it is fed: with the first model's tokens.

    One that was opened before is opened once a row has to be measured.

    Parameters
    ----------
    run : Run
    reader : LanguageModel or NamedModel
        The first model.

    Raises
    ------
    DataPrunerError
        It cannot be had, has another vocabulary, or is the first model itself.
    """
    recipe, store, given = run.recipe, run.store, run.objects.reference_model

    def load() -> LanguageModel:
        found = open_second(REFERENCE, run, reader)
        own = found.tokenizer
        if own is not None:
            _hold_together(
                store, _tokenizer_hash(reader), tokenizer_hash(own), lambda: (reader.tokenizer, own)
            )
        known = None if found.known is None else replace(found.known, tokenizer=_tokenizer_hash(reader))
        return replace(found, tokenizer=reader.tokenizer, known=known)

    known, name = known_second(REFERENCE, recipe, store, given, reader.max_length), recipe.reference_model
    found: Reader
    if known is None or known.tokenizer is None or name is None:
        found = load()
    else:
        first = _tokenizer_hash(reader)
        _hold_together(store, first, known.tokenizer, lambda: (reader.tokenizer, load_tokenizer(name)))
        found = NamedModel(replace(known, tokenizer=first), *_as(reader), load, lambda: reader.tokenizer)
    if reader.told().identity == found.told().identity:
        raise DataPrunerError(
            "--reference-model is the model of --model itself, so that no token's loss differs; give a better one: "
            "larger, or trained on rows that you trust"
        )
    return found


def pruned_reader(run: Run, reader: Reader) -> Reader:
    """Give a run's pruned model as it is fed alone: with the first model's tokens.

    Raises
    ------
    DataPrunerError
        It cannot be had.
    """
    given, first = run.objects.pruned_model, _tokenizer_hash(reader)

    def load() -> LanguageModel:
        found = open_second(PRUNED, run, reader)
        known = None if found.known is None else replace(found.known, tokenizer=first)
        return replace(found, tokenizer=reader.tokenizer, known=known)

    known = known_second(PRUNED, run.recipe, run.store, given, reader.max_length)
    if known is None:
        return load()
    return NamedModel(replace(known, tokenizer=first), *_as(reader), load, lambda: reader.tokenizer)


def missing_of_reference(run: Run, reader: Reader | None, samples: Samples, rows: Ints) -> int | None:
    """Count the rows that the reference has not read; None of models that were given as objects.

    Parameters
    ----------
    run : Run
    reader : LanguageModel or NamedModel, optional
        The first model, where it is known.
    samples : Samples
    rows : ndarray, int64
    """
    given, store = run.objects, run.store
    if given.reference_model is not None or given.model is not None:
        return None
    if reader is None or reader.known is None or reader.known.tokenizer is None:
        return len(rows)
    known = known_second(REFERENCE, run.recipe, store, None, reader.max_length)
    if known is None:
        return len(rows)
    fed = replace(known, tokenizer=reader.known.tokenizer)
    return Asked("row", fed.identity, fed, reader).missing(samples, rows, store)


def _as(reader: Reader) -> tuple[int, bool, bool, int | None, bool]:
    """Give what decides how a model is fed, to feed another one alike."""
    return (
        reader.max_length,
        reader.last_turn_only,
        reader.packing,
        reader.batch_tokens,
        reader.drop_failing,
    )


def _named(second: Second, recipe: Recipe) -> str | None:
    name: str | None = getattr(recipe, second.field)
    return name


def _tokenizer_hash(reader: Reader) -> str:
    if reader.known is not None and reader.known.tokenizer is not None:
        return reader.known.tokenizer
    return tokenizer_hash(reader.tokenizer)


def _hold_together(
    store: SignalStore, first: str, second: str, tokenizers: Callable[[], tuple[Any, Any]]
) -> None:
    """Refuse a reference that has not the tokens of the model; two tokenizers are compared once."""
    from datapruner.models.twins import check_same_tokens

    about = {"same tokens": [first, second]}
    if first == second or store.notes.get(about) is not None:
        return
    check_same_tokens(
        *tokenizers(),
        "the model and its reference",
        "give a reference of the same family, such as the model's larger sister or what was trained from it",
        more=True,
    )
    store.notes.put(about, {"same": True})


def _check_reach(second: Second, longest: int | None, max_length: int) -> None:
    """Refuse a second model that cannot read what the first one reads."""
    if longest is not None and longest < max_length:
        raise DataPrunerError(
            f"the {second.called} reads {longest} tokens and rows are cut at {max_length}; pass --max-length={longest}"
        )
