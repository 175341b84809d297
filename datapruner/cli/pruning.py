"""The verbs that write a dataset: prune, clean, score, select, run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from datapruner.cli.app import Panels, app
from datapruner.cli.options import (
    AlwaysKeep,
    ChangedSource,
    Columns,
    Decontaminate,
    DecontaminateColumns,
    DecontaminateNgram,
    DecontaminateShare,
    DecontaminateSplit,
    Embedder,
    Embeddings,
    Format,
    Keep,
    KeepTokens,
    Layout,
    MatchOption,
    NearNgram,
    NearNumbers,
    NearThreshold,
    NeverKeep,
    OnEmpty,
    Out,
    Overwrite,
    PerGroup,
    Quiet,
    Quota,
    Report,
    Scorers,
    Seed,
    SelectorName,
    SelectorSet,
    Semantic,
    SemanticEps,
    SimilarityContext,
    Source,
    Split,
    TrustCode,
    reads,
    takes_limits,
)
from datapruner.cli.summary import summarise
from datapruner.cli.words import amount_of, quotas_of, selector_of
from datapruner.errors import DataPrunerError
from datapruner.progress import say

if TYPE_CHECKING:
    from datapruner.recipe import Recipe


@app.command(cls=Panels)
@takes_limits
@reads
def prune(
    source: Source,
    out: Out,
    scorer: Scorers = ["concept_complexity"],  # noqa: B006 - typer copies it
    keep: Keep = None,
    keep_tokens: KeepTokens = None,
    per_group: PerGroup = None,
    quota: Quota = None,
    selector: SelectorName = None,
    selector_set: SelectorSet = None,
    format: Format = "parquet",
    overwrite: Overwrite = False,
    push_to_hub: Annotated[
        str | None, typer.Option(help="Upload the result to this dataset repository.")
    ] = None,
    report: Report = False,
    quiet: Quiet = False,
    trust_code: TrustCode = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Choose the rows to train on and write them as a dataset."""
    from datapruner.recipe import make_recipe

    if len(reading["scorers"]) != 1:
        raise DataPrunerError(
            "prune takes one --scorer, or several with --combine; use `datapruner score` to compare several"
        )
    arguments = reading | {
        "keep": amount_of(keep),
        "keep_tokens": keep_tokens,
        "per_group": per_group,
        "quotas": quotas_of(quota),
        "selector": selector_of(selector, selector_set),
        "format": format,
    }
    carry_out(
        make_recipe(**arguments),
        out,
        overwrite=overwrite,
        report=report,
        quiet=quiet,
        hub=push_to_hub,
        trust_code=trust_code,
    )


@app.command(cls=Panels)
@takes_limits
def clean(
    source: Source,
    out: Out,
    split: Split = None,
    columns: Columns = None,
    layout: Layout = None,
    dedup: Annotated[bool, typer.Option("--dedup/--no-dedup", help="Drop exact and near duplicates.")] = True,
    dedup_semantic: Semantic = False,
    match: MatchOption = "text",
    near_threshold: NearThreshold = 0.7,
    near_ngram: NearNgram = 3,
    near_numbers: NearNumbers = False,
    similarity_context: SimilarityContext = False,
    semantic_eps: SemanticEps = 0.05,
    embedder: Embedder = "minilm",
    embeddings: Embeddings = None,
    decontaminate: Decontaminate = None,
    decontaminate_split: DecontaminateSplit = None,
    decontaminate_columns: DecontaminateColumns = None,
    decontaminate_ngram: DecontaminateNgram = 5,
    decontaminate_share: DecontaminateShare = 0.5,
    on_empty: OnEmpty = "drop",
    always_keep: AlwaysKeep = None,
    never_keep: NeverKeep = None,
    pairs: Annotated[int, typer.Option(min=0, help="Pairs shown of every step, the least alike first.")] = 2,
    seed: Seed = 0,
    format: Format = "parquet",
    overwrite: Overwrite = False,
    report: Report = False,
    quiet: Quiet = False,
) -> None:
    """Drop copies, leaks and rows without an answer, and nothing else: no scorer, no budget."""
    from datapruner.recipe import make_recipe
    from datapruner.samples import parse_mapping

    recipe = make_recipe(
        source=source,
        split=split,
        columns=parse_mapping(columns) if columns else None,
        layout=layout,
        dedup=["exact", "near"] * dedup + ["semantic"] * dedup_semantic,
        match=match,
        near_threshold=near_threshold,
        near_ngram=near_ngram,
        near_numbers=near_numbers,
        similarity_context=similarity_context,
        semantic_eps=semantic_eps,
        embedder=embedder,
        embeddings=embeddings,
        decontaminate=decontaminate,
        decontaminate_split=decontaminate_split,
        decontaminate_columns=parse_mapping(decontaminate_columns) if decontaminate_columns else None,
        decontaminate_ngram=decontaminate_ngram,
        decontaminate_share=decontaminate_share,
        on_empty=on_empty,
        always_keep=always_keep,
        never_keep=never_keep,
        seed=seed,
        format=format,
        scorers=[{"name": "unranked"}],
        keep=1.0,
    )
    carry_out(recipe, out, overwrite=overwrite, report=report, quiet=quiet, trust_code=False, pairs=pairs)


