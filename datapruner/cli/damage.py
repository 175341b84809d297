"""``datapruner damage``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from pathlib import Path
from typing import Annotated, Any

import typer

from datapruner.cli.beside_recipe import READING, RUNNING, Folder
from datapruner.cli.terminal import headed
from datapruner.cli.verb import verb
from datapruner.cli.writing import foresee, told
from datapruner.files.remote import path_said
from datapruner.progress import say
from datapruner.recipe.option import Option, Section
from datapruner.recipe.options import Lists


class Groups(Section):
    """Groups."""

    n_clusters: Annotated[int | None, Option("Number of clusters of the embeddings.")] = None
    by: Annotated[
        list[str] | None,
        Option("Column whose values are groups too; may be repeated.", metavar="COLUMN"),
    ] = None
    examples: Annotated[int, Option("Typical rows shown of every cluster.")] = 1


class MaybeFolder(Section):
    """Result."""

    out: Annotated[
        Path | None,
        Option(
            "Folder for tables, rows and a picture; else printed only.",
            "--out -o",
            metavar="FOLDER",
        ),
    ] = None


@verb(
    Groups,
    *READING,
    Lists,
    Folder,
    MaybeFolder,
    *RUNNING,
    common="n_clusters by examples source split columns max_length embedder embeddings model adapter pruned_model "
    "twins divergences trust_code seed out overwrite quiet",
    instead=dict.fromkeys(
        ("set", "combine", "combine-within"),
        "damage ranks no rows, so that it takes no --set and no --combine; --n-clusters it takes",
    ),
)
def damage(
    fields: dict[str, Any],
    n_clusters: int | None,
    by: list[str] | None,
    examples: int,
    out: Path | None,
    overwrite: bool,
    dry_run: bool,
    quiet: bool,
    cache: str | None,
    trust_code: bool,
) -> None:
    """Show what pruning broke: how far a pruned model's predictions moved, by cluster and column.

    datapruner damage data.jsonl --model MODEL --pruned-model PRUNED
    """
    source = fields.pop("source")
    say(f"reading {told(source)}", not quiet)
    from datapruner.measuring.arguments import requested
    from datapruner.outputs.folder import check_target
    from datapruner.pruning_damage import damage as measure_damage
    from datapruner.pruning_damage.run import asked_for, columns_of
    from datapruner.text import safe_text

    if out is not None:
        check_target(
            out, overwrite=overwrite, reads=requested(source, scorers="unranked", **fields).recipe.reads
        )
    how = {**fields, "cache": cache, "progress": not quiet, "trust_code": trust_code}
    if dry_run:
        foresee(asked_for(source, by=columns_of(by or []), **how))
        return
    found = measure_damage(source, by=by or [], n_clusters=n_clusters, **how)
    if out is not None:
        found.save(out, overwrite=overwrite)
    if not quiet or out is None:
        typer.echo(headed(found.describe(examples)))
    if out is not None and not quiet:
        typer.echo(f"\n{safe_text(path_said(out))}")
