"""Parameters of scorers and selectors: dataclass fields, checked against their annotations however they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.text import did_you_mean, safe_repr, safe_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def check_parameters(method: Any) -> None:
    """Check every field of a scorer or selector, turning numpy numbers into plain ones in place.

    Called by the base classes' ``__post_init__``, so that ``Prototypes(keep="Hard")`` is refused like
    ``--set keep=Hard`` is.

    Raises
    ------
    DataPrunerError
        A value is not what its annotation says.
    """
    from pydantic import ValidationError

    checks = _checks_of(method.__class__)
    for spec in fields(method):
        value = getattr(method, spec.name)
        plain = value.item() if isinstance(value, np.generic) else value
        try:
            checked = checks[spec.name].validate_python(plain)
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise DataPrunerError(
                f"'{method.name}': {spec.name}: {said}, not {safe_repr(value, 80)}"
            ) from error
        object.__setattr__(method, spec.name, checked)


@cache
def _checks_of(cls: Any) -> dict[str, TypeAdapter[Any]]:
    """Give what checks each field of a class; to make it takes longer than many a part takes to run."""
    from pydantic import ConfigDict, TypeAdapter

    hints, config = get_type_hints(cls), ConfigDict(arbitrary_types_allowed=True, strict=True)
    return {spec.name: TypeAdapter(hints[spec.name], config=config) for spec in fields(cls)}


class Parameters:
    """What scorers, selectors and cleaning steps have in common: dataclasses whose fields are their parameters."""

    def __post_init__(self) -> None:
        """Check the parameters' types; a subclass that checks more calls this first."""
        check_parameters(self)

    def parameters(self) -> dict[str, Any]:
        """Give the parameters by name, as they go into a recipe."""
        return {spec.name: getattr(self, spec.name) for spec in fields(self)}  # type: ignore[arg-type]


def build(cls: type[T], name: str, parameters: Mapping[str, Any]) -> T:
    """Build a scorer or selector from parameters by name.

    Raises
    ------
    DataPrunerError
        A parameter it does not have, or a value of the wrong type.
    """
    known = [spec.name for spec in fields(cls)]  # type: ignore[arg-type]
    for parameter in parameters:
        if parameter not in known:
            raise DataPrunerError(
                f"'{name}' has no parameter '{safe_text(parameter, 60)}'.{did_you_mean(parameter, known)} "
                f"It has {', '.join(known) or 'none'}"
            )
    return cls(**parameters)


def one_or_more(given: Any) -> list[Any]:
    """Give a list or tuple as a list, and anything else as a list of one."""
    return list(given) if isinstance(given, list | tuple) else [given]


def as_written(share: float) -> Fraction:
    """Give a share as its decimals say it: 0.15 is 3/20, so that 0.15 of 10 rows is a tie, and 0.3 of 10 is 3."""
    return Fraction(share) if isinstance(share, int) else Fraction(repr(float(share)))