@app.command(cls=Panels)
@takes_limits
@reads
def score(
    source: Source,
    out: Out,
    scorer: Scorers = ["concept_complexity"],  # noqa: B006
    count_tokens: Annotated[bool, typer.Option(help="Count tokens, for token budgets later on.")] = True,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    trust_code: TrustCode = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Rank every row with one or more scorers in one go, and keep the scores."""
    from datapruner.outputs.folder import check_target
    from datapruner.recipe import make_recipe

    if "all" in scorer:
        raise DataPrunerError("score takes scorers by their names; --scorer all is for `datapruner compare`")
    recipe = make_recipe(**reading, count_tokens=count_tokens)
    check_target(out, overwrite=overwrite, reads=recipe.reads)
    say(f"reading {source}", not quiet)
    from datapruner.api import run_scores

    scores = run_scores(recipe, progress=not quiet, trust_code=trust_code)
    scores.save(out, overwrite=overwrite)
    if not quiet:
        typer.echo(f"{len(scores):,} rows scored by {', '.join(scores.rankings)}: {out}")


@app.command()
@takes_limits
def select(
    scores: Annotated[Path, typer.Argument(help="Folder that `datapruner score` wrote.")],
    out: Out,
    scorer: Annotated[str | None, typer.Option(help="Which of the scorers chooses.")] = None,
    keep: Keep = None,
    keep_tokens: KeepTokens = None,
    per_group: PerGroup = None,
    quota: Quota = None,
    selector: SelectorName = None,
    selector_set: SelectorSet = None,
    format: Format = "parquet",
    overwrite: Overwrite = False,
    report: Report = False,
    quiet: Quiet = False,
) -> None:
    """Spend a budget on saved scores; no model runs."""
    from datapruner.outputs.folder import check_target
    from datapruner.scores import load_scores
    from datapruner.selection.selectors import make_selector

    chosen = selector_of(selector, selector_set)
    check_target(out, overwrite=overwrite, reads=[scores])
    check_report(report)
    selection = load_scores(scores).select(
        scorer,
        keep=amount_of(keep),
        keep_tokens=keep_tokens,
        per_group=per_group,
        quotas=quotas_of(quota),
        selector=None if chosen is None else make_selector(chosen["name"], chosen["parameters"]),
    )
    selection.save(out, format=format, overwrite=overwrite, report=report)
    summarise(selection, out, quiet, report=report)


@app.command()
@takes_limits
def run(
    recipe: Annotated[Path, typer.Argument(help="recipe.yaml, as saved beside a result.")],
    out: Out,
    overwrite: Overwrite = False,
    report: Report = False,
    quiet: Quiet = False,
    trust_code: TrustCode = False,
    changed_source: ChangedSource = False,
) -> None:
    """Do again what a recipe says; the same inputs give the same bytes."""
    from datapruner.recipe import load_recipe

    carry_out(
        load_recipe(recipe),
        out,
        overwrite=overwrite,
        report=report,
        quiet=quiet,
        trust_code=trust_code,
        changed_source=changed_source,
    )


def check_report(wanted: bool) -> None:
    """Refuse a report that could not be written at the end."""
    if wanted:
        from datapruner.outputs.report import require_report

        require_report()


def carry_out(
    recipe: Recipe,
    out: Path,
    *,
    overwrite: bool,
    report: bool,
    quiet: bool,
    trust_code: bool,
    changed_source: bool = False,
    hub: str | None = None,
    pairs: int = 0,
) -> None:
    """Run a recipe, write its result and say what there is."""
    from datapruner.outputs.folder import check_target

    check_target(out, overwrite=overwrite, reads=recipe.reads)
    check_report(report)
    if hub is not None:
        from datapruner.outputs.dataset import check_repository

        check_repository(hub)
    say(f"reading {recipe.source or 'the rows'}", not quiet)
    from datapruner import api

    selection = api.run(recipe, progress=not quiet, trust_code=trust_code, changed_source=changed_source)
    selection.save(out, overwrite=overwrite, report=report)
    summarise(selection, out, quiet, report=report, pairs=pairs)
    if hub is not None:
        from datapruner.outputs.dataset import push_to_hub

        typer.echo(push_to_hub(selection, hub))
