"""The options that every verb takes, for editors and type checkers; a test holds them equal to the recipe's fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypedDict

from numpy.typing import ArrayLike

from datapruner.choices import AutoPart, Match, Templates
from datapruner.guards.limits import Limits
from datapruner.recipe.option import declared, described
from datapruner.recipe.options import SECTIONS
from datapruner.recipe.options import Running as RunningSection

if TYPE_CHECKING:
    from datapruner.engines.base import Engine
    from datapruner.models.encoders import Encoder

SecondModel = str | Path | tuple[Any, Any] | Callable[[], tuple[Any, Any]]
"""A model beside the first: a name, objects of transformers, or what makes them."""


class Cleans(Protocol):
    """A cleaning step, see :class:`datapruner.cleaning.step.CleaningStep`."""

    name: ClassVar[str]

    def clean(self, left: Any) -> Any:
        """Say which rows to drop."""


Step = str | Mapping[str, Mapping[str, Any]] | Cleans
"""A cleaning step: its name, the name with its parameters, or an object."""


class Reading(TypedDict, total=False):
    """How rows are read, cleaned and measured: what :class:`datapruner.recipe.Recipe` says of these fields."""

    split: str | None
    columns: dict[str, str] | None
    layout: str | None
    source_column: str | None
    embedding_column: str | None
    pooling: Literal["auto", "mean", "last"]
    embedder_max_length: int | None
    embed: Literal["both", "prompt", "response"]
    similarity_context: bool
    vectors: Literal["embedding", "state", "sketch", "gradient"]
    manifold: Literal["umap", "pca"]
    manifold_dimensions: int
    n_neighbors: int
    adapter: str | None
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"]
    device: str | None
    device_map: str | None
    quantize: Literal["4bit", "8bit"] | None
    twins: Literal["together", "in_turn"]
    classifier_reads: Literal["auto", "chat", "text", "pair", "prompt", "response"]
    classifier_max_length: int | None
    judge_max_length: int | None
    sketch_dimension: int
    sketch_layers: str
    sketch_lengths: Literal["auto", "alike", "own"]
    sketch_checkpoints: list[str] | None
    sketch_rates: list[float] | None
    sketch_moments: Literal["auto", "adam", "none"]
    sketch_seed: int
    max_length: int | None
    last_turn_only: bool
    packing: bool
    batch_tokens: int | None
    on_empty: Literal["drop", "error", "keep"]
    on_error: Literal["stop", "drop"]
    tokenizer: str | None
    match: Match
    near_threshold: float
    near_ngram: int
    near_numbers: bool
    near_blanks: bool
    semantic_eps: float
    decontaminate: str | None
    decontaminate_split: str | None
    decontaminate_columns: dict[str, str] | None
    decontaminate_ngram: int
    decontaminate_share: float
    decontaminate_templates: Templates
    against: list[str] | None
    target: str | list[str] | dict[str, str] | None
    target_split: str | dict[str, str] | None
    target_columns: dict[str, str | dict[str, str]] | None
    target_embeddings: str | dict[str, str] | None
    target_share: dict[str, float] | None
    seed: int
    format: Literal["parquet", "jsonl", "arrow"]


class Measuring(Reading, total=False):
    """What :func:`datapruner.score` takes beside them, except the models."""

    embeddings: str | Path | ArrayLike | None
    embedder: str | Encoder
    reference_model: SecondModel | None
    classifier: str | Path | tuple[Any, Any] | None
    judge: str | Path | tuple[Any, Any] | None
    always_keep: str | ArrayLike | None
    never_keep: str | ArrayLike | None
    dedup: bool | Sequence[str]
    cleaning: Sequence[Step]
    count_tokens: bool
    cache: str | Path | None
    engine: str | Engine
    workers: int | None
    ray_address: str | None
    num_gpus: float | None
    progress: bool
    trust_code: bool
    limits: Limits | None


class Scoring(Measuring, total=False):
    """Everything that :func:`datapruner.score` takes, except the scorers."""

    model: str | Path | tuple[Any, Any] | None
    pruned_model: SecondModel | None
    divergences: str | Path | ArrayLike | None


class Choosing(Scoring, total=False):
    """What verbs take beside them that rank by the default recipe where no scorer is named."""

    without: str | Sequence[AutoPart] | None


class ScoringReading(Choosing, total=False):
    """What :func:`datapruner.score` takes beside the scorers: a column of groups is looked for before a model runs."""

    per_group: str | None


class Running(TypedDict, total=False):
    """How a recipe is run: what it does not hold."""

    cache: str | Path | None
    engine: str | Engine
    workers: int | None
    ray_address: str | None
    num_gpus: float | None
    progress: bool
    trust_code: bool
    changed_source: bool
    limits: Limits | None


DECLARED = {one.name: one for section in (*SECTIONS, RunningSection) for one in declared(section)}
DEFAULTS: Mapping[str, Any] = {name: one.default for name, one in DECLARED.items()} | {
    "dedup": False,
    "cleaning": (),
}
"""Of everything that the verbs take as further options."""


SELECTING = frozenset({"scorer", "selector", "keep", "keep_tokens", "quotas", "group_share"})
"""A recipe's fields of the selection; `per_group` is taken, to find a typo before a model runs."""
_PARAMETERS = (
    "these are a scorer's own parameters; give an object, such as datapruner.scorers.Prototypes(n_clusters=8)"
)
SCORERS_OWN = dict.fromkeys(("n_clusters", "set", "parameters", "scorer_params"), _PARAMETERS)
_WRITES = "the result is written by its own save(FOLDER)"
RESULTS_OWN = dict.fromkeys(("out", "output", "output_dir", "overwrite", "report", "push_to_hub"), _WRITES)


def notes(*options: type) -> str:
    """Give what is said of some options where they are declared, as numpydoc, for the help of a verb."""
    return described(DECLARED[name] for of in options for name in of.__annotations__)
