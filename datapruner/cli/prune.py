"""``datapruner prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datapruner.cli.beside_recipe import RANKING, RUNNING, Folder, Hub, OfParts, Report, Selector
from datapruner.cli.verb import verb
from datapruner.cli.writing import carry_out
from datapruner.errors import DataPrunerError
from datapruner.recipe.options import Budget, Output


@verb(
    Budget,
    Selector,
    *RANKING,
    Folder,
    Output,
    Report,
    Hub,
    OfParts,
    *RUNNING,
    common="keep keep_tokens per_group seed scorer set_ without source split columns dedup decontaminate target "
    "model out overwrite report dry_run quiet",
)
def prune(
    fields: dict[str, Any],
    out: Path,
    overwrite: bool,
    report: bool,
    push_to_hub: str | None,
    dry_run: bool,
    shard: str | None,
    quiet: bool,
    cache: str | None,
    trust_code: bool,
) -> None:
    """Choose the rows to train on and write them as a dataset.

    datapruner prune data.jsonl --out pruned
    datapruner prune data.jsonl --keep 0.3 --without noise --out pruned
    """
    from datapruner.measuring.arguments import requested

    if fields["scorers"] is not None and len(fields["scorers"]) != 1:
        raise DataPrunerError(
            "prune takes one --scorer, or several with --combine; use `datapruner score` to compare several"
        )
    spent = {name: fields.pop(name) for name in Budget.__annotations__ if name in fields}
    asked = requested(
        **fields, budget=spent, selects=True, cache=cache, progress=not quiet, trust_code=trust_code
    )
    carry_out(asked, out, overwrite=overwrite, report=report, dry_run=dry_run, hub=push_to_hub, shard=shard)
