"""The sections of a recipe: every option that is a field of it, declared and described once.

The recipe is made of these classes, in this order, those of models from :mod:`datapruner.recipe.model_options`; the
command line, its help, the reference pages and what Python's help says of the verbs' further options come from them.
Only what needs no heavy library stands here.
"""

# No `from __future__ import annotations`: what is said of a field is read from its annotation.

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from datapruner.choices import AutoPart, Match, Templates
from datapruner.recipe.model_options import (
    Embedding,
    Judges,
    LanguageModel,
    PrunedModel,
    ReferenceModel,
    Sketches,
)
from datapruner.recipe.option import Option, Section

DEFAULT_SCORER = "auto"
"""What chooses where no scorer is named, after the cleaning of the default recipe: :mod:`datapruner.recipe.auto`."""


class Source(Section):
    """How rows are read."""

    source: Annotated[
        str | list[str] | dict[str, str] | None,
        Option(
            "File, glob, folder, or hub name org/name[:config][@revision]; several are read one after another.",
            "SOURCE...",
            python="Several as a list, or as a mapping of a name to each.",
        ),
    ] = None
    source_column: Annotated[
        str | None,
        Option(
            "The column that names each row's source, where there are several; default: source.",
            metavar="COLUMN",
        ),
    ] = None
    source_content: Annotated[
        str | None,
        Option(
            "The hash of what was read, which a saved result has: whoever runs its recipe on another content is told.",
            "",
        ),
    ] = None
    inputs_content: Annotated[
        dict[str, str],
        Option(
            "The same of each of several sources and of what else was read: the rows of --decontaminate and --target, "
            "and the bytes of --embeddings, --target-embeddings and --divergences.",
            "",
        ),
    ] = {}  # noqa: RUF012 - pydantic copies it
    in_memory: Annotated[
        list[str],
        Option(
            "What was given as an object that no recipe can name (source, embedder, scorer NAME, ...), so that only "
            "the same call with these objects makes the result again.",
            "",
        ),
    ] = []  # noqa: RUF012
    split: Annotated[str | None, Option("Split to prune; the others are carried over.")] = None
    columns: Annotated[
        dict[str, str] | None,
        Option("Which column plays which role: question=Q,answer=A.", metavar="ROLE=COLUMN,..."),
    ] = None
    layout: Annotated[str | None, Option("Layout, where detection should not decide.", metavar="NAME")] = None


class Rows(Section):
    """What is read of a row."""

    max_length: Annotated[
        int | None, Ge(2), Option("Tokens of a row that the model reads; default: its limit, at most 2048.")
    ] = None
    last_turn_only: Annotated[bool, Option("Supervise the last assistant turn alone.")] = False
    packing: Annotated[bool, Option("Rows share sequences without padding.")] = True
    batch_tokens: Annotated[
        int | None, Ge(1), Option("Tokens a forward pass; halved where memory runs out.")
    ] = None
    on_empty: Annotated[
        Literal["drop", "error", "keep"],
        Option(
            "Rows whose answer says nothing, or of which a model would supervise no token: drop them, make them an "
            "error, or keep them."
        ),
    ] = "drop"
    on_error: Annotated[
        Literal["stop", "drop"],
        Option(
            "A row on which a model, an embedder or the chat template fails: stop and name it, or measure the others "
            "and drop it with that reason."
        ),
    ] = "stop"
    tokenizer: Annotated[
        str | None,
        Option("Counts tokens; default: the model's, else SmolLM2's.", metavar="MODEL", complete="models"),
    ] = None
    count_tokens: Annotated[
        bool, Option("Count tokens even if no scorer needs them, for token budgets later on.")
    ] = False


