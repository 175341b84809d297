"""``datapruner inspect``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from typing import Annotated, Any

import typer

from datapruner.cli.beside_recipe import LIMITS, Sources
from datapruner.cli.terminal import width
from datapruner.cli.verb import verb
from datapruner.recipe.option import Option, Section
from datapruner.recipe.options import Source


class Shown(Section):
    """What is shown."""

    examples: Annotated[int, Option("Rows to show.")] = 3


@verb(Source, Sources, Shown, LIMITS)
def inspect(fields: dict[str, Any], examples: int) -> None:
    """Show how a dataset will be read: layout, examples, lengths, nulls, duplicates.

    datapruner inspect data.jsonl
    """
    from datapruner.samples import inspect_samples, load_samples, render_text

    samples = load_samples(fields.pop("source"), **fields)
    typer.echo(render_text(inspect_samples(samples, examples=examples), width=width()))
