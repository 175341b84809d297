"""``datapruner compare``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from pathlib import Path
from typing import Annotated, Any

import typer

from datapruner.cli.beside_recipe import RANKING, RUNNING, Folder, Selector
from datapruner.cli.summary import page
from datapruner.cli.terminal import headed
from datapruner.cli.verb import verb
from datapruner.cli.words import numbers_of
from datapruner.cli.writing import check_report, foresee, told
from datapruner.files.remote import path_said
from datapruner.progress import say
from datapruner.recipe.option import Option, Section


class Budgets(Section):
    """What is kept."""

    keep: Annotated[
        list[str] | None,
        Option("Fraction such as 0.3, or number of rows; may be repeated; default: 0.3.", metavar="AMOUNT"),
    ] = None
    keep_tokens: Annotated[
        list[int] | None,
        Option("Number of supervised tokens to keep; may be repeated.", metavar="NUMBER"),
    ] = None


class Compared(Section):
    """Scorers."""

    scorer: Annotated[
        list[str],
        Option(
            "Scorer's name, or all: those that cannot run here are left out. None named: the default recipe.",
            metavar="NAME",
            complete="scorers",
        ),
    ] = []  # noqa: RUF012 - typer copies it
    by: Annotated[
        list[str] | None,
        Option("Column whose values are groups to count by; may be repeated.", metavar="COLUMN"),
    ] = None


class Stability(Section):
    """Stability."""

    stability: Annotated[bool, Option("Vary seeds, vectors and embedder too, and see what is kept.")] = False
    seeds: Annotated[int, Option("Runs with other seeds, and draws of noise.")] = 5
    noise: Annotated[
        str, Option("Noise on the vectors, in standard deviations of every dimension.", metavar="NUMBER,...")
    ] = "0.25,0.5,1"
    embedders: Annotated[
        str | None,
        Option("Two embedders whose selections are compared: minilm,PATH.", metavar="MODEL,MODEL"),
    ] = None
    second_embeddings: Annotated[
        str | None,
        Option(".npy or .parquet with the vectors of a second embedder.", metavar="FILE"),
    ] = None


class MaybeReport(Section):
    """Result."""

    report: Annotated[
        bool | None, Option("Write report.html too: one page to look at. Default: if it can be.")
    ] = None


@verb(
    Budgets,
    Selector,
    *RANKING,
    Compared,
    Stability,
    Folder,
    MaybeReport,
    *RUNNING,
    common="keep keep_tokens seed scorer set_ by stability source split columns dedup embedder embeddings "
    "model out overwrite report dry_run quiet",
)
def compare(
    fields: dict[str, Any],
    scorer: list[str],
    keep: list[str] | None,
    keep_tokens: list[int] | None,
    by: list[str] | None,
    stability: bool,
    seeds: int,
    noise: str,
    embedders: str | None,
    second_embeddings: str | None,
    out: Path,
    overwrite: bool,
    report: bool | None,
    dry_run: bool,
    quiet: bool,
    cache: str | None,
    trust_code: bool,
) -> None:
    """Compare what scorers keep, and with --stability what moves it; random and length stand beside them.

    datapruner compare data.jsonl --scorer d2 --scorer length --keep 0.3 -o out
    """
    source = fields.pop("source")
    say(f"reading {told(source)}", not quiet)
    from datapruner.budget import parse_amount
    from datapruner.comparison import budgets_of
    from datapruner.comparison import compare as compare_scorers
    from datapruner.comparison.run import asked_for
    from datapruner.measuring.arguments import requested
    from datapruner.outputs.folder import check_target
    from datapruner.outputs.report import has_report
    from datapruner.text import safe_text

    if report is None:
        report = has_report()
    check_report(report)
    amounts = [parse_amount(one) for one in keep or []]
    budgets = budgets_of(amounts, keep_tokens)
    chosen, scorers = fields.pop("selector"), fields.pop("scorers")
    reads = requested(source, scorers=scorers, **fields).recipe.reads
    check_target(
        out, overwrite=overwrite, reads=reads if second_embeddings is None else [*reads, second_embeddings]
    )
    if "all" in scorer:
        scorers = [*scorers, "all"]
    how = {
        **fields,
        "scorers": scorers,
        "by": by or [],
        "selector": chosen,
        "cache": cache,
        "progress": not quiet,
        "trust_code": trust_code,
        "count_tokens": True,
    }
    if dry_run:
        asked = asked_for(source, budgets=budgets, **how)
        foresee(asked.request, asked.samples)
        return
    comparison = compare_scorers(
        source,
        keep=amounts,
        keep_tokens=keep_tokens,
        stability=stability,
        seeds=seeds,
        noise=numbers_of(noise, "--noise"),
        embedders=None if embedders is None else embedders.split(","),
        second_embeddings=second_embeddings,
        **how,
    )
    comparison.save(out, overwrite=overwrite, report=report)
    if not quiet:
        typer.echo(f"{headed(comparison.describe())}\n\n{safe_text(path_said(out))}" + page(out) * report)