class Cleaning(Section):
    """Cleaning, before anything is scored."""

    dedup: Annotated[
        list[Literal["exact", "near", "semantic"]],
        Option(
            "Which duplicates are dropped: exact, near, semantic (SemDeDup).",
            "",
            python="True means exact and near.",
        ),
    ] = []  # noqa: RUF012
    match: Annotated[
        Match,
        Option("Exact duplicates: exact, byte for byte; text, but for white space; loose, but for case too."),
    ] = "text"
    near_threshold: Annotated[float, Gt(0), Le(1), Option("Jaccard similarity of near duplicates.")] = 0.7
    near_ngram: Annotated[int, Ge(1), Le(1000), Option("Words a shingle.")] = 3
    near_numbers: Annotated[bool, Option("Rows with other numbers are no near duplicates.")] = False
    near_blanks: Annotated[
        bool,
        Option(
            "Rows that fill in one template otherwise, or are alike by what many rows have, are no near duplicates."
        ),
    ] = False
    semantic_eps: Annotated[float, Gt(0), Le(2), Option("1 - cosine of semantic duplicates.")] = 0.05
    decontaminate: Annotated[
        str | None,
        Option("Test set whose rows must not be in the data.", metavar="SOURCE"),
    ] = None
    decontaminate_split: Annotated[
        str | None,
        Option(
            "Its split; default: test where there is one. Without --decontaminate: a split of the source.",
            metavar="SPLIT",
        ),
    ] = None
    decontaminate_columns: Annotated[
        dict[str, str] | None,
        Option("Which column of the test set plays which role: text=question.", metavar="ROLE=COLUMN,..."),
    ] = None
    decontaminate_ngram: Annotated[int, Ge(1), Le(1000), Option("Words an n-gram.")] = 5
    decontaminate_share: Annotated[
        float, Gt(0), Le(1), Option("Share of a test row's n-grams that condemns a row.")
    ] = 0.5
    decontaminate_templates: Annotated[
        Templates,
        Option(
            "n-grams that many test rows share count little, as a template's; both: or many training rows."
        ),
    ] = "both"
    against: Annotated[
        list[str] | None,
        Option(
            "An earlier result, or any set, whose rows must not come again: copies of its rows and near duplicates go. "
            "May be repeated.",
            metavar="SOURCE",
        ),
    ] = None
    cleaning: Annotated[
        list[Any],
        Option(
            "Cleaning steps: names (`rules` is all rules), or {name: {parameter: value}}; `datapruner parts cleaning`.",
            "",
        ),
    ]


class Target(Section):
    """Target set (nearest_target, mappings)."""

    target: Annotated[
        str | list[str] | dict[str, str] | None,
        Option(
            "Set whose likes are looked for; without a scorer by `nearest_target`. May be repeated, a task each: "
            "math=dev.jsonl.",
            python="A source, a list of them, or a mapping of a task's name to its source.",
            metavar="[TASK=]SOURCE",
        ),
    ] = None
    target_split: Annotated[
        str | dict[str, str] | None,
        Option(
            "Its split; default: train where there is one. Of one task: math=test.",
            metavar="[TASK=]SPLIT",
        ),
    ] = None
    target_columns: Annotated[
        dict[str, str | dict[str, str]] | None,
        Option(
            "Which column of the target plays which role: question=Q,answer=A. Of one task: math:question=Q.",
            python="Or a mapping of a task's name to such a mapping.",
            metavar="[TASK:]ROLE=COLUMN,...",
        ),
    ] = None
    target_embeddings: Annotated[
        str | dict[str, str] | None,
        Option(
            "Its vectors, .npy or .parquet, where --embeddings are given. Of one task: math=dev.npy.",
            metavar="[TASK=]FILE",
        ),
    ] = None
    target_share: Annotated[
        dict[str, float] | None,
        Option(
            "How many rows a task gets beside the others, each 1 unless it is said: math=2 gets twice as many.",
            metavar="TASK=SHARE",
        ),
    ] = None


class Scoring(Section):
    """Scorers."""

    # The types of what holds parameters, and their defaults, stand in the recipe, which checks them.
    scorers: Annotated[list[Any], Option("What ranks the rows, with its parameters.", "")]
    without: Annotated[
        list[AutoPart] | None,
        Option(
            "Parts that the default recipe leaves out: leaks, copies, rules, noise, shares. It is what runs where no "
            "scorer is named.",
            "",
            python="With a scorer, that one chooses, after the cleaning of the default recipe; [] leaves nothing out.",
        ),
    ] = None
    scorer: Annotated[str | None, Option("Which of several scorers chooses.", "")] = None
    selector: Annotated[Any, Option("How rows are taken; default: as the method was published.", "")]


