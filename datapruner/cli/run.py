"""``datapruner run``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from pathlib import Path
from typing import Annotated, Any

from datapruner.cli.beside_recipe import Ahead, Engines, Folder, OfParts, Report, Saying
from datapruner.cli.parameters import picked
from datapruner.cli.verb import verb
from datapruner.cli.writing import carry_out
from datapruner.recipe.option import Option, Section
from datapruner.recipe.options import Running


class Saved(Section):
    """What is run."""

    recipe: Annotated[Path, Option("recipe.yaml, as saved beside a result.", "RECIPE")]


@verb(
    Saved,
    Folder,
    Report,
    Ahead,
    OfParts,
    Saying,
    Engines,
    picked(Running, "cache trust_code changed_source limits"),
)
def run(
    fields: dict[str, Any],
    recipe: Path,
    out: Path,
    overwrite: bool,
    report: bool,
    dry_run: bool,
    shard: str | None,
    quiet: bool,
    cache: str | None,
    trust_code: bool,
    changed_source: bool,
) -> None:
    """Do again what a recipe says; the same inputs give the same bytes.

    datapruner run pruned/recipe.yaml --out again
    """
    from datapruner.engines.base import make_engine
    from datapruner.measuring.request import request_of
    from datapruner.recipe import load_recipe

    held = load_recipe(recipe)
    asked = request_of(
        held.taken_as_it_is if changed_source else held,
        cache=cache,
        engine=make_engine(fields.pop("engine"), **fields),
        progress=not quiet,
        trust_code=trust_code,
    )
    carry_out(asked, out, overwrite=overwrite, report=report, dry_run=dry_run, shard=shard)
