"""The options of the verbs, and those that every verb takes which reads a source."""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from datapruner.cli import words
from datapruner.limits import limited, parse_limits

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


def reads(verb: Callable[..., None]) -> Callable[..., None]:
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


def takes_limits(verb: Callable[..., None]) -> Callable[..., None]:
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
        "scorers": words.combined(
            words.scorers_of(
                words.named(given.get("scorer", ["paser"]), combined=given["combine"] is not None),
                given["set_"] or [],
                given["n_clusters"],
                clustering=given["combine_within"] == "cluster",
            ),
            given["combine"],
            given["combine_within"],
            given["n_clusters"],
        ),
    }