class Budget(Section):
    """What is kept."""

    keep: Annotated[
        int | float | None,
        Option("Fraction such as 0.3, or number of rows such as 5000.", metavar="AMOUNT"),
    ] = None
    keep_tokens: Annotated[int | None, Option("Number of supervised tokens to keep.")] = None
    per_group: Annotated[
        str | None,
        Option(
            "Column whose values share the budget: in proportion to their rows, or where no scorer is named equally "
            "(--set power=1: in proportion).",
            metavar="COLUMN",
        ),
    ] = None
    quotas: Annotated[
        dict[str, int | float],
        Option(
            "math=0.5 keeps half of math's own rows, math=400 so many; tokens under --keep-tokens.",
            "--quota",
            metavar="GROUP=AMOUNT",
        ),
    ] = {}  # noqa: RUF012
    group_share: Annotated[
        dict[str, float],
        Option(
            "math=0.3 makes math 0.3 of what is kept; the groups of which nothing is said share the rest, as "
            "--per-group says. Of several sources, unless --per-group names a column.",
            metavar="GROUP=SHARE",
        ),
    ] = {}  # noqa: RUF012


class Lists(Section):
    """What is kept."""

    always_keep: Annotated[
        str | list[int] | None,
        Option(
            "Boolean column of rows that are always kept.",
            python="Or a boolean mask, or row numbers.",
            metavar="COLUMN",
        ),
    ] = None
    never_keep: Annotated[
        str | list[int] | None,
        Option(
            "Boolean column of rows that are never kept.",
            python="Or a boolean mask, or row numbers.",
            metavar="COLUMN",
        ),
    ] = None
    seed: Annotated[int, Ge(0), Lt(2**32), Option("Seed of everything random.")] = 0


class Output(Section):
    """Result."""

    format: Annotated[
        Literal["parquet", "jsonl", "arrow"], Option("Format of the data; arrow is save_to_disk's.")
    ] = "parquet"


SECTIONS: tuple[type[Section], ...] = (
    Source,
    Embedding,
    LanguageModel,
    PrunedModel,
    ReferenceModel,
    Judges,
    Sketches,
    Rows,
    Cleaning,
    Target,
    Scoring,
    Budget,
    Lists,
    Output,
)
"""All that a recipe is made of, in the order in which it is saved."""


class Running(Section):
    """How it runs."""

    cache: Annotated[
        str | None,
        Option(
            "Folder of the signals, or an address such as s3://bucket/prefix; default: DATAPRUNER_CACHE, else the "
            "user's cache folder.",
            metavar="FOLDER",
        ),
    ] = None
    engine: Annotated[
        str,
        Option(
            "Who measures rows that are not stored: local, processes of this machine, or ray, actors of a cluster. The "
            "result does not depend on it.",
            python="Or an object.",
            metavar="NAME",
            complete="engines",
        ),
    ] = "local"
    workers: Annotated[
        int | None,
        Option(
            "Processes that measure rows; default: this one alone, and with --engine=ray one for each GPU, or for each "
            "machine.",
            metavar="NUMBER",
            least=1,
        ),
    ] = None
    ray_address: Annotated[
        str | None,
        Option("The cluster; default: RAY_ADDRESS, else one of the run's own.", metavar="ADDRESS"),
    ] = None
    num_gpus: Annotated[
        float | None,
        Option("GPUs a worker of --engine=ray; default: 1 where there are any.", metavar="NUMBER"),
    ] = None
    progress: Annotated[bool, Option("Show progress on a terminal.", "")] = True
    trust_code: Annotated[bool, Option("Run the code of a second model: module:function, or a pickle.")] = (
        False
    )
    changed_source: Annotated[
        bool, Option("Go on where the source, or another input, is not what the recipe was saved with.")
    ] = False
    limits: Annotated[
        dict[str, int | str] | None,
        Option(
            "How much of a source is taken before it is refused: row_bytes=100MB. The names are those of "
            "`datapruner.guards.limits.DEFAULTS`.",
            "--limit",
            metavar="NAME=SIZE",
        ),
    ] = None
