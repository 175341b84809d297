"""``datapruner explain``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from pathlib import Path
from typing import Annotated

import typer

from datapruner.cli.beside_recipe import LIMITS
from datapruner.cli.terminal import width
from datapruner.cli.verb import verb
from datapruner.cli.words import pair_of
from datapruner.errors import DataPrunerError
from datapruner.recipe.option import Option, Section


class Which(Section):
    """Which row."""

    out: Annotated[Path, Option("Folder that prune, select, run or score wrote.", "OUT")]
    row: Annotated[int | None, Option("Row of the source dataset, counted from 0.")] = None
    match: Annotated[
        str | None, Option("Find the row by a text that it holds, whatever its case.", metavar="TEXT")
    ] = None
    where: Annotated[
        list[str] | None,
        Option("Find the row by a column's value: id=abc; may be repeated.", metavar="COLUMN=VALUE"),
    ] = None


class Shown(Section):
    """What is shown."""

    text: Annotated[bool, Option("Show the row too; the source is read again.")] = False
    scorer: Annotated[
        str | None, Option("Of scores by several scorers: whose rank.", metavar="NAME", complete="scorers")
    ] = None


@verb(Which, Shown, LIMITS)
def explain(
    out: Path, row: int | None, match: str | None, where: list[str] | None, text: bool, scorer: str | None
) -> None:
    """Say why a row was kept or dropped.

    datapruner explain pruned --row 17 --text
    """
    from datapruner.cli.explaining import explain_row, explain_rows

    given = None if where is None else dict(pair_of(one, "--where") for one in where)
    if row is not None and (match is not None or given):
        raise DataPrunerError("name the row by its number, or find it by --match and --where, not both")
    if row is None:
        lines = explain_rows(out, match, given, text=text, scorer=scorer, width=width())
    else:
        lines = explain_row(out, row, text=text, scorer=scorer, width=width())
    typer.echo("\n".join(lines))
