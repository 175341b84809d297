"""What a recipe can hold, and what is wrong with what it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from datapruner.errors import DataPrunerError
from datapruner.text import safe_repr

MASKS = ("always_keep", "never_keep")


LONG = 1000
"""A longer list of rows is saved as ranges."""


class Method(BaseModel):
    """A scorer or a selector with its parameters, which are plain values: a recipe has to hold them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)

    @field_validator("parameters", mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):  # which is said of it
            return given
        return {key: plain(value, f"the parameter '{key}'") for key, value in given.items()}


def _from_short(given: Any) -> Any:
    """Read ``name`` and ``{name: {parameter: value}}``; what is neither is left as it is."""
    if isinstance(given, str):
        return {"name": given}
    if isinstance(given, Mapping) and len(given) == 1 and "name" not in given:
        ((name, parameters),) = given.items()
        return {"name": name, "parameters": {} if parameters is None else parameters}
    return given


ShortMethod = Annotated[Method, BeforeValidator(_from_short)]
"""A method that may be written as its name, too."""


def method_of(name: str, parameters: Mapping[str, Any], *, named: bool) -> Method:
    """Describe a scorer or selector.

    Parameters
    ----------
    name : str
    parameters : mapping
    named : bool
        A recipe can build it again by its name. Of any other object, what no recipe can hold is left out.

    Raises
    ------
    DataPrunerError
        A parameter that no recipe can hold.
    """
    held = {}
    for key, value in parameters.items():
        try:
            held[key] = plain(value, f"'{name}': {key}")
        except DataPrunerError:
            if named:
                raise
    return Method(name=name, parameters=held)


def plain(value: Any, what: str) -> Any:
    """Turn numpy's values and tuples into what YAML holds.

    Raises
    ------
    DataPrunerError
        It is an object that YAML cannot hold; ``what`` is its name in the sentence.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {plain(key, what): plain(part, what) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part, what) for part in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise DataPrunerError(
        f"{what} is {safe_repr(value)}, which no recipe can hold; give text, numbers, lists or mappings"
    )


def ranges(rows: list[int]) -> str:
    """Write row numbers as ``0-99,105``."""
    array = np.unique(np.asarray(rows, dtype=np.int64))
    ends = np.flatnonzero(np.diff(array) != 1)
    first, last = array[np.r_[0, ends + 1]].tolist(), array[np.r_[ends, len(array) - 1]].tolist()
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(first, last, strict=True))


def sentence_of(error: ValidationError, form: str) -> str:
    """Say what is wrong with the first value that does not fit; ``form`` writes the name of its field."""
    first = error.errors()[0]
    field, *inside = (
        str(part) for part in first["loc"] if not str(part).startswith(("function-", "constrained"))
    )
    # A union's members and the parts of a mapping are no options of their own.
    where = ".".join([field, *inside]) if field in ("scorers", "selector", "cleaning") else field
    name = form.format(where.replace("_", "-")) if form != "{}" and where == field else where
    return f"{safe_repr(first.get('input'))} is no value for {name}: {first['msg']}"
