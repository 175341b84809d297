"""``datapruner clean``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from pathlib import Path
from typing import Annotated, Any

from datapruner.cli.beside_recipe import READING, RUNNING, Folder, Report
from datapruner.cli.verb import verb
from datapruner.cli.writing import carry_out
from datapruner.recipe.option import Option, Section
from datapruner.recipe.options import Lists, Output


class CleaningAlone(Section):
    """Cleaning, before anything is scored."""

    dedup: Annotated[bool, Option("Drop exact and near duplicates.")] = True
    pairs: Annotated[int, Option("Pairs shown of every step, the least alike first.", least=0)] = 2


@verb(
    *READING,
    CleaningAlone,
    Lists,
    Folder,
    Output,
    Report,
    *RUNNING,
    common="source split columns dedup dedup_semantic match near_threshold decontaminate on_empty always_keep "
    "never_keep pairs out overwrite format report quiet",
)
def clean(
    fields: dict[str, Any],
    pairs: int,
    out: Path,
    overwrite: bool,
    report: bool,
    dry_run: bool,
    quiet: bool,
    cache: str | None,
    trust_code: bool,
) -> None:
    """Drop copies, leaks and rows without an answer, and nothing else: no scorer, no budget.

    datapruner clean data.jsonl --decontaminate test.jsonl --out cleaned
    """
    from datapruner.measuring.arguments import requested_cleaning

    asked = requested_cleaning(**fields, cache=cache, progress=not quiet, trust_code=trust_code)
    carry_out(asked, out, overwrite=overwrite, report=report, dry_run=dry_run, pairs=pairs)
