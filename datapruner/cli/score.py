"""``datapruner score``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from pathlib import Path
from typing import Annotated, Any

import typer

from datapruner.cli.beside_recipe import RANKING, RUNNING, Folder, OfParts
from datapruner.cli.verb import verb
from datapruner.cli.writing import foresee, measure_shard, told
from datapruner.errors import DataPrunerError
from datapruner.files.remote import path_said
from datapruner.progress import say
from datapruner.recipe.option import Option, Section


class Counting(Section):
    """What is read of a row."""

    count_tokens: Annotated[bool, Option("Count tokens, for token budgets later on.")] = True


@verb(
    *RANKING,
    Counting,
    Folder,
    OfParts,
    *RUNNING,
    common="scorer set_ n_clusters source split columns dedup decontaminate on_empty embedder embeddings model target "
    "seed out overwrite dry_run quiet",
)
def score(
    fields: dict[str, Any],
    scorer: list[str],
    out: Path,
    overwrite: bool,
    dry_run: bool,
    shard: str | None,
    quiet: bool,
    cache: str | None,
    trust_code: bool,
) -> None:
    """Rank every row with one or more scorers in one go, and keep the scores.

    datapruner score data.jsonl --scorer ifd --model MODEL --out scores
    datapruner select scores --scorer ifd --keep 0.3 --out pruned
    """
    from datapruner.measuring.arguments import requested
    from datapruner.outputs.folder import check_target

    if "all" in scorer:
        raise DataPrunerError("score takes scorers by their names; --scorer all is for `datapruner compare`")
    asked = requested(**fields, cache=cache, progress=not quiet, trust_code=trust_code)
    check_target(out, overwrite=overwrite, reads=asked.recipe.reads)
    say(f"reading {told(asked.recipe.source)}", not quiet)
    if dry_run:
        foresee(asked)
        return
    if shard is not None:
        measure_shard(asked, shard)
        return
    from datapruner.running import scored

    scores = scored(asked)
    scores.save(out, overwrite=overwrite)
    if not quiet:
        typer.echo(f"{len(scores):,} rows scored by {', '.join(scores.rankings)}: {path_said(out)}")
