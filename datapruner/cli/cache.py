"""``datapruner cache``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from typing import Annotated, Literal

import typer
from annotated_types import Ge

from datapruner.cli.parameters import picked
from datapruner.cli.verb import verb
from datapruner.recipe.option import Option, Section
from datapruner.recipe.options import Running


class Kept(Section):
    """What is done."""

    action: Annotated[Literal["show", "prune", "verify"], Option("show, prune or verify.", "ACTION")] = "show"
    to: Annotated[
        str | None,
        Option("prune: bytes that may stay, such as 20GB; what was used last stays.", metavar="SIZE"),
    ] = None
    unused: Annotated[
        float | None, Ge(0), Option("prune: drop what nobody used for so many days.", metavar="DAYS")
    ] = None
    dry_run: Annotated[bool, Option("Only say what would go.")] = False


@verb(Kept, picked(Running, "cache"))
def cache(action: str, to: str | None, unused: float | None, dry_run: bool, cache: str | None) -> None:
    """Show what the store of signals holds, make it smaller, or read all of it once.

    datapruner cache prune --to 20GB
    """
    from datapruner.cli.keeping import carry_out

    typer.echo(carry_out(action, to, unused, cache or None, dry_run=dry_run))
