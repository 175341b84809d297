"""The recipe: the arguments of a run = the YAML file = what is saved beside the result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from datapruner.arguments import instead_of
from datapruner.errors import DataPrunerError
from datapruner.matching import Match
from datapruner.recipe.formats import FORMAT, HEADER
from datapruner.recipe.places import FILES, PATHS, absolute, is_path, matches, relative
from datapruner.recipe.values import LONG, MASKS, Method, ranges, sentence_of
from datapruner.text import safe_text


class Recipe(BaseModel):
    """Everything that decides a run; the field names are the arguments of :func:`datapruner.prune`.

    Attributes
    ----------
    source, split, columns, layout
        What is read, and how; ``source`` is None for data that was in memory.
    source_content
        The hash of what was read, which a saved result has: whoever runs its recipe on another content is told so. See
        :func:`datapruner.samples.hashing.content_hash`.
    inputs_content
        The same of what else was read: of the rows of ``decontaminate`` and ``target``, and of the bytes of
        ``embeddings``, ``target_embeddings`` and ``divergences``.
    in_memory
        What was given as an object that no recipe can name, so that only :func:`datapruner.prune` with these
        objects makes the result again: ``source``, ``embeddings``, ``embedder``, ``model``, ``pruned_model``,
        ``divergences``, ``scorer NAME``, ``selector NAME``.
    embeddings, embedding_column, embedder, pooling, embedder_max_length, embed
        A file or a column of vectors, or the model that makes them, and from which part of a row.
    similarity_context
        Rows are compared (near and semantic duplicates, leaks, clusters and whatever reads vectors) with their system
        turns and with what many of them share, too. By default both are left out.
    manifold, manifold_dimensions, n_neighbors
        How vectors become the few dimensions that topology and plots are made of; see
        :func:`datapruner.geometry.manifold.manifold`.
    model, adapter, dtype, device, device_map, quantize
        The causal language model that scores rows; see :func:`datapruner.models.load_causal_lm`.
    pruned_model, twins, divergences
        The same model after weights were removed, for scorers that choose data to heal it, see
        :func:`datapruner.models.load_pruned_lm`; whether both are in memory together or run one after the other; or a
        file of what was measured before, a divergence a row.
    max_length, last_turn_only, packing, batch_tokens
        How rows are fed to it; see :class:`datapruner.signals.language_model.LanguageModel`. By default rows are cut
        at the model's own limit, or at 2048 tokens if that is less.
    on_empty
        What becomes of rows whose answer says nothing, and, where a language model scores, of those without a
        supervised token: ``drop`` drops them with that reason, unless they are always kept; ``error`` refuses them;
        ``keep`` ranks them like any other, where there is anything to rank them by.
    tokenizer
        Counts tokens; default: the model's, else the bundled one.
    count_tokens
        Count them even if neither a scorer nor the budget needs them.
    dedup, match, near_threshold, near_ngram, near_numbers, semantic_eps
        Cleaning steps before any scorer. What makes two rows exact duplicates: every byte (``exact``), all but white
        space and Unicode form (``text``; indentation counts in code), or all but case and punctuation too
        (``loose``), see :func:`datapruner.matching.match_form`; whether rows with other numbers are kept apart.
    decontaminate, decontaminate_split, decontaminate_columns, decontaminate_ngram, decontaminate_share
        A test set whose rows must not be in the data.
    target, target_split, target_columns, target_embeddings
        A set that scorers look for the likes of, and a file of its vectors where those of the data are given.
    scorers, scorer, selector
        What is computed, which of them chooses, and with which selector (default: its own).
    keep, keep_tokens, per_group, quotas, always_keep, never_keep
        The budget; the last two are a boolean column or row numbers.
    seed
        Of everything random.
    format
        ``parquet``, ``jsonl`` or ``arrow`` (``save_to_disk``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: str | None = None
    source_content: str | None = None
    inputs_content: dict[str, str] = Field(default_factory=dict)
    in_memory: list[str] = Field(default_factory=list)
    split: str | None = None
    columns: dict[str, str] | None = None
    layout: str | None = None
    embeddings: str | None = None
    embedding_column: str | None = None
    embedder: str = "minilm"
    pooling: Literal["auto", "mean", "last"] = "auto"
    embedder_max_length: int | None = Field(default=None, ge=1)
    embed: Literal["both", "prompt", "response"] = "both"
    similarity_context: bool = False
    manifold: Literal["umap", "pca"] = "umap"
    manifold_dimensions: int = Field(default=2, ge=1)
    n_neighbors: int = Field(default=15, ge=2)
    model: str | None = None
    adapter: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    device: str | None = None
    device_map: str | None = None
    quantize: Literal["4bit", "8bit"] | None = None
    pruned_model: str | None = None
    twins: Literal["together", "in_turn"] = "together"
    divergences: str | None = None
    max_length: int | None = Field(default=None, ge=2)
    last_turn_only: bool = False
    packing: bool = True
    batch_tokens: int | None = Field(default=None, ge=1)
    on_empty: Literal["drop", "error", "keep"] = "drop"
    tokenizer: str | None = None
    count_tokens: bool = False
    dedup: list[Literal["exact", "near", "semantic"]] = Field(default_factory=list)
    match: Match = "text"
    near_threshold: float = Field(default=0.7, gt=0, le=1)
    near_ngram: int = Field(default=3, ge=1, le=1000)
    near_numbers: bool = False
    semantic_eps: float = Field(default=0.05, gt=0, le=2)
    decontaminate: str | None = None
    decontaminate_split: str | None = None
    decontaminate_columns: dict[str, str] | None = None
    decontaminate_ngram: int = Field(default=5, ge=1, le=1000)
    decontaminate_share: float = Field(default=0.5, gt=0, le=1)
    target: str | None = None
    target_split: str | None = None
    target_columns: dict[str, str] | None = None
    target_embeddings: str | None = None
    scorers: list[Method] = Field(default_factory=lambda: [Method(name="concept_complexity")])
    scorer: str | None = None
    selector: Method | None = None
    keep: int | float | None = None
    keep_tokens: int | None = None
    per_group: str | None = None
    quotas: dict[str, int | float] = Field(default_factory=dict)
    always_keep: str | list[int] | None = None
    never_keep: str | list[int] | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    format: Literal["parquet", "jsonl", "arrow"] = "parquet"

    # Relative paths count from here, wherever the process goes later on.
    _folder: str = PrivateAttr(default_factory=os.getcwd)

    def path(self, name: str) -> str | None:
        """Give a field as an absolute path; None where it names no path but a model, a hub dataset or nothing."""
        value = getattr(self, name)
        if value is None or not (name in FILES or is_path(value, self._folder)):
            return None
        return absolute(value, self._folder)

    @property
    def taken_as_it_is(self) -> Recipe:
        """The same of whatever the source and the other inputs hold."""
        return self.model_copy(update={"source_content": None, "inputs_content": {}})

    @property
    def has_embeddings(self) -> bool:
        """Whether vectors are given: in a file, in a column, or in memory."""
        return bool(self.embeddings or self.embedding_column) or "embeddings" in self.in_memory

    def strings(self) -> set[str]:
        """Give every text that it holds, the names of the columns that it reads among them."""

        def within(value: Any) -> Iterator[str]:
            if isinstance(value, str):
                yield value
            elif isinstance(value, dict):
                yield from within(list(value.values()))
            elif isinstance(value, list | tuple):
                for item in value:
                    yield from within(item)

        return set(within(self.model_dump()))

    @property
    def reads(self) -> list[str]:
        """The files and folders that a run of it reads, as the user named them."""
        here = self.located()
        named = [getattr(here, name) for name in PATHS if here.path(name) is not None]
        # A pattern is replaced by what it matches, which may lie anywhere.
        return [found for value in named for found in (matches(value) or [value])]

    def located(self) -> Recipe:
        """Give the recipe as it can be run from here: itself, unless the working folder is another by now."""
        if os.getcwd() == self._folder:  # noqa: PTH109 - compared as it was taken
            return self
        return self.model_copy(update={name: path for name in PATHS if (path := self.path(name)) is not None})

    def pinned(self, revision: str | None) -> Recipe:
        """Add the revision of a hub source, so that the recipe reads the same rows once the hub has others."""
        if revision is None or self.source is None or "@" in self.source or self.path("source") is not None:
            return self
        return self.model_copy(update={"source": f"{self.source}@{revision}"})

    def with_content(self, content: Callable[[], str]) -> Recipe:
        """Add the hash of a named source's content; what was in memory has none that could be looked at again."""
        return self if self.source is None else self.model_copy(update={"source_content": content()})

    def with_source(self, source: Any) -> Recipe:
        """Give the recipe for the same data from another place: a name, or an object."""
        held = [name for name in self.in_memory if name != "source"]
        if not isinstance(source, str | Path):
            gone = {"source": None, "source_content": None}
            return self.model_copy(update={**gone, "in_memory": ["source", *held]})
        value = str(source)
        if is_path(value, os.getcwd()):  # noqa: PTH109
            value = absolute(value, os.getcwd())  # noqa: PTH109
        return self.model_copy(update={"source": value, "in_memory": held})

    def save_yaml(self, folder: Path | None) -> str:
        """Give the recipe as YAML: only what differs from the defaults.

        Parameters
        ----------
        folder : Path or None
            Where it is saved: paths are written relative to it, and always with ``./`` or ``../`` in front. None
            where it leaves the machine: only the paths' last parts are written.
        """
        out = self.model_dump(exclude_defaults=True)
        for name in PATHS:
            path = self.path(name)
            if path is not None:
                out[name] = f"./{Path(path).name}" if folder is None else relative(path, folder)
        for name in MASKS:
            rows = out.get(name)
            if isinstance(rows, list) and len(rows) > LONG:
                out[name] = {"rows": ranges(rows)}
        return HEADER + yaml.safe_dump({"recipe_format": FORMAT, **out}, sort_keys=False, allow_unicode=True)


def make_recipe(**arguments: Any) -> Recipe:
    """Build a recipe from arguments, saying in one sentence what is wrong with them."""
    return checked(arguments, "--{}")


def checked(arguments: dict[str, Any], form: str) -> Recipe:
    """Build it; ``form`` writes the name of a field that a value does not fit."""
    unknown = [name for name in arguments if name not in Recipe.model_fields]
    if unknown:
        raise DataPrunerError(
            f"there is no argument '{safe_text(str(unknown[0]), 60)}'"
            f"{instead_of(str(unknown[0]), Recipe.model_fields)}"
        )
    given = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in arguments.items()
    }
    try:
        return Recipe.model_validate(given)
    except ValidationError as error:
        raise DataPrunerError(sentence_of(error, form)) from error
