"""The verbs that compare and look into: compare, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from datapruner.cli.app import Panels, app
from datapruner.cli.options import (
    Out,
    Overwrite,
    Quiet,
    SelectorName,
    SelectorSet,
    Source,
    TrustCode,
    reads,
    takes_limits,
)
from datapruner.cli.pruning import check_report
from datapruner.cli.summary import page
from datapruner.cli.words import numbers_of, selector_of
from datapruner.errors import DataPrunerError
from datapruner.progress import say


@app.command(cls=Panels)
@takes_limits
@reads
def compare(
    source: Source,
    out: Out,
    scorer: Annotated[
        list[str],
        typer.Option("--scorer", help="Scorer's name, or all: those that cannot run here are left out."),
    ] = ["concept_complexity"],  # noqa: B006
    keep: Annotated[
        list[str] | None, typer.Option(help="Fraction such as 0.3, or number of rows; may be repeated.")
    ] = None,
    keep_tokens: Annotated[
        list[int] | None, typer.Option(help="Number of supervised tokens to keep; may be repeated.")
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Column whose values are groups to count by; may be repeated.")
    ] = None,
    selector: SelectorName = None,
    selector_set: SelectorSet = None,
    stability: Annotated[
        bool, typer.Option("--stability", help="Vary seeds, vectors and embedder too, and see what is kept.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Runs with other seeds, and draws of noise.")] = 5,
    noise: Annotated[
        str, typer.Option(help="Noise on the vectors, in standard deviations of every dimension.")
    ] = "0.25,0.5,1",
    embedders: Annotated[
        str | None, typer.Option(help="Two embedders whose selections are compared: minilm,PATH.")
    ] = None,
    second_embeddings: Annotated[
        str | None, typer.Option(help=".npy or .parquet with the vectors of a second embedder.")
    ] = None,
    overwrite: Overwrite = False,
    report: Annotated[
        bool | None,
        typer.Option(
            "--report/--no-report", help="Write report.html too: one page to look at. Default: if it can be."
        ),
    ] = None,
    quiet: Quiet = False,
    trust_code: TrustCode = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Compare what scorers keep, and with --stability what moves it; random and length stand beside them."""
    say(f"reading {source}", not quiet)
    from datapruner.comparison import budgets_of
    from datapruner.comparison import compare as compare_scorers
    from datapruner.outputs.folder import check_target
    from datapruner.outputs.report import has_report
    from datapruner.recipe import make_recipe
    from datapruner.scorers import make_scorer
    from datapruner.selection.budget import parse_amount
    from datapruner.selection.selectors import make_selector
    from datapruner.text import safe_text

    if report is None:
        report = has_report()
    check_report(report)
    if not keep and not keep_tokens:
        raise DataPrunerError(
            "compare needs --keep, a fraction such as 0.3 or a number of rows such as 5000, or --keep-tokens"
        )
    amounts = [parse_amount(one) for one in keep or []]
    budgets_of(amounts, keep_tokens)
    chosen = selector_of(selector, selector_set)
    recipe = make_recipe(**reading)
    reads = recipe.reads if second_embeddings is None else [*recipe.reads, second_embeddings]
    check_target(out, overwrite=overwrite, reads=reads)
    options = {name: value for name, value in reading.items() if name not in ("source", "scorers")}
    comparison = compare_scorers(
        reading["source"],
        scorers=[make_scorer(one["name"], one["parameters"]) for one in reading["scorers"]]
        + ["all"] * ("all" in scorer),
        keep=amounts,
        keep_tokens=keep_tokens,
        by=by or [],
        selector=None if chosen is None else make_selector(chosen["name"], chosen["parameters"]),
        stability=stability,
        seeds=seeds,
        noise=numbers_of(noise, "--noise"),
        embedders=None if embedders is None else embedders.split(","),
        second_embeddings=second_embeddings,
        progress=not quiet,
        trust_code=trust_code,
        **options,
    )
    comparison.save(out, overwrite=overwrite, report=report)
    if not quiet:
        typer.echo(f"{comparison.describe()}\n\n{safe_text(str(out))}" + page(out) * report)


@app.command(cls=Panels)
@takes_limits
@reads
def damage(
    source: Source,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for tables, rows and a picture; else printed only."),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Column whose values are groups too; may be repeated.")
    ] = None,
    examples: Annotated[int, typer.Option(help="Typical rows shown of every cluster.")] = 1,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    trust_code: TrustCode = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Show what pruning broke: how far a pruned model's predictions moved, by cluster and column."""
    say(f"reading {source}", not quiet)
    from datapruner.outputs.folder import check_target
    from datapruner.pruning_damage import damage as measure_damage
    from datapruner.recipe import make_recipe
    from datapruner.text import safe_text

    if out is not None:
        check_target(out, overwrite=overwrite, reads=make_recipe(**reading).reads)
    options = {name: value for name, value in reading.items() if name not in ("source", "scorers")}
    given = reading["scorers"][0]["parameters"]
    if given.keys() - {"n_clusters"}:
        raise DataPrunerError(
            "damage ranks no rows, so that it takes no --set and no --combine; --n-clusters it takes"
        )
    found = measure_damage(
        reading["source"],
        by=by or [],
        n_clusters=given.get("n_clusters"),
        progress=not quiet,
        trust_code=trust_code,
        **options,
    )
    if out is not None:
        found.save(out, overwrite=overwrite)
    if not quiet or out is None:
        typer.echo(found.describe(examples))
    if out is not None and not quiet:
        typer.echo(f"\n{safe_text(str(out))}")
