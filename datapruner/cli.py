"""The command line: the same verbs as :mod:`datapruner.api`."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from datapruner.arguments import instead_of
from datapruner.errors import DataPrunerError, flags, in_words
from datapruner.limits import limited, parse_limits
from datapruner.progress import say

if TYPE_CHECKING:
    from datapruner.cleaning.pairs import Pair
    from datapruner.recipe import Recipe
    from datapruner.scores import Selection

# The base of what typer says of a command line; the click package's own or typer's copy of it, by version.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
INTERRUPTED = 130
PIPE_CLOSED = 141
MOST_GROUPS = 40
"""Groups of a budget that a summary lists."""

PANELS = {
    "What is kept": "keep keep_tokens per_group quota selector selector_set always_keep never_keep seed",
    "Scorers": "scorer set_ n_clusters combine combine_within by examples",
    "Stability": "stability seeds noise embedders second_embeddings",
    "Cleaning alone": "pairs",
    "How rows are read": "split columns layout on_empty last_turn_only max_length tokenizer count_tokens",
    "Cleaning, before anything is scored": "dedup dedup_semantic match near_threshold near_ngram "
    "near_numbers semantic_eps decontaminate decontaminate_split decontaminate_columns decontaminate_ngram "
    "decontaminate_share",
    "Embeddings": "embedder embed similarity_context pooling embedder_max_length embeddings embedding_column manifold "
    "manifold_dimensions n_neighbors",
    "Language model": "model adapter dtype device device_map quantize packing batch_tokens",
    "Pruned model (paser, damage)": "pruned_model twins divergences trust_code",
    "Target set (feature_mapping, label_mapping)": "target target_split target_columns target_embeddings",
    "Result": "out format overwrite report push_to_hub quiet limit help",
}
"""Where the help of a verb with many options shows which of them, by the parameters' names."""


