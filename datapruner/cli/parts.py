"""``datapruner parts``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from typing import Annotated

from datapruner.cli.verb import verb
from datapruner.errors import DataPrunerError
from datapruner.recipe.option import Option, Section


class Which(Section):
    """Which parts."""

    kind: Annotated[
        str, Option("scorers, selectors, measurements, cleaning or engines; all by default.", "[KIND]")
    ] = ""


@verb(Which)
def parts(kind: str) -> None:
    """List what can be named, plug-ins too: scorers, selectors, measurements, cleaning steps, engines.

    datapruner parts scorers
    """
    from datapruner.cli.listing import list_names, list_parts
    from datapruner.parts import KINDS
    from datapruner.text import did_you_mean, safe_text

    if not kind:
        list_names()
    elif kind in KINDS:
        list_parts(KINDS[kind])
    else:
        raise DataPrunerError(
            f"there is no kind of part '{safe_text(kind, 60)}'.{did_you_mean(kind, KINDS)} There are "
            f"{', '.join(KINDS)}"
        )
