"""What an option is: a field of a section, with all that is said of it."""

from __future__ import annotations

import textwrap
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from datapruner.errors import in_words


@dataclass(frozen=True)
class Option:
    """What is said of a field, once: for the command line, its help, the reference and Python's help.

    Attributes
    ----------
    help : str
        A sentence or two; other options are named as ``--keep-tokens``, which every reader sees in his own words.
    flags : str
        How the command line writes it, where that is not ``--`` and the field's name: ``"--out -o"``, or the bare
        name in capitals of an argument that takes its place. Empty where the command line has no way to write it.
    python : str
        What Python takes beside it, which neither a command line nor a recipe can hold.
    metavar : str
        What stands for its value in the help.
    complete : str
        What a shell completes it with: a kind of part (``scorers``, ``selectors``), ``models`` for the bundled ones,
        or else the values of its type, or files.
    least : int, optional
        The smallest value, of an option of the command line alone; a recipe checks its own fields.
    """

    help: str
    flags: str | None = None
    python: str = ""
    metavar: str = ""
    complete: str = ""
    least: int | None = None


class Section:
    """Options that belong together; the first line of its docstring is their title, without the full stop.

    A plain class, so that the command line knows its options without what a recipe needs to be checked.
    """


class Declared(NamedTuple):
    """An option as it was declared."""

    name: str
    type: Any
    """Its type, without what was said of it."""
    default: Any
    option: Option
    title: str
    """Of its section."""


REQUIRED: Any = ...
"""The default of an option that must be given."""


def title_of(section: type[Section]) -> str:
    """Give the title of a section."""
    return (section.__doc__ or "").partition("\n")[0].rstrip(".")


def declared(section: type[Section]) -> Iterator[Declared]:
    """Give the options of a section, in their order."""
    for name, annotation in section.__annotations__.items():
        kind, *told = get_args(annotation)
        option = next(one for one in told if isinstance(one, Option))
        yield Declared(name, kind, getattr(section, name, REQUIRED), option, title_of(section))


def described(options: Iterable[Declared]) -> str:
    """Describe options as numpydoc does, for Python's help."""
    told = {one.name: f"{one.option.help} {one.option.python}".rstrip() for one in options}
    lines = {name: textwrap.wrap(in_words(text), 110) for name, text in told.items()}
    return "\n".join("\n    ".join([name, *parts]) for name, parts in lines.items())


def without_none(kind: Any) -> Any:
    """Give a type without None; of several others, their union."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    held = tuple(one for one in get_args(kind) if one is not type(None))
    return held[0] if len(held) == 1 else Union[held]  # noqa: UP007 - made of what is only known now


def values_of(kind: Any) -> tuple[str, ...]:
    """Give the values among which an option chooses, if it does."""
    kind = without_none(kind)
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
    return get_args(kind) if get_origin(kind) is Literal else ()