class _Panels(TyperCommand):
    """A command whose help sorts its options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        place = {name: title for title, names in PANELS.items() for name in names.split()}
        found: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Arguments", *PANELS, "Other")}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                argument = parameter.param_type_name == "argument"
                found["Arguments" if argument else place.get(parameter.name or "", "Other")].append(record)
        for title, records in found.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


app = typer.Typer(
    name="datapruner",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Source = Annotated[str, typer.Argument(help="File, glob, folder, or hub name org/name[:config][@revision].")]
Split = Annotated[str | None, typer.Option(help="Split to prune; the others are carried over.")]
Columns = Annotated[str | None, typer.Option(help="Which column plays which role: question=Q,answer=A.")]
Layout = Annotated[str | None, typer.Option(help="Layout, where detection should not decide.")]
Scorers = Annotated[list[str], typer.Option("--scorer", help="Scorer's name; see `datapruner scorers`.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Parameter of a scorer: [scorer.]name=value.")]
Clusters = Annotated[int | None, typer.Option(help="Number of clusters, for the scorers that cluster.")]
Keep = Annotated[str | None, typer.Option(help="Fraction such as 0.3, or number of rows such as 5000.")]
KeepTokens = Annotated[int | None, typer.Option(help="Number of supervised tokens to keep.")]
PerGroup = Annotated[str | None, typer.Option(help="Column whose values share the budget in proportion.")]
Quota = Annotated[
    list[str] | None,
    typer.Option(
        help="math=0.5 keeps half of math's own rows, math=400 so many; tokens under --keep-tokens."
    ),
]
SelectorName = Annotated[
    str | None,
    typer.Option(
        "--selector", help="topk, group_quota, ccs, moderate, eu_plane, message_passing, coverage or paser."
    ),
]
SelectorSet = Annotated[
    list[str] | None, typer.Option("--selector-set", help="Parameter of the selector: name=value.")
]
Embeddings = Annotated[str | None, typer.Option(help=".npy or .parquet with one vector a row.")]
EmbeddingColumn = Annotated[str | None, typer.Option(help="Column that holds one vector a row.")]
Embedder = Annotated[str, typer.Option(help="minilm, or a model's path or hub name.")]
Pooling = Annotated[
    str, typer.Option(help="auto, mean or last; the last two read a language model's states.")
]
EmbedderMaxLength = Annotated[
    int | None, typer.Option(help="Tokens an embedder reads; default: its own limit.")
]
Manifold = Annotated[str, typer.Option(help="umap, or pca: fast and the same on every machine.")]
ManifoldDimensions = Annotated[int, typer.Option(help="Dimensions of the manifold; 1 to 3 for topology.")]
Neighbors = Annotated[int, typer.Option(help="Neighbours a row, itself counted, for UMAP.")]
Model = Annotated[
    str | None, typer.Option(help="Causal language model for scorers of losses: path, hub name or alias.")
]
Adapter = Annotated[
    str | None, typer.Option(help="LoRA adapter on top of it; a path to one may be the model too.")
]
PrunedModel = Annotated[
    str | None,
    typer.Option(
        help="The same model after pruning, for `paser`: folder, hub name, pickle or module:function."
    ),
]
Twins = Annotated[
    str, typer.Option(help="Both models in memory together, or in_turn: the dense one's states are stored.")
]
Divergences = Annotated[
    str | None,
    typer.Option(help="Measured before, instead of both models: .npy, or .parquet with a column jsd."),
]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run the code of a pruned model: module:function, or a pickle.")
]
ChangedSource = Annotated[
    bool,
    typer.Option(
        "--changed-source",
        help="Go on where the source, or another input, is not what the recipe was saved with.",
    ),
]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16 or float64.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; default: CUDA where there is one.")]
DeviceMap = Annotated[str | None, typer.Option(help="auto spreads the model over all devices (accelerate).")]
Quantize = Annotated[str | None, typer.Option(help="4bit or 8bit (bitsandbytes, CUDA).")]
MaxLength = Annotated[
    int | None, typer.Option(help="Tokens of a row that the model reads; default: its limit, at most 2048.")
]
LastTurnOnly = Annotated[
    bool, typer.Option("--last-turn-only", help="Supervise the last assistant turn alone.")
]
Packing = Annotated[bool, typer.Option(help="Rows share sequences without padding.")]
BatchTokens = Annotated[int | None, typer.Option(help="Tokens a forward pass; halved where memory runs out.")]
OnEmpty = Annotated[
    str,
    typer.Option(help="Rows whose answer says nothing: drop them, make them an error, or keep them."),
]
Combine = Annotated[
    str | None, typer.Option(help="Join the scorers into one: worst_rank, mean_rank or topsis.")
]
CombineWithin = Annotated[
    str | None,
    typer.Option(help="Rank inside the groups of this column, or of `cluster`s of the embeddings."),
]
Embed = Annotated[str, typer.Option(help="What is embedded: both, prompt or response.")]
SimilarityContext = Annotated[
    bool,
    typer.Option(
        "--similarity-context",
        help="Compare rows with system turns and what many share, which are left out else.",
    ),
]
Tokenizer = Annotated[str | None, typer.Option(help="Counts tokens; default: SmolLM2's.")]
Dedup = Annotated[bool, typer.Option("--dedup", help="Drop exact and near duplicates first.")]
Semantic = Annotated[bool, typer.Option("--dedup-semantic", help="Drop semantic duplicates too (SemDeDup).")]
MatchOption = Annotated[
    str,
    typer.Option(
        "--match",
        help="Exact duplicates: exact, byte for byte; text, but for white space; loose, but for case too.",
    ),
]
NearThreshold = Annotated[float, typer.Option(help="Jaccard similarity of near duplicates.")]
NearNgram = Annotated[int, typer.Option(help="Words a shingle.")]
NearNumbers = Annotated[
    bool, typer.Option("--near-numbers", help="Rows with other numbers are no near duplicates.")
]
SemanticEps = Annotated[float, typer.Option(help="1 - cosine of semantic duplicates.")]
Decontaminate = Annotated[str | None, typer.Option(help="Test set whose rows must not be in the data.")]
DecontaminateSplit = Annotated[str | None, typer.Option(help="Its split; default: test where there is one.")]
DecontaminateColumns = Annotated[
    str | None, typer.Option(help="Which column of the test set plays which role: text=question.")
]
DecontaminateNgram = Annotated[int, typer.Option(help="Words an n-gram.")]
DecontaminateShare = Annotated[float, typer.Option(help="Share of a test row's n-grams that condemns a row.")]
Target = Annotated[str | None, typer.Option(help="Set that `feature_mapping` and `label_mapping` look for.")]
TargetSplit = Annotated[str | None, typer.Option(help="Its split; default: train where there is one.")]
TargetColumns = Annotated[
    str | None, typer.Option(help="Which column of the target plays which role: question=Q,answer=A.")
]
TargetEmbeddings = Annotated[
    str | None, typer.Option(help="Its vectors, .npy or .parquet, where --embeddings are given.")
]
AlwaysKeep = Annotated[str | None, typer.Option(help="Boolean column of rows that are always kept.")]
NeverKeep = Annotated[str | None, typer.Option(help="Boolean column of rows that are never kept.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Format = Annotated[str, typer.Option(help="parquet, jsonl or arrow.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder that is written, whole or not at all.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result of datapruner.")]
Report = Annotated[bool, typer.Option("--report", help="Write report.html too: one page to look at.")]
Limit = Annotated[
    list[str] | None,
    typer.Option("--limit", help="What is taken of a source before it is refused: row_bytes=100MB."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]


def _reading_options(
    combine: Combine = None,
    combine_within: CombineWithin = None,
    set_: Set = None,
    n_clusters: Clusters = None,
    split: Split = None,
    columns: Columns = None,
    layout: Layout = None,
    embeddings: Embeddings = None,
    embedding_column: EmbeddingColumn = None,
    embedder: Embedder = "minilm",
    pooling: Pooling = "auto",
    embedder_max_length: EmbedderMaxLength = None,
    embed: Embed = "both",
    similarity_context: SimilarityContext = False,
    manifold: Manifold = "umap",
    manifold_dimensions: ManifoldDimensions = 2,
    n_neighbors: Neighbors = 15,
    model: Model = None,
    adapter: Adapter = None,
    pruned_model: PrunedModel = None,
    twins: Twins = "together",
    divergences: Divergences = None,
    dtype: Dtype = "auto",
    device: Device = None,
    device_map: DeviceMap = None,
    quantize: Quantize = None,
    max_length: MaxLength = None,
    last_turn_only: LastTurnOnly = False,
    packing: Packing = True,
    batch_tokens: BatchTokens = None,
    on_empty: OnEmpty = "drop",
    tokenizer: Tokenizer = None,
    dedup: Dedup = False,
    dedup_semantic: Semantic = False,
    match: MatchOption = "text",
    near_threshold: NearThreshold = 0.7,
    near_ngram: NearNgram = 3,
    near_numbers: NearNumbers = False,
    semantic_eps: SemanticEps = 0.05,
    decontaminate: Decontaminate = None,
    decontaminate_split: DecontaminateSplit = None,
    decontaminate_columns: DecontaminateColumns = None,
    decontaminate_ngram: DecontaminateNgram = 5,
    decontaminate_share: DecontaminateShare = 0.5,
    target: Target = None,
    target_split: TargetSplit = None,
    target_columns: TargetColumns = None,
    target_embeddings: TargetEmbeddings = None,
    always_keep: AlwaysKeep = None,
    never_keep: NeverKeep = None,
    seed: Seed = 0,
) -> None:
    """Hold the options of every verb that reads a source, once."""


def _reads(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb these options; it gets them as ``reading``, in the form of a recipe's fields."""
    shared = signature(_reading_options, eval_str=True).parameters
    own = signature(verb, eval_str=True).parameters

    @functools.wraps(verb)
    def run(**given: Any) -> None:
        mine = {name: given[name] for name in own if name != "reading"}
        verb(**mine, reading=_reading({**{name: given[name] for name in shared}, **mine}))

    every = [*(held for name, held in own.items() if name != "reading"), *shared.values()]
    run.__signature__ = Signature(  # type: ignore[attr-defined]
        [held.replace(kind=Parameter.KEYWORD_ONLY) for held in every]
    )
    run.__annotations__ = {held.name: held.annotation for held in every}
    return run


