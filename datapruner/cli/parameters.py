"""How the command line writes a declared option, and what it makes of what was written."""

from __future__ import annotations

import textwrap
import types
from collections.abc import Callable, Iterable
from inspect import Parameter
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from datapruner.cli.completion import completion
from datapruner.recipe.option import REQUIRED, Declared, Section, declared, without_none

BRIEF = 76
"""Characters of what a shell shows beside a completion; typer wraps it at 80, which no shell expects."""


def picked(section: type[Section], names: str) -> type[Section]:
    """Give some options of a section alone, for a verb that takes no others."""
    chosen = names.split()
    return type(
        section.__name__,
        (section,),
        {
            "__doc__": section.__doc__,
            "__annotations__": {name: section.__annotations__[name] for name in chosen},
        },
    )


def written(kind: Any) -> tuple[Any, Callable[[Any, str], Any] | None]:
    """Give the type as which an option is written, and what makes its value of it, told the option's flag."""
    from datapruner.cli import words

    kind = without_none(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is dict:
        if inner == (str, str):
            return str, words.mapping_of
        make = {float: words.shares_of, int | float: words.quotas_of}
        return list[str], make.get(inner[1], words.columns_of_tasks)
    if origin is list and get_origin(inner[0]) is Literal:
        return list[str], None
    if origin in (Union, types.UnionType):
        if dict[str, str] in inner:
            # The recipe itself reads the names of tasks off what is named as targets.
            return list[str], None if list[str] in inner else words.one_or_of_tasks
        return str, words.amount_of if set(inner) == {int, float} else None
    return (str if origin is Literal else kind), None


def flags_of(one: Declared) -> list[str]:
    """Give the names of an option; a switch that may be turned off as ``--name/--no-name``."""
    if one.option.flags is not None:
        return one.option.flags.split()
    flag = f"--{one.name.rstrip('_').replace('_', '-')}"
    off = without_none(one.type) is bool and one.default is not False
    return [f"{flag}/--no-{flag[2:]}" if off else flag]


def is_argument(one: Declared) -> bool:
    """Whether it is written in its place, without a flag."""
    return bool(one.option.flags) and not str(one.option.flags).startswith("-")


def brief(text: str) -> str:
    """Give the first sentence as a shell shows it beside what it completes: on one line; typer reads rich's markup."""
    first = textwrap.shorten(text.partition(". ")[0], BRIEF, placeholder=" …")
    return first.replace("[", "\\[")


def parameter(one: Declared) -> Parameter:
    """Make what typer reads of an option."""
    kind, _ = written(one.type)
    told: Any
    if is_argument(one):
        told = typer.Argument(metavar=one.option.flags, help=brief(one.option.help))
    else:
        told = typer.Option(
            *flags_of(one), help=brief(one.option.help), min=one.option.least, autocompletion=completion(one)
        )
    default = one.default
    if default is REQUIRED or (is_argument(one) and default is None):
        default = Parameter.empty
    elif isinstance(default, dict):
        default = None
    if default is None or without_none(one.type) is not one.type:
        kind = kind | None
    return Parameter(one.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, told])


def fields_of(options: Iterable[Declared], given: dict[str, Any]) -> dict[str, Any]:
    """Make fields of a recipe of what was written; what was not is left to the recipe."""
    out = {}
    for one in options:
        value = given[one.name]
        _, make = written(one.type)
        if value is not None:
            out[one.name] = value if make is None else make(value, flags_of(one)[0])
    return out


def options_of(sections: Iterable[type[Section]]) -> dict[str, Declared]:
    """Give the options of sections that the command line can write, by name; a later one replaces an earlier."""
    return {one.name: one for section in sections for one in declared(section) if one.option.flags != ""}
