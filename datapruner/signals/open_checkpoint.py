"""A checkpoint of the model that reads the rows, opened where one of them has to be measured."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from datapruner.errors import DataPrunerError
from datapruner.models.identity import tokenizer_hash
from datapruner.models.known import Known, Opening, known_model, learn_model, opening
from datapruner.progress import say
from datapruner.signals.language_model.reader import LanguageModel, NamedModel, Reader
from datapruner.signals.models import loading
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.recipe import Recipe
    from datapruner.signals.store import SignalStore


def open_checkpoint(
    recipe: Recipe, store: SignalStore, name: str, adapter: str | None, main: Reader, *, progress: bool = True
) -> Reader:
    """Take a checkpoint: it reads what the model beside it reads, and its adapter is not merged.

    Raises
    ------
    DataPrunerError
        It cannot be had, or reads fewer tokens than the rows have.
    """
    known = known_checkpoint(recipe, store, name, adapter, main)
    return known or _load(recipe, store, name, adapter, main, progress)


def known_checkpoint(
    recipe: Recipe, store: SignalStore, name: str, adapter: str | None, main: Reader
) -> NamedModel | None:
    """Give a checkpoint whose files have been opened before; nothing is opened."""
    known = known_model(_opening(recipe, name, adapter, store))
    if known is None:
        return None
    return NamedModel(
        _read_as(known, main, adapter or name),
        *_fed_as(main),
        lambda: _load(recipe, store, name, adapter, main, True),
        lambda: main.tokenizer,
    )


def _load(
    recipe: Recipe, store: SignalStore, name: str, adapter: str | None, main: Reader, progress: bool
) -> LanguageModel:
    from datapruner.models.loading import load_causal_model

    opened = _opening(recipe, name, adapter, store)
    say(f"loading the checkpoint {adapter or name}", progress)
    model = load_causal_model(name, adapter=adapter, merge=False, **loading(recipe))
    known = learn_model(model, main.tokenizer, probe=False)
    opened.note(asdict(known), _opening(recipe, name, adapter, store))
    return LanguageModel(model, main.tokenizer, *_fed_as(main), known=_read_as(known, main, adapter or name))


def _opening(recipe: Recipe, name: str, adapter: str | None, store: SignalStore) -> Opening:
    return opening("checkpoint", name, store.notes, adapter=adapter, **loading(recipe))


def _fed_as(main: Reader) -> tuple[int, bool, bool, int | None, bool]:
    return main.max_length, main.last_turn_only, main.packing, main.batch_tokens, main.drop_failing


def _read_as(known: Known, main: Reader, name: str) -> Known:
    """Tell of a checkpoint that it has the tokenizer of the model beside it."""
    if known.positions is not None and known.positions < main.max_length:
        raise DataPrunerError(
            f"the checkpoint '{safe_text(name, 200)}' reads {known.positions} tokens and rows are cut at "
            f"{main.max_length}; pass --max-length={known.positions}"
        )
    own = None if main.known is None else main.known.tokenizer
    return replace(known, tokenizer=tokenizer_hash(main.tokenizer) if own is None else own)
