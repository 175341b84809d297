"""A recipe is carried out, and its result written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from datapruner.cli.summary import summarise
from datapruner.progress import say

if TYPE_CHECKING:
    from datapruner.recipe import Recipe


def check_report(wanted: bool) -> None:
    """Refuse a report that could not be written at the end."""
    if wanted:
        from datapruner.outputs.report import require_report

        require_report()


def carry_out(
    recipe: Recipe,
    out: Path,
    *,
    overwrite: bool,
    report: bool,
    quiet: bool,
    trust_code: bool,
    changed_source: bool = False,
    cache: str | None = None,
    hub: str | None = None,
    pairs: int = 0,
) -> None:
    """Run a recipe, write its result and say what there is."""
    from datapruner.outputs.folder import check_target

    check_target(out, overwrite=overwrite, reads=recipe.reads)
    check_report(report)
    if hub is not None:
        from datapruner.outputs.dataset import check_repository

        check_repository(hub)
    say(f"reading {recipe.source or 'the rows'}", not quiet)
    from datapruner import api

    selection = api.run(
        recipe, cache=cache, progress=not quiet, trust_code=trust_code, changed_source=changed_source
    )
    selection.save(out, overwrite=overwrite, report=report)
    summarise(selection, out, quiet, report=report, pairs=pairs)
    if hub is not None:
        from datapruner.outputs.dataset import push_to_hub

        typer.echo(push_to_hub(selection, hub))
