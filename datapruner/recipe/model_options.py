"""The sections of a recipe that say which models measure rows, and how; see :mod:`datapruner.recipe.options`."""

# No `from __future__ import annotations`: what is said of a field is read from its annotation.

from typing import Annotated, Literal

from annotated_types import Ge, Lt

from datapruner.recipe.option import Option, Section


class Embedding(Section):
    """Embeddings."""

    embeddings: Annotated[
        str | None,
        Option(
            ".npy or .parquet with one vector a row.", python="Or an array of shape (n, d).", metavar="FILE"
        ),
    ] = None
    embedding_column: Annotated[
        str | None, Option("Column that holds one vector a row.", metavar="COLUMN")
    ] = None
    embedder: Annotated[
        str,
        Option(
            "minilm, or a model's path or hub name.",
            python="Or any object with ``encode(list[str])``.",
            metavar="MODEL",
            complete="models",
        ),
    ] = "minilm"
    pooling: Annotated[
        Literal["auto", "mean", "last"],
        Option("How states become a vector; mean and last read a language model's states."),
    ] = "auto"
    embedder_max_length: Annotated[
        int | None, Ge(1), Option("Tokens an embedder reads; default: its own limit.")
    ] = None
    embed: Annotated[Literal["both", "prompt", "response"], Option("What is embedded of a row.")] = "both"
    similarity_context: Annotated[
        bool,
        Option(
            "Compare rows with their system turns and with what many of them share; left out else. It counts for near "
            "and semantic duplicates, leaks, clusters and whatever reads vectors."
        ),
    ] = False
    vectors: Annotated[
        Literal["embedding", "state", "sketch", "gradient"],
        Option(
            "What clusters, neighbours and coverage compare rows by: an embedder's vectors, the language model's "
            "states, or what its output layer (sketch) or all layers (gradient) would learn of a row."
        ),
    ] = "embedding"
    manifold: Annotated[Literal["umap", "pca"], Option("pca is fast and the same on every machine.")] = "umap"
    manifold_dimensions: Annotated[int, Ge(1), Option("Dimensions of the manifold; 1 to 3 for topology.")] = 2
    n_neighbors: Annotated[int, Ge(2), Option("Neighbours a row, itself counted, for UMAP.")] = 15


class LanguageModel(Section):
    """Language model."""

    model: Annotated[
        str | None,
        Option(
            "Causal language model for scorers of losses: path, hub name or alias.",
            python="Or the pair (model, tokenizer) of transformers.",
            metavar="MODEL",
            complete="models",
        ),
    ] = None
    adapter: Annotated[
        str | None,
        Option("LoRA adapter on top of it; a path to one may be the model too.", metavar="PATH"),
    ] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16", "float64"], Option("Precision of the model.")
    ] = "auto"
    device: Annotated[
        str | None, Option("cpu, cuda, cuda:1, ...; default: CUDA where there is one.", metavar="DEVICE")
    ] = None
    device_map: Annotated[
        str | None, Option("auto spreads the model over all devices (accelerate).", metavar="MAP")
    ] = None
    quantize: Annotated[Literal["4bit", "8bit"] | None, Option("Smaller weights (bitsandbytes, CUDA).")] = (
        None
    )


class PrunedModel(Section):
    """Pruned model (paser, damage)."""

    pruned_model: Annotated[
        str | None,
        Option(
            "The same model after pruning, for `paser`: folder, hub name, pickle or module:function.",
            python="Or the pair (model, tokenizer) of transformers, or a function that gives it; see "
            ":func:`datapruner.models.load_pruned_lm`.",
            metavar="MODEL",
        ),
    ] = None
    twins: Annotated[
        Literal["together", "in_turn"],
        Option("Both models in memory together, or in_turn: the dense one's states are stored."),
    ] = "together"
    divergences: Annotated[
        str | None,
        Option(
            "Measured before, instead of both models: .npy, or .parquet with a column jsd.",
            python="Or an array of shape (n,): the Jensen-Shannon divergence of every row, nats.",
            metavar="FILE",
        ),
    ] = None


class ReferenceModel(Section):
    """Reference model (excess_loss, preference_margin)."""

    reference_model: Annotated[
        str | None,
        Option(
            "A better model of the same tokens, whose losses those of --model are held against: as --pruned-model "
            "takes it.",
            python="Or the pair (model, tokenizer) of transformers, or a function that gives it.",
            metavar="MODEL",
        ),
    ] = None


class Judges(Section):
    """Models that give scores (classifier, judge)."""

    classifier: Annotated[
        str | None,
        Option(
            "Sequence classifier or reward model for the scorer `classifier`: path or hub name.",
            python="Or the pair (model, tokenizer) of transformers.",
            metavar="MODEL",
        ),
    ] = None
    classifier_reads: Annotated[
        Literal["auto", "chat", "text", "pair", "prompt", "response"],
        Option(
            "What it is given of a row: its chat template's rendering, the turns as one text, prompt and answer as a "
            "pair, or one of them; auto: chat where it has a template, else text."
        ),
    ] = "auto"
    classifier_max_length: Annotated[
        int | None, Ge(2), Option("Tokens that it reads; default: its own limit, at most 2048.")
    ] = None
    judge: Annotated[
        str | None,
        Option(
            "Causal language model that grades rows, for the scorer `judge`: path, hub name or alias.",
            python="Or the pair (model, tokenizer) of transformers.",
            metavar="MODEL",
            complete="models",
        ),
    ] = None
    judge_max_length: Annotated[
        int | None, Ge(2), Option("Tokens that it reads, the grading prompt's among them; default: as above.")
    ] = None


class Sketches(Section):
    """Sketches of gradients."""

    sketch_dimension: Annotated[
        int,
        Ge(0),
        Option(
            "Numbers a row that a sketch of its gradient has, at most; 0 projects nothing, for models that are tiny."
        ),
    ] = 4096
    sketch_layers: Annotated[
        str,
        Option(
            "Linear layers of the body in `gradient_sketch`: all of the model's, lora for an adapter's own, or a "
            "pattern of their names such as *.down_proj; auto: lora for adapters in --sketch-checkpoints, else all.",
            metavar="auto|all|lora|PATTERN",
        ),
    ] = "auto"
    sketch_lengths: Annotated[
        Literal["auto", "alike", "own"],
        Option(
            "Every layer's part of `gradient_sketch` has length one, or keeps its own; auto: its own, as published, "
            "with --sketch-checkpoints, else alike."
        ),
    ] = "auto"
    sketch_checkpoints: Annotated[
        list[str] | None,
        Option(
            "Checkpoints of a short training on some of the rows (LESS), whose gradients `gradient_sketch` takes in "
            "place of the model's: a folder each, or the trainer's. Repeatable.",
            metavar="FOLDER",
        ),
    ] = None
    sketch_rates: Annotated[
        list[float] | None,
        Option(
            "How much each of these counts; default: its mean learning rate by its trainer_state.json. Repeatable.",
            metavar="RATE",
        ),
    ] = None
    sketch_moments: Annotated[
        Literal["auto", "adam", "none"],
        Option(
            "Scale rows' gradients as Adam would, by the optimizer.pt beside a checkpoint; auto: where "
            "--sketch-checkpoints have one."
        ),
    ] = "auto"
    sketch_seed: Annotated[
        int,
        Ge(0),
        Lt(2**32),
        Option("Seed of the sketches' random projections: with another, they are made again."),
    ] = 0
