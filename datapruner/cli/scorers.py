"""``datapruner scorers``."""

from __future__ import annotations

from datapruner.cli.verb import verb


@verb()
def scorers() -> None:
    """List the scorers: what they need, where they come from, what of them is ours."""
    from datapruner.cli.listing import list_parts
    from datapruner.parts import SCORERS

    list_parts(SCORERS)
