"""The help: what a verb takes, by section; in colours on a terminal, as plain text for everything else."""

from __future__ import annotations

import io
import re
import shutil
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from datapruner.cli.parameters import flags_of, is_argument
from datapruner.cli.terminal import WIDEST, is_styled
from datapruner.errors import flags, in_words
from datapruner.recipe.option import REQUIRED, Declared, values_of, without_none

TYPES = {int: "NUMBER", float: "NUMBER"}
"""What stands for a value of a type in the help, where the option does not say."""
LEFT = 34
"""Columns of the options' names at most."""


NO_BREAK = "\xa0"


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
        more.append(f"default: {default}")
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


def of_verb(path: str, text: str, options: Collection[Declared], hidden: Collection[str]) -> str:
    """Give the help of a verb.

    Parameters
    ----------
    path : str
        The words that call it.
    text : str
        What it does.
    options : collection of Declared
    hidden : collection of str
        The names of those that are not shown.
    """
    with flags():
        held = {"Arguments": [row_of(one) for one in options if is_argument(one)]}
        for one in options:
            if not is_argument(one) and one.name not in hidden:
                held.setdefault(one.title, []).append(row_of(one))
        needed = [row_of(one) for one in options if one.default is REQUIRED or is_argument(one)]
    held["Help"] = [Row("--help", "", "Show this.")]
    if hidden:
        held["Help"].append(Row("--help-all", "", f"Show all {len(options)} options, by section."))
    usage = " ".join([path, *(_left(row).rpartition(", ")[2] for row in needed), "[OPTIONS]"])
    return drawn(usage, text, held)


def of_all(path: str, text: str, groups: Mapping[str, Mapping[str, str]], options: Iterable[Row]) -> str:
    """Give the help of the program: its verbs by group, with what each does."""
    held = {title: [Row(name, "", told) for name, told in verbs.items()] for title, verbs in groups.items()}
    held["Options"] = [*options]
    return drawn(f"{path} VERB [OPTIONS]", f"{text}\n\n`{path} VERB --help` says more of a verb.", held)


def drawn(usage: str, text: str, held: Sections) -> str:
    """Draw it, as what looks at it can show."""
    held = {title: rows for title, rows in held.items() if rows}
    shown = (_styled if is_styled() else _plain)(usage, text, held)
    return re.sub(r" +(?=\n)", "", shown).replace(NO_BREAK, " ")


def _column(held: Sections) -> int:
    """Give the width of the options' names, one for all sections."""
    return min(max(len(_left(row)) for rows in held.values() for row in rows), LEFT)


def _left(row: Row) -> str:
    return f"{row.names} {row.value}".rstrip()


def _right(row: Row) -> str:
    # What is in brackets is not broken between lines.
    return row.told + f"  [{row.more}]".replace(" ", NO_BREAK) if row.more else row.told


def _plain(usage: str, text: str, held: Sections) -> str:
    width = max(min(shutil.get_terminal_size((80, 24)).columns, WIDEST), 50)
    lines = textwrap.wrap(f"Usage: {usage}", width, subsequent_indent=" " * 7)
    lines += [
        "",
        *(textwrap.indent(line, "  ") for part in text.splitlines() for line in _wrapped(part, width - 2)),
    ]
    column = _column(held) + 4
    for title, rows in held.items():
        lines += ["", f"{title}:"]
        for row in rows:
            left = f"  {_left(row)}"
            if len(left) > column - 2:
                lines.append(left)
                left = ""
            lines += textwrap.wrap(
                _right(row),
                width,
                initial_indent=left.ljust(column),
                subsequent_indent=" " * column,
                break_on_hyphens=False,
                break_long_words=False,
            )
    return "\n".join(lines)


def _wrapped(line: str, width: int) -> list[str]:
    """Wrap a line; an example of a command stays as it is."""
    return [f"  {line}"] if line.startswith("datapruner ") else textwrap.wrap(line, width) or [""]


def _styled(usage: str, text: str, held: Sections) -> str:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from datapruner.cli.terminal import console

    screen = console()
    screen.file = io.StringIO()
    screen.print(Text.assemble(("Usage: ", "bold"), usage))
    lines = "\n".join(line for part in text.splitlines() for line in _wrapped(part, screen.width - 2))
    screen.print(Padding(Text(lines), (1, 0, 0, 2)))
    for title, rows in held.items():
        screen.print(Text(f"\n{title}", style="bold"))
        table = Table.grid(padding=(0, 2))
        table.add_column(width=_column(held))
        table.add_column()
        for row in rows:
            left = Text.assemble((row.names, "cyan"), " " * bool(row.value), (row.value, "green"))
            right = Text(row.told)
            if row.more:
                right.append(f"  [{row.more}]".replace(" ", NO_BREAK), "dim")
            table.add_row(left, right)
        screen.print(Padding(table, (0, 0, 0, 2)))
    return screen.file.getvalue().rstrip("\n")