def _limited(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb that reads a source the option `--limit`, which holds for as long as it runs."""
    own = signature(verb, eval_str=True).parameters.values()

    @functools.wraps(verb)
    def run(limit: Limit = None, **given: Any) -> None:
        with limited(parse_limits(limit)):
            verb(**given)

    more = Parameter("limit", Parameter.KEYWORD_ONLY, default=None, annotation=Limit)
    every = [*(held.replace(kind=Parameter.KEYWORD_ONLY) for held in own), more]
    run.__signature__ = Signature(every)  # type: ignore[attr-defined]
    run.__annotations__ = {held.name: held.annotation for held in every}
    return run


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Prune and curate datasets for fine-tuning language models, with a reason for every row."""
    if version:
        from datapruner.version import __version__

        typer.echo(f"datapruner {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(cls=_Panels)
@_limited
@_reads
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
        "keep": _amount(keep),
        "keep_tokens": keep_tokens,
        "per_group": per_group,
        "quotas": _quotas(quota),
        "selector": _method(selector, selector_set),
        "format": format,
    }
    _carry_out(
        make_recipe(**arguments),
        out,
        overwrite=overwrite,
        report=report,
        quiet=quiet,
        hub=push_to_hub,
        trust_code=trust_code,
    )


@app.command(cls=_Panels)
@_limited
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
    _carry_out(recipe, out, overwrite=overwrite, report=report, quiet=quiet, trust_code=False, pairs=pairs)


@app.command(cls=_Panels)
@_limited
@_reads
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
@_limited
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

    chosen = _method(selector, selector_set)
    check_target(out, overwrite=overwrite, reads=[scores])
    _check_report(report)
    selection = load_scores(scores).select(
        scorer,
        keep=_amount(keep),
        keep_tokens=keep_tokens,
        per_group=per_group,
        quotas=_quotas(quota),
        selector=None if chosen is None else make_selector(chosen["name"], chosen["parameters"]),
    )
    selection.save(out, format=format, overwrite=overwrite, report=report)
    _summary(selection, out, quiet, report=report)


@app.command(cls=_Panels)
@_limited
@_reads
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
    _check_report(report)
    if not keep and not keep_tokens:
        raise DataPrunerError(
            "compare needs --keep, a fraction such as 0.3 or a number of rows such as 5000, or --keep-tokens"
        )
    amounts = [parse_amount(one) for one in keep or []]
    budgets_of(amounts, keep_tokens)
    chosen = _method(selector, selector_set)
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
        noise=_numbers(noise, "--noise"),
        embedders=None if embedders is None else embedders.split(","),
        second_embeddings=second_embeddings,
        progress=not quiet,
        trust_code=trust_code,
        **options,
    )
    comparison.save(out, overwrite=overwrite, report=report)
    if not quiet:
        typer.echo(f"{comparison.describe()}\n\n{safe_text(str(out))}" + _page(out) * report)


