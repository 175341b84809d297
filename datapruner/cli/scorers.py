"""``datapruner scorers``."""

from __future__ import annotations

import typer

from datapruner.cli.verb import verb


@verb()
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
