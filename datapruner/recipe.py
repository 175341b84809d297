"""The recipe: the arguments of a run = the YAML file = what is saved beside the result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datapruner.errors import DataPrunerError
from datapruner.models.offline import MODELS
from datapruner.paths import exists, expanded
from datapruner.text import did_you_mean, safe_text

T = TypeVar("T")
PATHS = ("source", "embeddings", "decontaminate", "embedder", "tokenizer")
"""Fields that may be paths; they are saved relative to the recipe's own folder."""


class Method(BaseModel):
    """A scorer or a selector with its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class Recipe(BaseModel):
    """Everything that decides a run; the field names are the arguments of :func:`datapruner.prune`.

    Attributes
    ----------
    source, split, columns, layout
        What is read, and how; ``source`` is None for data that was in memory.
    embeddings, embedder, pooling, max_length, embed
        A file of vectors, or the model that makes them, and from which part of a row.
    tokenizer
        Counts tokens; default: the bundled one.
    dedup, near_threshold, near_ngram, semantic_eps
        Cleaning steps before any scorer.
    decontaminate, decontaminate_split, decontaminate_ngram, decontaminate_share
        A test set whose rows must not be in the data.
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
    split: str | None = None
    columns: dict[str, str] | None = None
    layout: str | None = None
    embeddings: str | None = None
    embedder: str = "minilm"
    pooling: Literal["auto", "mean", "last"] = "auto"
    max_length: int | None = Field(default=None, ge=1)
    embed: Literal["both", "prompt", "response"] = "both"
    tokenizer: str | None = None
    dedup: list[Literal["exact", "near", "semantic"]] = Field(default_factory=list)
    near_threshold: float = Field(default=0.7, gt=0, le=1)
    near_ngram: int = Field(default=3, ge=1)
    semantic_eps: float = Field(default=0.05, gt=0, le=2)
    decontaminate: str | None = None
    decontaminate_split: str | None = None
    decontaminate_ngram: int = Field(default=5, ge=1)
    decontaminate_share: float = Field(default=0.5, gt=0, le=1)
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

    @property
    def reads(self) -> list[str]:
        """The paths that a run of it reads."""
        named = (getattr(self, name) for name in PATHS)
        return [value for value in named if value is not None and _is_path(value)]

    def save_yaml(self, folder: Path) -> str:
        """Give the recipe as YAML to be saved in ``folder``: only what differs from the defaults."""
        plain = self.model_dump(exclude_defaults=True)
        for name in PATHS:
            value = plain.get(name)
            if isinstance(value, str) and _is_path(value):
                plain[name] = os.path.relpath(expanded(Path(value)).absolute(), folder.absolute())
        return "# datapruner run recipe.yaml\n" + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def make_recipe(**arguments: Any) -> Recipe:
    """Build a recipe from arguments, saying in one sentence what is wrong with them."""
    unknown = [name for name in arguments if name not in Recipe.model_fields]
    if unknown:
        raise DataPrunerError(
            f"there is no argument '{safe_text(str(unknown[0]), 60)}'."
            f"{did_you_mean(str(unknown[0]), Recipe.model_fields)}"
        )
    try:
        return Recipe.model_validate(arguments)
    except ValidationError as error:
        raise DataPrunerError(_sentence(error)) from error


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; its relative paths count from its own folder.

    Raises
    ------
    DataPrunerError
        The file is missing, is not YAML, or holds something a recipe does not know.
    """
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataPrunerError(f"there is no recipe {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataPrunerError(f"the recipe {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise DataPrunerError(f"the recipe {path} is not valid YAML{where}") from error
    if not isinstance(plain, dict):
        raise DataPrunerError(f"the recipe {path} must hold names and values")
    for name in PATHS:
        value = plain.get(name)
        if isinstance(value, str) and (_is_path(path.parent / value) or value.startswith((".", ".."))):
            plain[name] = os.path.normpath(path.parent / value)
    try:
        return make_recipe(**{str(key): value for key, value in plain.items()})
    except DataPrunerError as error:
        raise DataPrunerError(f"the recipe {path}: {error}") from error


def _is_path(value: str | Path) -> bool:
    text = str(value)
    if text in MODELS:  # an alias stays one, whatever lies beside it
        return False
    return exists(expanded(Path(text))) or any(mark in text for mark in "*?[")


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(
        str(part) for part in first["loc"] if not str(part).startswith(("function-", "constrained"))
    )
    return f"{where}: {first['msg']}, not {safe_text(repr(first.get('input')), 80)}"