@app.command(cls=_Panels)
@_limited
@_reads
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


@app.command()
@_limited
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

    _carry_out(
        load_recipe(recipe),
        out,
        overwrite=overwrite,
        report=report,
        quiet=quiet,
        trust_code=trust_code,
        changed_source=changed_source,
    )


@app.command()
@_limited
def explain(
    out: Annotated[Path, typer.Argument(help="Folder that prune, select, run or score wrote.")],
    row: Annotated[int | None, typer.Option(help="Row of the source dataset, counted from 0.")] = None,
    match: Annotated[
        str | None, typer.Option(help="Find the row by a text that it holds, whatever its case.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Find the row by a column's value: id=abc; may be repeated.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Show the row too; the source is read again.")] = False,
    scorer: Annotated[str | None, typer.Option(help="Of scores by several scorers: whose rank.")] = None,
) -> None:
    """Say why a row was kept or dropped."""
    from datapruner.explaining import explain_row, explain_rows

    given = None if where is None else dict(_pair(one, "--where") for one in where)
    if row is not None and (match is not None or given):
        raise DataPrunerError("name the row by its number, or find it by --match and --where, not both")
    if row is None:
        lines = explain_rows(out, match, given, text=text, scorer=scorer, width=_width())
    else:
        lines = explain_row(out, row, text=text, scorer=scorer, width=_width())
    typer.echo("\n".join(lines))


