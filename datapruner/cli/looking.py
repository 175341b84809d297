"""The verbs that only show: explain, inspect, scorers, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from datapruner.cli.app import app
from datapruner.cli.options import (
    Columns,
    Layout,
    Source,
    Split,
    takes_limits,
)
from datapruner.cli.summary import width
from datapruner.cli.words import pair_of
from datapruner.errors import DataPrunerError


@app.command()
@takes_limits
def explain(
    out: Annotated[Path, typer.Argument(help="Folder that prune, select, run or score wrote.")],
    row: Annotated[int | None, typer.Option(help="Row of the source dataset, counted from 0.")] = None,
    match: Annotated[
        str | None, typer.Option(help="Find the row by a text that it holds, whatever its case.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Find the row by a column's value: id=abc; may be repeated.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Show the row too; the source is read again.")] = False,
    scorer: Annotated[str | None, typer.Option(help="Of scores by several scorers: whose rank.")] = None,
) -> None:
    """Say why a row was kept or dropped."""
    from datapruner.cli.explaining import explain_row, explain_rows

    given = None if where is None else dict(pair_of(one, "--where") for one in where)
    if row is not None and (match is not None or given):
        raise DataPrunerError("name the row by its number, or find it by --match and --where, not both")
    if row is None:
        lines = explain_rows(out, match, given, text=text, scorer=scorer, width=width())
    else:
        lines = explain_row(out, row, text=text, scorer=scorer, width=width())
    typer.echo("\n".join(lines))


@app.command()
@takes_limits
def inspect(
    source: Source,
    split: Split = None,
    columns: Columns = None,
    layout: Layout = None,
    examples: Annotated[int, typer.Option(help="Rows to show.")] = 3,
) -> None:
    """Show how a dataset will be read: layout, examples, lengths, nulls, duplicates."""
    from datapruner.samples import inspect_samples, load_samples, parse_mapping, render_text

    samples = load_samples(
        source, split=split, columns=parse_mapping(columns) if columns else None, layout=layout
    )
    typer.echo(render_text(inspect_samples(samples, examples=examples), width=width()))


@app.command()
def scorers() -> None:
    """List the scorers: what they need, where they come from, what of them is ours."""
    from dataclasses import fields

    from datapruner.scorers import available_scorers, scorer_class

    for name in available_scorers():
        cls = scorer_class(name)
        typer.echo(f"{name}\n  {(cls.__doc__ or name).strip().splitlines()[0]}")
        typer.echo(f"  needs   {', '.join(sorted(cls().requires)) or 'nothing'}")
        typer.echo(f"  paper   {cls.paper}\n  is      {cls.provenance}")
        settings = ", ".join(f"{spec.name}={getattr(cls(), spec.name)}" for spec in fields(cls))
        typer.echo(f"  --set   {settings or 'nothing'}")
        typer.echo(f"  default selector {cls().selector().name}")


@app.command()
def doctor() -> None:
    """Show versions, threads, the cache, and which bundled models are here."""
    from datapruner.doctor import report

    typer.echo(report())
