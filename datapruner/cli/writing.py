"""What is asked for is carried out, and its result written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from datapruner.cli.summary import summarise
from datapruner.progress import say

if TYPE_CHECKING:
    from datapruner.measuring.request import Request
    from datapruner.samples.samples import Samples


def told(source: Any) -> str:
    """Give a source, or several, as it is said that they are read."""
    from datapruner.files.remote import masked

    named = list(source.values()) if isinstance(source, dict) else [source or "the rows"]
    return masked(", ".join(map(str, named)))


def check_report(wanted: bool) -> None:
    """Refuse a report that could not be written at the end."""
    if wanted:
        from datapruner.outputs.report import require_report

        require_report()


def foresee(asked: Request, samples: Samples | None = None) -> None:
    """Say what would be measured."""
    from datapruner.measuring.measure import look_ahead

    typer.echo(str(look_ahead(asked, samples)))


def measure_shard(asked: Request, shard: str) -> None:
    """Measure a part of the rows, and say what was computed."""
    from datapruner.measuring.sharding import Part, measure_part

    done = measure_part(asked, Part.read(shard))
    if asked.progress:
        typer.echo(str(done))


def carry_out(
    asked: Request,
    out: Path,
    *,
    overwrite: bool,
    report: bool,
    dry_run: bool = False,
    hub: str | None = None,
    pairs: int = 0,
    shard: str | None = None,
) -> None:
    """Do what is asked for, write its result and say what there is; a dry run says what would be measured."""
    from datapruner.outputs.folder import check_target

    quiet = not asked.progress
    check_target(out, overwrite=overwrite, reads=asked.recipe.reads)
    check_report(report)
    if hub is not None:
        from datapruner.outputs.hub import check_repository

        check_repository(hub)
    say(f"reading {told(asked.recipe.source)}", not quiet)
    if dry_run:
        foresee(asked)
        return
    if shard is not None:
        measure_shard(asked, shard)
        return
    from datapruner import running

    selection = running.selected(asked)
    selection.save(out, overwrite=overwrite, report=report)
    summarise(selection, out, quiet, report=report, pairs=pairs)
    if hub is not None:
        from datapruner.outputs.hub import push_to_hub

        typer.echo(push_to_hub(selection, hub))
