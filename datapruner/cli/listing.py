"""What parts say of themselves, for the verbs that list them and for the reference pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import typer

from datapruner.cli.terminal import Line, drawn
from datapruner.errors import DataPrunerError
from datapruner.parts import CLEANING, KINDS, MEASUREMENTS, Kind, available, find
from datapruner.text import safe_text

ROLE = re.compile(r":\w+:`~?([^`]+)`")
SETTERS = {"scorer": "--set", "selector": "--selector-set"}
"""How a part's parameters are set; other kinds' are called parameters."""


def list_names() -> None:
    """Print the names of every kind, a line each."""
    for word, one in KINDS.items():
        names = available(one)
        typer.echo(drawn([[(word, "bold")]]))
        for name, where in names.items():
            plugged = "" if where.startswith(f"{one.package}.") else f" (plug-in: {safe_text(where, 100)})"
            try:
                told = summary(find(one, name))
            except DataPrunerError as error:
                told = f"cannot be used: {error}"
            shown = f"{safe_text(name, 60):<{max(map(len, names))}}"
            typer.echo(drawn([[("  ", ""), (shown, "cyan"), (f"  {told}", ""), (plugged, "dim")]]))
        if not names:
            typer.echo("  none")


def list_parts(kind: Kind) -> None:
    """Print all that the parts of a kind say of themselves; of one that cannot be used, why."""
    for name in available(kind):
        try:
            part = find(kind, name)
        except DataPrunerError as error:
            typer.echo(drawn([[(safe_text(name, 60), "cyan")], [(f"  cannot be used: {error}", "red")]]))
            continue
        lines: list[Line] = [[(safe_text(name, 60), "bold cyan")], [(f"  {summary(part)}", "")]]
        for label, text in facts(kind, part):
            lines.append([(f"  {label:<7} ", "dim"), (safe_text(text, 500), "")])
        typer.echo(drawn(lines))
    if not available(kind):
        typer.echo("none")


def summary(part: Any) -> str:
    """Give the first line of a part's docstring, or its name."""
    first = ((part.__doc__ or "").strip() or part.name).splitlines()[0]
    return safe_text(ROLE.sub(r"\1", first), 200)


def facts(kind: Kind, part: Any) -> Iterator[tuple[str, str]]:
    """Give what a part says of itself, as far as parts of its kind do: labels and texts."""
    made = _with_defaults(part)
    if (needs := getattr(made, "requires", getattr(made, "needs", None))) is not None:
        yield "needs", ", ".join(sorted(needs)) or "nothing"
    for one in part.gives if kind is MEASUREMENTS else ():
        yield "gives", f"{one.name}{'NAME' if one.name.endswith(':') else ''}: {one.described()}"
    if offers := getattr(made, "offers", None):
        yield "holds", ", ".join(sorted(offers))
    if kind is CLEANING:
        yield "drops", ", ".join(reason.many for reason in part.reasons)
        yield "option", part.switch or f"--cleaning {part.name}"
    if (cost := getattr(part, "cost", None)) is not None and cost.seconds:
        yield "costs", f"{cost.seconds:g} s a {cost.of}, about"
    if paper := getattr(part, "paper", ""):
        yield "paper", paper
    if provenance := getattr(part, "provenance", ""):
        yield "is", provenance
    if is_dataclass(part):
        settings = ", ".join(f"{one.name}={_default(one)}" for one in fields(part))
        yield SETTERS.get(kind.noun, "with"), settings or "nothing"
    if kind.noun == "scorer" and not isinstance(made, type):
        yield "default selector", made.selector().name


def _with_defaults(part: Any) -> Any:
    """Make an object of a class, or give the class where it takes more than defaults."""
    if not isinstance(part, type):
        return part
    try:
        return part()
    except (TypeError, DataPrunerError):
        return part


def _default(one: Any) -> str:
    if one.default is not MISSING:
        return str(one.default)
    return str(one.default_factory()) if one.default_factory is not MISSING else "…"
