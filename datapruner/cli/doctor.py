"""``datapruner doctor``."""

from __future__ import annotations

import typer

from datapruner.cli.verb import verb


@verb()
def doctor() -> None:
    """Show versions, threads, the cache, and which bundled models are here."""
    from datapruner.doctor import report

    typer.echo(report())
