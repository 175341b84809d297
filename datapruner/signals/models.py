"""The language models of a recipe: opened once a row has to be measured, or known from an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from datapruner.arrays import Ints
from datapruner.models.known import opening
from datapruner.models.names import DEFAULT_TOKENIZER
from datapruner.models.tokenizers import load_tokenizer
from datapruner.progress import say
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from datapruner.models.known import Opening
    from datapruner.recipe import Recipe
    from datapruner.samples.rendered import Rendered
    from datapruner.samples.samples import Samples
    from datapruner.signals.language_model.reader import LanguageModel, NamedModel

    Renderer = Callable[[Samples, Ints], Iterator[Rendered]]


def open_language_model(
    recipe: Recipe, store: SignalStore, given: tuple[Any, Any] | None = None, *, progress: bool = True
) -> LanguageModel | NamedModel:
    """Take the model that a recipe names, or the one given with its tokenizer.

    A named one is loaded now where these files have not been opened before, and else when a row has to be measured.
    """
    if given is not None:
        from datapruner.models.foreign import without_peft
        from datapruner.models.sizes import positions
        from datapruner.signals.language_model.reader import LanguageModel

        model, tokenizer = without_peft("model", given[0]), given[1]
        return LanguageModel(model, tokenizer, _reach(recipe, positions(model, tokenizer)), *_fed(recipe))
    load, known = _named(recipe, store, progress)
    return known or load()


def known_language_model(recipe: Recipe, store: SignalStore) -> NamedModel | None:
    """Give the model that a recipe names where its files have been opened before; nothing is opened."""
    return None if recipe.model is None else _named(recipe, store, progress=False)[1]


def _named(
    recipe: Recipe, store: SignalStore, progress: bool
) -> tuple[Callable[[], LanguageModel], NamedModel | None]:
    """Give what opens the model that a recipe names, and the model itself where it can be told without that."""
    from datapruner.models.known import known_model, learn_model
    from datapruner.models.loading import load_causal_lm
    from datapruner.signals.language_model.reader import LanguageModel, NamedModel

    assert recipe.model is not None
    name = recipe.model

    def load() -> LanguageModel:
        say(f"loading the language model {name}", progress)
        model, tokenizer = load_causal_lm(name, adapter=recipe.adapter, **loading(recipe))
        known = learn_model(model, tokenizer, probe=False)
        opened.note(asdict(known), opening_of(recipe, "language model", name, store))
        return LanguageModel(model, tokenizer, _reach(recipe, known.positions), *_fed(recipe), known=known)

    opened = opening_of(recipe, "language model", name, store)
    known = known_model(opened)
    if known is None:
        return load, None
    reach = _reach(recipe, known.positions)
    return load, NamedModel(known, reach, *_fed(recipe), load, lambda: _tokenizer_of(recipe))


def _fed(recipe: Recipe) -> tuple[bool, bool, int | None, bool]:
    return recipe.last_turn_only, recipe.packing, recipe.batch_tokens, recipe.on_error == "drop"


def _reach(recipe: Recipe, longest: int | None) -> int:
    """Give the tokens after which rows are cut."""
    from datapruner.models.sizes import LONGEST

    wanted = recipe.max_length or LONGEST
    return wanted if longest is None else min(wanted, longest)


def loading(recipe: Recipe) -> dict[str, Any]:
    """Give the options that all language models of a recipe are loaded with."""
    return {name: getattr(recipe, name) for name in ("dtype", "device", "device_map", "quantize")}


def opening_of(recipe: Recipe, kind: str, name: str, store: SignalStore) -> Opening:
    """Describe the opening of one of a recipe's models."""
    adapter = recipe.adapter if kind == "language model" else None
    return opening(kind, name, store.notes, adapter=adapter, **loading(recipe))


def renderer_of(recipe: Recipe) -> Renderer | None:
    """Give what renders rows as the recipe's language model reads them; it loads the tokenizer when it is needed."""
    limit = recipe.max_length
    if recipe.model is None or limit is None:
        return None

    def renderer(samples: Samples, rows: Ints) -> Iterator[Rendered]:
        from datapruner.signals.language_model.reader import LanguageModel

        reader = LanguageModel(None, _tokenizer_of(recipe), limit, recipe.last_turn_only)
        return reader.render(samples, rows)

    return renderer


def _tokenizer_of(recipe: Recipe) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the recipe's language model, or the one that counts tokens without a model."""
    return load_tokenizer(recipe.model or DEFAULT_TOKENIZER, recipe.adapter)