@app.command()
@_limited
def inspect(
    source: Source,
    split: Split = None,
    columns: Columns = None,
    layout: Layout = None,
    examples: Annotated[int, typer.Option(help="Rows to show.")] = 3,
) -> None:
    """Show how a dataset will be read: layout, examples, lengths, nulls, duplicates."""
    from datapruner.samples import inspect_samples, load_samples, parse_mapping, render_text

    samples = load_samples(
        source, split=split, columns=parse_mapping(columns) if columns else None, layout=layout
    )
    typer.echo(render_text(inspect_samples(samples, examples=examples), width=_width()))


def _width() -> int:
    """Give the terminal's columns, or 100 where there is none."""
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


@app.command()
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


@app.command()
def doctor() -> None:
    """Show versions, threads, the cache, and which bundled models are here."""
    from datapruner.doctor import report

    typer.echo(report())


def main() -> None:
    """Run the command line: one sentence and exit code 2 for whatever the user can put right."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # One bar for the one long pass is ours; the libraries' own for loading weights and writing files are noise.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    _open_closed()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if len(sys.argv) > 2 and "--help" not in sys.argv:
        _make_warnings_harmless()
    told: list[int] = []
    try:
        with flags(), _terminated(told):
            code = app(prog_name="datapruner", standalone_mode=False)
    except DataPrunerError as error:
        with flags():
            _quit(str(error), 2)
    except UsageError as error:
        _quit(_usage(error), 2)
    except typer.Abort as error:
        if isinstance(error.__cause__, EOFError):  # typer takes it for a terminal's Ctrl-D
            _quit(f"something that is read ends too early ({error.__cause__}); get it anew", 2)
        code = INTERRUPTED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        os._exit(PIPE_CLOSED)
    except SystemExit as error:  # which is how typer tells of a closed pipe
        if isinstance(error.__context__, BrokenPipeError):
            os._exit(PIPE_CLOSED)
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT) or error.filename is not None:
            raise
        _quit(f"what is shown cannot be written: {error.strerror}", 2)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what a library in Rust gives up with
            raise
        _quit(f"a library gave up on a file or a row ({error}); is the model's or the tokenizer's whole?", 2)
    if code == INTERRUPTED:  # which is how later versions of typer tell of Ctrl-C
        how = "terminated" if told and told[0] != signal.SIGINT else "interrupted"
        code = 128 + told[0] if told else INTERRUPTED
        _quit(f"{how}; what was computed so far is kept and the same command goes on from there", code)
    sys.exit(code)


def _open_closed() -> None:
    """Open what was closed before the start (``>&-``) on nothing, or the next file that is opened gets its output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def _make_warnings_harmless() -> None:
    """Write what is warned of, by us and by libraries, without what a terminal would act on."""
    import logging

    from datapruner.text import safe_lines

    class Harmless(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return safe_lines(super().format(record))

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Harmless())


@contextmanager
def _terminated(told: list[int]) -> Iterator[None]:
    """Let SIGTERM, and SIGHUP where it is not ignored, end a run as Ctrl-C does; a second one ends it at once.

    So does a second Ctrl-C, which would otherwise show where in the clearing up it came.
    """
    owner = os.getpid()

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:  # a forked child
            os.kill(os.getpid(), number)
            return
        told.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, was in before.items():
            if was is not signal.SIG_IGN:  # nohup, and what a shell starts in the background
                signal.signal(number, stop)
        yield
    finally:
        for number, was in before.items():
            if number not in told:
                signal.signal(number, was)


def _usage(error: Any) -> str:
    """Give what is wrong with a command line, and where to read on."""
    if error.ctx is None:
        return str(error.format_message())
    unknown = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and unknown:
        sentence = _unknown(unknown, error.ctx)
    else:
        sentence = error.format_message().rstrip(".")
    where = f"see `{error.ctx.command_path} --help`"
    return f"{sentence} S{where[1:]}" if sentence.endswith("?") else f"{sentence}; {where}"


