"""The recipe: the arguments of a run = the YAML file = what is saved beside the result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from datapruner import budget as budgets
from datapruner.arguments import instead_of
from datapruner.errors import DataPrunerError
from datapruner.files.remote import address_of, is_url
from datapruner.recipe.auto import expanded
from datapruner.recipe.formats import FORMAT, HEADER
from datapruner.recipe.model_options import (
    Embedding,
    Judges,
    LanguageModel,
    PrunedModel,
    ReferenceModel,
    Sketches,
)
from datapruner.recipe.option import declared, described
from datapruner.recipe.options import (
    DEFAULT_SCORER,
    SECTIONS,
    Budget,
    Cleaning,
    Lists,
    Output,
    Rows,
    Scoring,
    Source,
    Target,
)
from datapruner.recipe.places import FILES, PATHS, absolute, is_path, matches, relative
from datapruner.recipe.targets import check_tasks, each_source, named_targets, sources_in
from datapruner.recipe.values import LONG, MASKS, Method, ShortMethod, ranges, sentence_of
from datapruner.samples.origins import COLUMN, OF_SOURCE, named_sources
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples


class Recipe(
    Output,
    Lists,
    Budget,
    Scoring,
    Target,
    Cleaning,
    Rows,
    Sketches,
    Judges,
    ReferenceModel,
    PrunedModel,
    LanguageModel,
    Embedding,
    Source,
    BaseModel,
):
    """Everything that decides a run; the field names are the arguments of :func:`datapruner.prune`.

    They are declared in :mod:`datapruner.recipe.options`. The last base is the first in a saved recipe.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # These hold parameters, which are checked here; a field stays in its section's place.
    scorers: list[Method] = Field(default_factory=lambda: [Method(name=DEFAULT_SCORER)])
    selector: Method | None = None
    cleaning: list[ShortMethod] = Field(default_factory=list)

    @field_validator("source", mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        named = named_sources(given)
        return given if named is None else named

    @field_validator("target", mode="before")
    @classmethod
    def _by_task(cls, given: Any) -> Any:
        return named_targets(given)

    @field_validator("sketch_checkpoints", "against", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        listed = [given] if isinstance(given, str | Path) else given
        return (
            [str(one) if isinstance(one, Path) else one for one in listed]
            if isinstance(listed, list | tuple)
            else listed
        )

    @field_validator("sketch_rates", mode="before")
    @classmethod
    def _numbers(cls, given: Any) -> Any:
        return (
            [float(one) for one in given]
            if isinstance(given, list | tuple) and all(isinstance(one, int | float) for one in given)
            else given
        )

    @model_validator(mode="after")
    def _with_tasks(self) -> Recipe:
        check_tasks(self)
        return self

    # Relative paths count from here, wherever the process goes later on.
    _folder: str = PrivateAttr(default_factory=os.getcwd)

    def path(self, name: str) -> str | None:
        """Give a field as an absolute path; None where it names a model, a hub dataset, several paths, or nothing."""
        value = getattr(self, name)
        if not isinstance(value, str) or not self.names_path(name, value):
            return None
        return absolute(value, self._folder)

    def paths(self, name: str) -> list[str]:
        """Give all paths that a field names, absolute: one, or those of its tasks."""
        named = sources_in(getattr(self, name))
        return [absolute(value, self._folder) for value in named if self.names_path(name, value)]

    def names_path(self, name: str, value: str) -> bool:
        """Whether what a field names is a path, and no model or hub dataset."""
        return name in FILES or is_path(value, self._folder)

    def _rewritten(self, name: str, write: Callable[[str], str]) -> Any:
        """Give a field with the absolute path that each of its paths is rewritten; the rest of it as it is."""

        def make(value: str) -> str:
            return write(absolute(value, self._folder)) if self.names_path(name, value) else value

        return each_source(getattr(self, name), make)

    @property
    def taken_as_it_is(self) -> Recipe:
        """The same of whatever the source and the other inputs hold."""
        return self.model_copy(update={"source_content": None, "inputs_content": {}})

    def has(self, field: str) -> bool:
        """Whether an input is given, by name or in memory."""
        return getattr(self, field) is not None or field in self.in_memory

    @property
    def tells_parts(self) -> bool:
        """Whether the default recipe runs, whose summary has a line for each of its parts."""
        return self.without is not None

    @property
    def has_embeddings(self) -> bool:
        """Whether vectors are given: in a file, in a column, or in memory."""
        return bool(self.embeddings or self.embedding_column) or "embeddings" in self.in_memory

    @property
    def budget(self) -> budgets.Budget:
        """What it keeps.

        Raises
        ------
        DataPrunerError
            It names no budget, or one that has no meaning.
        """
        return budgets.Budget(self.keep, self.keep_tokens, self.per_group, self.quotas, self.group_share)

    @property
    def column_of_sources(self) -> str | None:
        """The column that names each row's source; None where there is but one."""
        return (self.source_column or COLUMN) if isinstance(self.source, dict) else None

    def with_budget(self, budget: budgets.Budget) -> Recipe:
        """Give the same with another budget."""
        return self.model_copy(update=budget.fields())

    @property
    def in_full(self) -> Recipe:
        """Itself where it names a scorer; else with all that the default recipe does, written out."""
        if "scorers" in self.model_fields_set:
            return self
        said = self.model_dump(include=self.model_fields_set - {"scorers"})
        held = checked(expanded(said), "{}")
        held._folder = self._folder
        return held

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
        named = [
            value
            for name in PATHS
            for value in sources_in(getattr(here, name))
            if here.names_path(name, value) or is_url(value)
        ]
        # A pattern is replaced by what it matches, which may lie anywhere.
        return [
            found for value in named for found in ([value] if is_url(value) else matches(value) or [value])
        ]

    def located(self) -> Recipe:
        """Give the recipe as it can be run from here: itself, unless the working folder is another by now."""
        if os.getcwd() == self._folder:  # noqa: PTH109 - compared as it was taken
            return self
        return self.model_copy(
            update={name: self._rewritten(name, str) for name in PATHS if self.paths(name)}
        )

    def pinned(self, samples: Samples) -> Recipe:
        """Add the revisions of hub sources, so that the recipe reads the same rows once the hub has others."""

        def with_revision(source: str, revision: str | None) -> str:
            stays = revision is None or "@" in source or self.names_path("source", source)
            return source if stays else f"{source}@{revision}"

        if isinstance(self.source, dict):
            found = {origin.name: with_revision(origin.source, origin.revision) for origin in samples.origins}
            return self.model_copy(update={"source": {**self.source, **found}})
        if not isinstance(self.source, str):
            return self
        return self.model_copy(update={"source": with_revision(self.source, samples.revision)})

    def with_content(self, samples: Samples) -> Recipe:
        """Add the hash of a named source's content, and of each of several; what was in memory has none."""
        if self.source is None:
            return self
        each = {f"{OF_SOURCE}{name}": content for name, content in samples.origin_contents.items()}
        return self.model_copy(
            update={"source_content": samples.content, "inputs_content": {**self._other_inputs, **each}}
        )

    @property
    def _other_inputs(self) -> dict[str, str]:
        """The contents of the inputs beside the source."""
        return {key: value for key, value in self.inputs_content.items() if not key.startswith(OF_SOURCE)}

    def with_source(self, source: Any) -> Recipe:
        """Give the recipe for the same data from another place: a name, or an object."""
        held = [name for name in self.in_memory if name != "source"]
        named = named_sources(source)
        if named is None:
            gone = dict.fromkeys(("source", "source_content", "source_column"))
            left = {"inputs_content": self._other_inputs, "in_memory": ["source", *held]}
            return self.model_copy(update={**gone, **left})
        here = os.getcwd()  # noqa: PTH109
        value = each_source(named, lambda one: absolute(one, here) if is_path(one, here) else one)
        column = self.source_column if isinstance(value, dict) else None
        return self.model_copy(update={"source": value, "source_column": column, "in_memory": held})

    def save_yaml(self, folder: Path | None) -> str:
        """Give the recipe as YAML: what differs from the defaults, and the scorers, without which it would be another.

        Parameters
        ----------
        folder : Path or None
            Where it is saved: paths are written relative to it, and always with ``./`` or ``../`` in front. None
            or an address where it leaves the machine: only the paths' last parts are written.
        """
        held = self.model_dump(exclude_defaults=True)
        held["scorers"] = [method.model_dump(exclude_defaults=True) for method in self.scorers]
        out = {name: held[name] for name in type(self).model_fields if name in held}
        leaves = folder is None or address_of(folder) is not None
        for name in PATHS:
            if self.paths(name):
                out[name] = self._rewritten(
                    name,
                    lambda path: f"./{Path(path).name}" if leaves else relative(path, Path(folder or "")),
                )
        for name in MASKS:
            rows = out.get(name)
            if isinstance(rows, list) and len(rows) > LONG:
                out[name] = {"rows": ranges(rows)}
        return HEADER + yaml.safe_dump({"recipe_format": FORMAT, **out}, sort_keys=False, allow_unicode=True)


Recipe.__doc__ = (
    f"{cleandoc(Recipe.__doc__ or '')}\n\nAttributes\n----------\n"
    f"{described(one for section in SECTIONS for one in declared(section))}\n"
)


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
