"""The help: what a verb takes, by section; in colours on a terminal, as plain text for everything else."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from datapruner.cli.parameters import flags_of, is_argument
from datapruner.cli.terminal import WIDEST, Line, drawn, is_styled
from datapruner.errors import flags, in_words
from datapruner.recipe.option import REQUIRED, Declared, values_of, without_none

TYPES = {int: "NUMBER", float: "NUMBER"}
"""What stands for a value of a type in the help, where the option does not say."""
NARROWEST = 50
NO_BREAK = "\xa0"
BRACKET = "\u2060["
"""Begins what is told of a value; nothing else has the mark before it, which is not shown."""
LEFT = 28
"""Columns of the options' names at most."""


class Row(NamedTuple):
    """One line of the help."""

    names: str
    value: str
    told: str
    more: str = ""
    """The default, the values: what is told of a value in brackets."""


Sections = Mapping[str, Sequence[Row]]


def row_of(one: Declared) -> Row:
    """Tell an option."""
    more = []
    values = values_of(one.type)
    told = in_words(one.option.help)
    if not all(re.search(rf"\b{re.escape(value)}\b", told) for value in values):
        more.append("|".join(values))
    if one.default is REQUIRED:
        more.append("required")
    elif default := _default(one.default):
        more.append(f"default:{NO_BREAK}{default}")
    kind = without_none(one.type)
    value = one.option.metavar or TYPES.get(kind, "" if kind is bool else one.name.upper())
    if is_argument(one):
        return Row(str(one.option.flags), "", told, "; ".join(more))
    return Row(_names(flags_of(one)), value, told, "; ".join(more))


def _names(found: Sequence[str]) -> str:
    """Write a short name first; of a switch, how it is turned on or off."""
    return ", ".join(name.replace("/", " / ") for name in sorted(found, key=len))


def _default(value: Any) -> str:
    if value is None or value is False or value == "" or (isinstance(value, list | dict) and not value):
        return ""
    if value is True:
        return "on"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def of_verb(
    path: str, text: str, options: Collection[Declared], hidden: Collection[str], *, everything: bool
) -> str:
    """Give the help of a verb.

    Parameters
    ----------
    path : str
        The words that call it.
    text : str
        What it does.
    options : collection of Declared
    hidden : collection of str
        The names of those that are shown where everything is.
    everything : bool
    """
    with flags():
        held = {"Arguments": [row_of(one) for one in options if is_argument(one)]}
        for one in options:
            if not is_argument(one) and (everything or one.name not in hidden):
                held.setdefault(one.title, []).append(row_of(one))
        needed = [row_of(one) for one in options if one.default is REQUIRED or is_argument(one)]
    held["Help"] = [Row("--help", "", "Show this.")]
    if hidden:
        held["Help"].append(Row("--help-all", "", f"Show all {len(options)} options, by section."))
    usage = " ".join([path, *(_left(row).rpartition(", ")[2] for row in needed), "[OPTIONS]"])
    return page(usage, text, held)


def of_all(path: str, text: str, groups: Mapping[str, Mapping[str, str]], options: Iterable[Row]) -> str:
    """Give the help of the program: its verbs by group, with what each does."""
    held = {title: [Row(name, "", told) for name, told in verbs.items()] for title, verbs in groups.items()}
    held["Options"] = [*options]
    return page(f"{path} VERB [OPTIONS]", f"{text}\n\n`{path} VERB --help` says more of a verb.", held)


def page(usage: str, text: str, held: Sections) -> str:
    """Draw it, as what looks at it can show."""
    held = {title: rows for title, rows in held.items() if rows}
    styled = is_styled()
    width = max(min(shutil.get_terminal_size((80, 24)).columns, WIDEST), NARROWEST)
    lines: list[Line] = [
        [(part, "")] for part in textwrap.wrap(f"Usage: {usage}", width, subsequent_indent=" " * 7)
    ]
    for paragraph in ("", *text.splitlines()):
        lines += [[(f"  {part}".rstrip(), "")] for part in _wrapped(paragraph, width - 2)]
    column = min(max(len(_left(row)) for rows in held.values() for row in rows), LEFT) + 4
    for title, rows in held.items():
        lines += [[], [(title if styled else f"{title}:", "bold")]]
        for row in rows:
            lines += _lines(row, column, width)
    return drawn(lines)


def _left(row: Row) -> str:
    return f"{row.names} {row.value}".rstrip()


def _wrapped(line: str, width: int) -> list[str]:
    """Wrap a line; an example of a command stays as it is."""
    return [f"  {line}"] if line.startswith("datapruner ") else textwrap.wrap(line, width) or [""]


def _lines(row: Row, column: int, width: int) -> list[Line]:
    """Write an option: its names, and beside them, or below those that are too long, what it does."""
    more = f"  {BRACKET}{row.more}]" if row.more else ""
    told = textwrap.wrap(row.told + more, width - column, break_on_hyphens=False, break_long_words=False)
    names: Line = [("  ", ""), (row.names, "cyan"), (" " * bool(row.value), ""), (row.value, "green")]
    left = len(_left(row)) + 2
    out = [names] if left > column - 2 else []
    style = ""
    for number, part in enumerate(told):
        start: Line = [(" " * column, "")] if number or out else [*names, (" " * (column - left), "")]
        before, mark, after = part.replace(NO_BREAK, " ").partition(BRACKET)
        out.append([*start, (before, style), (mark[1:] + after, "dim")])
        style = "dim" if mark else style
    return out