def _unknown(name: str, context: Any) -> str:
    """Name an option that is not there, and the one that may be meant."""
    opts = [opt for held in context.command.get_params(context) for opt in held.opts if opt.startswith("--")]
    known = {opt[2:].replace("-", "_"): opt for opt in opts}
    with flags():
        told = in_words(instead_of(name.lstrip("-").replace("-", "_"), known))
    for plain, opt in known.items():
        told = told.replace(f"'{plain}'", f"'{opt}'")
    return f"there is no option {name}{told}"


def _quit(sentence: str, code: int) -> None:
    from datapruner.text import safe_text

    with suppress(OSError):
        sys.stderr.write(f"datapruner: {safe_text(sentence)}\n")
        sys.stderr.flush()
    sys.exit(code)


def _check_report(wanted: bool) -> None:
    """Refuse a report that could not be written at the end."""
    if wanted:
        from datapruner.outputs.report import require_report

        require_report()


def _carry_out(
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
    from datapruner.outputs.folder import check_target

    check_target(out, overwrite=overwrite, reads=recipe.reads)
    _check_report(report)
    if hub is not None:
        from datapruner.outputs.dataset import check_repository

        check_repository(hub)
    say(f"reading {recipe.source or 'the rows'}", not quiet)
    from datapruner import api

    selection = api.run(recipe, progress=not quiet, trust_code=trust_code, changed_source=changed_source)
    selection.save(out, overwrite=overwrite, report=report)
    _summary(selection, out, quiet, report=report, pairs=pairs)
    if hub is not None:
        from datapruner.outputs.dataset import push_to_hub

        typer.echo(push_to_hub(selection, hub))


def _summary(selection: Selection, out: Path, quiet: bool, *, report: bool, pairs: int = 0) -> None:
    if quiet:
        return
    from datapruner.outputs.facets import find_labels
    from datapruner.outputs.warnings import warning_words
    from datapruner.samples.sample import column_list
    from datapruner.text import safe_text

    typer.echo("\n".join(selection.summary.lines(MOST_GROUPS)))
    read = {*selection.scores.recipe.strings(), selection.budget.per_group}
    if left := [name for name in selection.scores.samples.unread if name not in read]:
        typer.echo(f"{'':>10}  not read: {column_list(left)}")
    for pair in selection.pairs(pairs) if pairs else ():
        typer.echo(f"\n{_pair_lines(pair)}")
    for sentence in warning_words(selection, find_labels([selection])):
        typer.echo(f"\n{sentence}")  # its names are harmless already
    shown = safe_text(str(out))
    split = selection.scores.samples.split
    typer.echo(
        f'\n{shown}\n  load_dataset("{shown}", split="{safe_text(split)}")\n  datapruner explain {shown} --row 0'
        + _page(out) * report
    )


def _pair_lines(pair: Pair) -> str:
    """Show a dropped row above what it was dropped for, from a little before the place where they part."""
    from datapruner.cleaning.pairs import LEAK
    from datapruner.cleaning.telling import parted
    from datapruner.text import safe_text

    same = pair.text == pair.other_text or not pair.other_text
    rows = (pair.text, pair.other_text) if same else parted(pair.text, pair.other_text)
    other = "test row" if pair.cause == LEAK else "row"
    return (
        f"{pair.cause.replace('_', ' ')}, {pair.measure:.2f}\n  row {pair.row}: {safe_text(rows[0], 100)}\n  {other} "
        f"{pair.other}: {safe_text(rows[1], 100)}"
    )


def _page(out: Path) -> str:
    """Give the line that says which page to look at."""
    from datapruner.text import safe_text

    return f"\n  look at {safe_text(str(out / 'report.html'))}"


def _reading(given: dict[str, Any]) -> dict[str, Any]:
    """Turn the shared options into a recipe's fields."""
    from datapruner.samples import parse_mapping

    named = {"columns", "decontaminate_columns", "target_columns"}
    other = {"combine", "combine_within", "set_", "n_clusters", "dedup", "dedup_semantic"}
    shared = signature(_reading_options).parameters.keys()
    return {
        "source": given["source"],
        **{name: given[name] for name in shared - named - other},
        **{name: parse_mapping(given[name]) if given[name] else None for name in sorted(named)},
        "dedup": ["exact", "near"] * given["dedup"] + ["semantic"] * given["dedup_semantic"],
        "scorers": _combined(
            _scorers(
                _named(given.get("scorer", ["paser"]), combined=given["combine"] is not None),
                given["set_"] or [],
                given["n_clusters"],
                clustering=given["combine_within"] == "cluster",
            ),
            given["combine"],
            given["combine_within"],
            given["n_clusters"],
        ),
    }


def _named(names: list[str], *, combined: bool) -> list[str]:
    """Put the built-in scorers in the place of `all`, so that --set and --n-clusters find them."""
    from datapruner.comparison.scorers import UNRANKED
    from datapruner.scorers import BUILT_IN

    if "all" not in names:
        return names
    if combined:
        raise DataPrunerError("--combine joins the scorers that are named; name them instead of `all`")
    every = [name for name in BUILT_IN if name != UNRANKED]
    return list(dict.fromkeys([*(name for name in names if name != "all"), *every]))


def _combined(
    scorers: list[dict[str, Any]], by: str | None, within: str | None, n_clusters: int | None
) -> list[dict[str, Any]]:
    """Join scorers into one where that is asked for."""
    from datapruner.scorers import make_scorer

    if by is None:
        if within is not None:
            raise DataPrunerError("--combine-within needs --combine: say how the scorers are joined")
        return scorers
    parameters: dict[str, Any] = {"scorers": scorers, "by": by, "within": within}
    if within == "cluster" and n_clusters is not None:
        parameters["n_clusters"] = n_clusters
    make_scorer("combined", parameters)
    return [{"name": "combined", "parameters": parameters}]


def _scorers(
    names: list[str], settings: list[str], n_clusters: int | None, *, clustering: bool = False
) -> list[dict[str, Any]]:
    from dataclasses import fields

    from datapruner.scorers import make_scorer, scorer_class

    out: dict[str, dict[str, Any]] = {name: {} for name in names}
    if len(out) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataPrunerError(f"the scorer '{twice}' is named twice; name every scorer once")
    if n_clusters is not None:
        takers = [
            name for name in names if "n_clusters" in {spec.name for spec in fields(scorer_class(name))}
        ]
        if not takers and not clustering:
            raise DataPrunerError(f"--n-clusters is for scorers that cluster; {', '.join(names)} does not")
        for name in takers:
            out[name]["n_clusters"] = n_clusters
    for setting in settings:
        key, value = _pair(setting, "--set")
        scorer, dot, parameter = key.partition(".")
        if not dot:
            if len(names) != 1:
                raise DataPrunerError(f"say whose parameter it is: --set SCORER.{key}={value}")
            scorer, parameter = names[0], key
        if scorer not in out:
            raise DataPrunerError(f"--set {setting}: the scorer '{scorer}' is not in this run")
        out[scorer][parameter] = _value(value)
    for name, parameters in out.items():
        make_scorer(name, parameters)  # refused now, not after the model has run
    return [{"name": name, "parameters": parameters} for name, parameters in out.items()]


def _method(name: str | None, settings: list[str] | None) -> dict[str, Any] | None:
    from datapruner.selection.selectors import make_selector

    if name is None:
        if settings:
            raise DataPrunerError("--selector-set needs --selector")
        return None
    parameters = {key: _value(value) for key, value in (_pair(s, "--selector-set") for s in settings or [])}
    make_selector(name, parameters)
    return {"name": name, "parameters": parameters}


def _quotas(given: list[str] | None) -> dict[str, float | int]:
    from datapruner.selection.budget import parse_amount

    return {
        key: parse_amount(value, f"--quota {key}")
        for key, value in (_pair(q, "--quota") for q in given or [])
    }


def _amount(keep: str | None) -> float | int | None:
    from datapruner.selection.budget import parse_amount

    return None if keep is None else parse_amount(keep)


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise DataPrunerError(f"{option} takes numbers such as 0.25,0.5,1, not '{text}'") from None


def _pair(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.rpartition("=")
    if not equals or not key:
        raise DataPrunerError(f"{option} takes name=value, not '{text}'")
    return key, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError):
        from datapruner.text import safe_text

        raise DataPrunerError(
            f"'{safe_text(text, 40)}' has more digits, or is nested deeper, than is read"
        ) from None
