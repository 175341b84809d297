"""Merge the needs of all scorers in a run into the fewest passes, and make them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.checksums import check_file
from datapruner.cleaning.own_text import OwnText
from datapruner.errors import DataPrunerError, in_words
from datapruner.geometry.blocks import iter_blocks, normalise_rows
from datapruner.models.embedders import load_image_embedder, load_text_embedder
from datapruner.models.encoders import Encoder, Named
from datapruner.models.known import opening
from datapruner.models.names import DEFAULT_TOKENIZER, first_line
from datapruner.models.tokenizers import load_tokenizer
from datapruner.paths import expanded
from datapruner.progress import PASSES, Ahead, say
from datapruner.signals import COLUMN, KNOWN, TARGET
from datapruner.signals.embedding import (
    check_embeddings,
    column_embeddings,
    embed_and_tell,
    embed_images,
    embed_with_encoder,
    load_npy,
    read_embeddings,
)
from datapruner.signals.store import SignalStore, row_keys
from datapruner.text import safe_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from datapruner.geometry.blocks import Matrix
    from datapruner.models.encoders import ImageEmbedder, TokenEmbedder
    from datapruner.models.known import Known, Opening
    from datapruner.recipe import Recipe
    from datapruner.samples.rendered import Rendered, TokenCounts
    from datapruner.samples.samples import Samples
    from datapruner.scorers.base import Scorer
    from datapruner.signals.readers import LanguageModel, NamedModel
    from datapruner.signals.records import What

    Renderer = Callable[[Samples, NDArray[np.int64]], Iterator[Rendered]]

logger = logging.getLogger(__name__)

OF_RESPONSES = frozenset({"response_log_ppl", "response_token_nll"})
OF_ROWS = frozenset(
    {"log_ppl", "entropy", "el2n", "grad_norm", "weight_dot", "weight_norm", "token_nll", "token_entropy"}
    | {"number_surprise"}
)
"""The signals of the two passes of a language model."""
OF_AGREEMENT = frozenset({"pruned_grad_norm", "gradient_dot"})
OF_TWINS = frozenset({"jsd", "token_jsd", "pruned_log_ppl", "pruned_token_nll"}) | OF_AGREEMENT
"""The signals of the pass of two models."""
OF_GRADIENTS = frozenset({"el2n", "grad_norm", "weight_dot"})


@dataclass(frozen=True)
class Plan:
    """Which signals a run measures.

    Attributes
    ----------
    embedding, tokens, text, manifold, label, target : bool
    language_model, responses : bool
        The forward pass over the rows, and the one over the assistant's turns alone.
    twins, gradients, agreement : bool
        The pass of the dense and the pruned model, which serves the dense model's losses too; whether these need the
        gradients; whether the two models' gradients are compared.
    divergences : bool
        The divergences are read from a file instead.
    numbers : bool
        Final numbers are looked for among the tokens.
    columns : tuple of str
        Columns that scorers read as groups.
    tokens_required : bool
        A scorer or the budget needs them: a dataset without text is then an error.
    cleaning : bool
        A cleaning step reads the texts.
    reads_texts : bool
        It, a language model or the embedder reads the texts of all rows.
    """

    embedding: bool
    manifold: bool
    neighbours: bool
    label: bool
    target: bool
    tokens: bool
    text: bool
    language_model: bool
    responses: bool
    twins: bool
    gradients: bool
    agreement: bool
    divergences: bool
    numbers: bool
    columns: tuple[str, ...]
    tokens_required: bool
    cleaning: bool
    reads_texts: bool


def make_plan(recipe: Recipe, scorers: Sequence[Scorer]) -> Plan:
    """Work out what the scorers, the cleaning steps and the budget need.

    Raises
    ------
    DataPrunerError
        A scorer needs a signal that does not exist.
    """
    needs: set[str] = set()
    for scorer in scorers:
        for need in (need for need in scorer.requires - KNOWN.keys() if not need.startswith(COLUMN)):
            raise DataPrunerError(
                f"the scorer '{scorer.name}' needs a signal '{need}'; there are {', '.join(KNOWN)}"
            )
        needs |= scorer.requires
    given = _check_twins(recipe, scorers)
    if needs & (OF_ROWS | OF_RESPONSES) and recipe.model is None and "model" not in recipe.in_memory:
        named = next(scorer.name for scorer in scorers if scorer.requires & (OF_ROWS | OF_RESPONSES))
        raise DataPrunerError(
            f"the scorer '{named}' reads a language model's losses: name the model that you will train with --model, "
            f"a folder or a hub name, or {DEFAULT_TOKENIZER} (small, and bundled)"
        )
    _check_target(recipe, scorers)
    required = recipe.keep_tokens is not None or bool(needs & {"num_tokens", "num_supervised_tokens"})
    embedding = bool(needs & {"embedding", "manifold", "neighbours"}) or "semantic" in recipe.dedup
    twins = bool(needs & OF_TWINS) and not given
    cleaning = (
        bool({"exact", "near"} & set(recipe.dedup))
        or recipe.decontaminate is not None
        or recipe.on_empty != "keep"
    )
    return Plan(
        tokens_required=required,
        embedding=embedding,
        manifold="manifold" in needs,
        neighbours="neighbours" in needs,
        label="label" in needs,
        target=TARGET in needs,
        tokens=recipe.count_tokens or required,
        text="text" in needs,
        language_model=bool(needs & OF_ROWS),
        responses=bool(needs & OF_RESPONSES),
        twins=twins,
        gradients=bool(needs & OF_GRADIENTS),
        agreement=bool(needs & OF_AGREEMENT),
        divergences=given,
        numbers="number_surprise" in needs,
        columns=tuple(sorted(need.removeprefix(COLUMN) for need in needs if need.startswith(COLUMN))),
        cleaning=cleaning,
        reads_texts=cleaning
        or twins
        or bool(needs & (OF_ROWS | OF_RESPONSES))
        or (embedding and not recipe.has_embeddings),
    )


def measure_embedding(
    recipe: Recipe,
    samples: Samples,
    rows: NDArray[np.int64],
    store: SignalStore,
    *,
    embeddings: Any = None,
    embedder: Encoder | None = None,
    own: OwnText | None = None,
    progress: bool = True,
    name: str = "embedding",
    unread: NDArray[np.bool_] | None = None,
) -> Matrix:
    """Get one vector for each of ``rows``: given ones, a column, images, or the embedder's.

    Parameters
    ----------
    recipe : Recipe
    samples : Samples
    rows : ndarray, int64, ascending
        The rows that cleaning left.
    store : SignalStore
    embeddings : array of shape (n, d), optional
        Given in memory.
    embedder : Encoder, optional
        Given as an object.
    own : OwnText, optional
        What of the rows' texts is embedded, where that is known already.
    progress : bool
    name : str
        Of the pass.
    unread : ndarray, bool, shape (n,), optional
        Is set where the embedder knows too little of a source row for its vector to say anything.

    Returns
    -------
    Matrix, shape (len(rows), d)
    """
    given = _given_embeddings(recipe, samples, embeddings)
    if given is not None:
        from datapruner.geometry.blocks import RowView

        return given if len(rows) == len(samples) else RowView(given, rows)
    own = OwnText(samples, recipe.similarity_context) if own is None else own
    made = _make_embedding(recipe, samples, rows, store, embedder, own, progress, name, unread)
    # Here, while the rows' source positions are known: later stages count among those that cleaning left.
    for start, stop, block in iter_blocks(made):
        normalise_rows(block, rows[start:stop])
    return made


def _make_embedding(
    recipe: Recipe,
    samples: Samples,
    rows: NDArray[np.int64],
    store: SignalStore,
    embedder: Encoder | None,
    own: OwnText,
    progress: bool,
    name: str,
    unread: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    if samples.layout.name == "image":
        images = _Images(samples, rows)
        model = _image_model(recipe)

        def load_images() -> ImageEmbedder:
            say(f"loading the image model {model}", progress)
            return load_image_embedder(model)

        seeing = Named(load_images, lambda: opening("image model", model, store.notes, device=None))
        return embed_images(images, seeing, store, progress=progress, name=name)
    texts = list(own.texts(recipe.embed, None if len(rows) == len(samples) else rows))
    if embedder is not None:
        return embed_with_encoder(texts, embedder, store, progress=progress, name=name)
    how: dict[str, Any] = {"pooling": recipe.pooling, "max_length": recipe.embedder_max_length}

    def load() -> TokenEmbedder:
        say(f"loading the embedder {recipe.embedder}", progress)
        return load_text_embedder(recipe.embedder, **how)

    named = Named(load, lambda: opening("embedder", recipe.embedder, store.notes, device=None, **how))
    vectors, reading = embed_and_tell(texts, named, store, progress=progress, name=name)
    _tell_reading(reading, rows, name)
    if unread is not None:
        unread[rows[_is_unread(reading)]] = True
    return vectors


def _is_unread(reading: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark rows most of whose tokens, but for the two that frame a row, are unknown: their vectors say nothing."""
    return np.asarray(2 * reading[:, 1] > np.maximum(reading[:, 0] - 2, 1))


def _tell_reading(reading: NDArray[np.float32], rows: NDArray[np.int64], name: str) -> None:
    """Say how many rows the embedder read in part, or not at all."""
    tokens, read = reading[:, 0], reading[:, 2]
    if (cut := tokens > read).any():
        logger.warning(
            "%s: %s of %s rows are longer than the %s tokens that the embedder reads, and their middle was cut, up to "
            "%.0f %% of a row; %s sets the limit",
            safe_text(name),
            f"{int(cut.sum()):,}",
            f"{len(rows):,}",
            f"{int(read.max()):,}",
            100 * float((1 - read[cut] / tokens[cut]).max()),
            in_words("--embedder-max-length"),
        )
    if (unread := _is_unread(reading)).any():
        first = int(np.argmax(unread))
        logger.warning(
            "%s: %s of %s rows are in a script that the embedder's vocabulary does not hold (row %s: %s of %s tokens "
            "unknown): their vectors say next to nothing, and none of them is dropped as a semantic duplicate; name a "
            "model that reads it with %s",
            safe_text(name),
            f"{int(unread.sum()):,}",
            f"{len(rows):,}",
            int(rows[first]),
            int(reading[first, 1]),
            int(tokens[first]),
            in_words("--embedder"),
        )


def measure_target(
    recipe: Recipe,
    samples: Samples,
    store: SignalStore,
    *,
    given: bool,
    own: OwnText | None = None,
    embedder: Encoder | None = None,
    progress: bool = True,
    read: Callable[[Samples], None] = lambda _: None,
) -> dict[str, Matrix]:
    """Get one vector for each row of the target set, made as those of the rows are.

    Parameters
    ----------
    recipe : Recipe
    samples : Samples
        The rows that are chosen from.
    store : SignalStore
    given : bool
        Their vectors were given in memory.
    own : OwnText, optional
        Of the rows: what is left out of their texts is left out of the target's.
    embedder : Encoder, optional
        Given as an object.
    progress : bool
    read : callable
        Is told the target's rows, and may refuse them.
    """
    from datapruner.samples import load_samples

    file, column = recipe.target_embeddings, recipe.embedding_column
    given = given or bool(recipe.embeddings or column) or samples.layout.name == "embedding"
    try:
        target = load_samples(
            recipe.target,
            split=recipe.target_split,
            columns=recipe.target_columns,
            embeddings_given=bool(file or column),
        )
        read(target)
        if given and not (file or column) and target.layout.name != "embedding":
            raise DataPrunerError(
                "the rows' vectors are given, so its own have to be as well; pass them with --target-embeddings"
            )
        as_its = recipe.model_copy(
            update={"embeddings": file, "embedding_column": None if file is not None else column}
        )
        every = np.arange(len(target), dtype=np.int64)
        own = OwnText(samples, recipe.similarity_context) if own is None else own
        found = measure_embedding(
            as_its,
            target,
            every,
            store,
            embedder=embedder,
            own=own.of(target),
            progress=progress,
            name="embedding the target",
        )
        return {TARGET: found}
    except DataPrunerError as error:
        said = error.sentence
        for option in ("columns", "split", "embeddings"):
            said = said.replace(f"--{option}", f"--target-{option}")
        raise DataPrunerError(f"the target: {said}") from error


def measure_shape(
    recipe: Recipe, matrix: Matrix, store: SignalStore, *, neighbours: bool, manifold: bool
) -> dict[str, NDArray[Any]]:
    """Measure how vectors lie to each other: their neighbours, and their places on a manifold of few dimensions.

    Both belong to the whole set of vectors and are stored under its hash: they take minutes for a million rows, and
    UMAP repeats on one machine only.

    Parameters
    ----------
    recipe : Recipe
    matrix : Matrix, shape (n, d)
    store : SignalStore
    neighbours, manifold : bool
        What is wanted.

    Returns
    -------
    dict
        ``neighbours``: int64 (n, n_neighbors); ``manifold``: float64 (n, manifold_dimensions).
    """
    from datapruner.geometry import manifold as manifolds
    from datapruner.geometry.neighbours import Neighbours, distinct_rows, neighbour_table

    content = manifolds.content_hash(matrix)
    n, umap = matrix.shape[0], recipe.manifold == "umap"
    near = {"n_neighbors": recipe.n_neighbors, "seed": recipe.seed}

    def stored(context: dict[str, Any], width: int, compute: Callable[[], NDArray[np.float32]]) -> Any:
        # A record of the whole set: in a folder of its own, which no run over other vectors reads or judges.
        context |= {"version": manifolds.CODE_VERSION, "vectors": content.hex()}
        keys = row_keys((place.to_bytes(8, "little") for place in range(n)), context)
        return store.fetch(keys, context, width, lambda rows: iter([(rows, compute()[rows])]))

    @cache
    def table() -> Neighbours:
        k = min(recipe.n_neighbors, len(distinct_rows(matrix)[0]))

        def computed() -> NDArray[np.float32]:
            found = neighbour_table(matrix, recipe.n_neighbors, seed=recipe.seed)
            # The store holds float32, whose bits an index keeps exactly.
            return np.column_stack([found.indices.astype(np.int32).view(np.float32), found.distances])

        both = np.ascontiguousarray(stored({"signal": "neighbours", **near}, 2 * k, computed))
        return Neighbours(
            np.ascontiguousarray(both[:, :k]).view(np.int32).astype(np.int64), np.array(both[:, k:])
        )

    def placed() -> NDArray[np.float32]:
        return manifolds.manifold(
            matrix,
            method=recipe.manifold,
            dimensions=recipe.manifold_dimensions,
            n_neighbors=recipe.n_neighbors,
            seed=recipe.seed,
            neighbours=table() if umap else None,
        ).astype(np.float32)

    measured: dict[str, NDArray[Any]] = {}
    if manifold:
        context = {
            "signal": "manifold",
            "method": recipe.manifold,
            "dimensions": recipe.manifold_dimensions,
            **(near | {"library": metadata.version("umap-learn")} if umap else {}),
        }
        found = stored(context, recipe.manifold_dimensions, placed)
        measured["manifold"] = np.asarray(found, dtype=np.float64)
    if neighbours:
        measured["neighbours"] = table().indices
    return measured


def measure_label(samples: Samples) -> NDArray[np.int64]:
    """Give every row the number of its label, 0 for all rows where the dataset has no label column."""
    from datapruner.selection.budget import encode_labels

    # Beside a text, what is called a label may be a vote or a mark: there, groups are asked for by a column's name.
    column = None if samples.layout.has_text else samples.layout.columns.get("label")
    if column is None:
        return np.zeros(len(samples), dtype=np.int64)
    return encode_labels(samples.column(column))[1]


def measure_the_rest(
    plan: Plan,
    recipe: Recipe,
    samples: Samples,
    rows: NDArray[np.int64],
    matrix: Matrix | None,
    store: SignalStore,
    own: OwnText | None = None,
) -> dict[str, Any]:
    """Measure what needs no pass of a model: texts, columns, labels, and the manifold of the vectors."""
    from datapruner.selection.budget import encode_labels

    measured: dict[str, Any] = {}
    if plan.text:
        own = OwnText(samples, recipe.similarity_context) if own is None else own
        measured["text"] = list(own.texts("both", None if len(rows) == len(samples) else rows))
    for column in plan.columns:
        measured[COLUMN + column] = encode_labels(samples.column(column))[1][rows]
    if plan.label:
        measured["label"] = measure_label(samples)[rows]
    if plan.manifold or plan.neighbours:
        assert matrix is not None
        measured |= measure_shape(recipe, matrix, store, neighbours=plan.neighbours, manifold=plan.manifold)
    return measured


def measure_tokens(
    recipe: Recipe, samples: Samples, store: SignalStore, *, required: bool
) -> dict[str, NDArray[np.int64]]:
    """Count every row's tokens and supervised tokens; nothing where there is no text and nobody asked."""
    from datapruner.signals.tokens import NamedTokenizer, stored_counts

    if not samples.layout.has_text and not required:
        return {}
    if recipe.tokenizer is None:
        tokenizer = NamedTokenizer.of(recipe.model or DEFAULT_TOKENIZER, recipe.adapter, store)
    else:
        tokenizer = NamedTokenizer.of(recipe.tokenizer, None, store)
    counts = stored_counts(samples, tokenizer, store, last_turn_only=recipe.last_turn_only)
    return {"num_tokens": counts.tokens, "num_supervised_tokens": counts.supervised}


def open_language_model(
    recipe: Recipe, store: SignalStore, given: tuple[Any, Any] | None = None, *, progress: bool = True
) -> LanguageModel | NamedModel:
    """Take the model that a recipe names, or the one given with its tokenizer.

    A named one is loaded now where these files have not been opened before, and else when a row has to be measured.
    """
    from datapruner.models.foreign import without_peft
    from datapruner.models.known import known_model, learn_model
    from datapruner.models.loading import load_causal_lm
    from datapruner.models.sizes import LONGEST, positions
    from datapruner.signals.readers import LanguageModel, NamedModel

    fed = (recipe.last_turn_only, recipe.packing, recipe.batch_tokens)

    def reach(longest: int | None) -> int:
        wanted = recipe.max_length or LONGEST
        return wanted if longest is None else min(wanted, longest)

    if given is not None:
        model, tokenizer = without_peft("model", given[0]), given[1]
        return LanguageModel(model, tokenizer, reach(positions(model, tokenizer)), *fed)

    assert recipe.model is not None
    name = recipe.model

    def load() -> LanguageModel:
        say(f"loading the language model {name}", progress)
        model, tokenizer = load_causal_lm(name, adapter=recipe.adapter, **_loading(recipe))
        known = learn_model(model, tokenizer, probe=False)
        opened.note(asdict(known), _opening(recipe, "language model", name, store))
        return LanguageModel(model, tokenizer, reach(known.positions), *fed, known=known)

    opened = _opening(recipe, "language model", name, store)
    known = known_model(opened)
    if known is None:
        return load()
    return NamedModel(known, reach(known.positions), *fed, load, lambda: _tokenizer_of(recipe))


def open_pruned(
    recipe: Recipe,
    store: SignalStore,
    given: Any,
    reader: LanguageModel | NamedModel,
    *,
    trust_code: bool,
    progress: bool = True,
) -> LanguageModel:
    """Load the pruned model that a recipe names, or take the one given: a pair, or a function that makes one.

    Raises
    ------
    DataPrunerError
        It cannot be had, or reads fewer tokens than the rows have.
    """
    from datapruner.models.foreign import checked_pair, runs_code
    from datapruner.models.known import learn_model
    from datapruner.models.sizes import positions
    from datapruner.models.twins import load_pruned_lm
    from datapruner.signals.readers import LanguageModel

    known = None
    if given is not None:
        pair = given() if callable(given) else given
        model, tokenizer = checked_pair("pruned_model", *(pair if isinstance(pair, tuple) else (pair,))[:2])
    else:
        assert recipe.pruned_model is not None
        name = recipe.pruned_model
        opened = _opening(recipe, "pruned model", name, store)
        say(f"loading the pruned model {name}", progress)
        model, tokenizer = load_pruned_lm(name, trust_code=trust_code, **_loading(recipe))
        if not runs_code(name):
            known = learn_model(model, tokenizer, probe=False)
            opened.note(asdict(known), _opening(recipe, "pruned model", name, store))
    _check_reach(positions(model, tokenizer), reader.max_length)
    fed = (reader.max_length, reader.last_turn_only, reader.packing, reader.batch_tokens)
    return LanguageModel(model, tokenizer, *fed, known=known)


def known_pruned(recipe: Recipe, store: SignalStore, given: Any, max_length: int) -> Known | None:
    """Tell what the pruned model is, where a name says it and its files have been opened before.

    Raises
    ------
    DataPrunerError
        It reads fewer tokens than the rows have.
    """
    from datapruner.models.foreign import runs_code
    from datapruner.models.known import known_model

    if given is not None or recipe.pruned_model is None or runs_code(recipe.pruned_model):
        return None
    known = known_model(_opening(recipe, "pruned model", recipe.pruned_model, store))
    if known is not None:
        _check_reach(known.positions, max_length)
    return known


def _check_reach(longest: int | None, max_length: int) -> None:
    """Refuse a pruned model that cannot read what the dense one reads."""
    if longest is not None and longest < max_length:
        raise DataPrunerError(
            f"the pruned model reads {longest} tokens and rows are cut at {max_length}; pass --max-length={longest}"
        )


def _loading(recipe: Recipe) -> dict[str, Any]:
    """Give the options that both models are loaded with."""
    return {name: getattr(recipe, name) for name in ("dtype", "device", "device_map", "quantize")}


def _opening(recipe: Recipe, kind: str, name: str, store: SignalStore) -> Opening:
    """Describe the opening of one of a recipe's models."""
    adapter = recipe.adapter if kind == "language model" else None
    return opening(kind, name, store.notes, adapter=adapter, **_loading(recipe))


def measure_losses(
    plan: Plan,
    language_model: LanguageModel | NamedModel,
    samples: Samples,
    rows: NDArray[np.int64],
    store: SignalStore,
    counts: TokenCounts,
    *,
    open_twin: Callable[[], LanguageModel] | None = None,
    twin_known: Known | None = None,
    in_turn: bool = False,
    release: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Run the language model over ``rows`` as often as the plan needs: once, and once without the prompts.

    Parameters
    ----------
    counts : TokenCounts
        Of all source rows.
    open_twin, twin_known, in_turn, release
        The pruned model; see :func:`datapruner.signals.twins.measure_twins`.
    """
    from datapruner.signals.language_model import measure_language_model, number_surprise

    measured: dict[str, Any] = {}
    num_tokens, num_supervised = counts.tokens[rows], counts.supervised[rows]
    passes: list[tuple[What, NDArray[np.int64]]] = []
    if plan.language_model and not plan.twins:
        passes.append(("row", num_tokens))
    if plan.responses:
        passes.append(("response", num_supervised))
    twins = [Ahead(PASSES["twins"], len(rows), int(num_tokens.sum()), 2)] if plan.twins else []
    for place, (what, tokens) in enumerate(passes):
        later = [Ahead(PASSES[name], len(rows), int(of.sum())) for name, of in passes[place + 1 :]]
        measured |= measure_language_model(
            samples,
            rows,
            language_model,
            store,
            what=what,
            num_tokens=tokens,
            progress=progress,
            ahead=[*later, *twins],
        )
    if plan.twins:
        from datapruner.signals.twins import measure_twins

        assert open_twin is not None
        measured |= measure_twins(
            samples,
            rows,
            language_model,
            open_twin,
            store,
            pruned_known=twin_known,
            in_turn=in_turn,
            release=release,
            gradients=plan.gradients,
            agreement=plan.agreement,
            num_tokens=num_tokens,
            num_supervised=int(num_supervised.sum()),
            progress=progress,
        )
    if plan.numbers:
        measured["number_surprise"] = number_surprise(
            samples, rows, language_model, measured["token_nll"], measured["token_entropy"], store
        )
    return measured


def renderer_of(recipe: Recipe) -> Renderer | None:
    """Give what renders rows as the recipe's language model reads them; it loads the tokenizer when it is needed."""
    limit = recipe.max_length
    if recipe.model is None or limit is None:
        return None

    def renderer(samples: Samples, rows: NDArray[np.int64]) -> Iterator[Rendered]:
        from datapruner.signals.readers import LanguageModel

        reader = LanguageModel(None, _tokenizer_of(recipe), limit, recipe.last_turn_only)
        return reader.render(samples, rows)

    return renderer


def read_divergences(recipe: Recipe, given: Any, n: int) -> NDArray[np.float64]:
    """Read the divergence of every source row, nats, from an array, a ``.npy`` file or a parquet column ``jsd``.

    Raises
    ------
    DataPrunerError
        There is none for every row, or one is no Jensen-Shannon divergence.
    """
    what = "the given divergences" if given is not None else f"the divergences in {recipe.divergences}"
    held = np.asarray(
        given if given is not None else _divergence_file(expanded(Path(str(recipe.divergences))))
    )
    if held.shape != (n,) or held.dtype.kind not in "fiu":
        raise DataPrunerError(
            f"{what} have the shape {held.shape} and the type {held.dtype}; one number for each of the {n} rows is "
            "needed"
        )
    values = held.astype(np.float64)
    # Rounding: a file in float16 may say 0.6934 for ln 2.
    bad = ~((values >= 0) & (values <= np.log(2) + 1e-3))
    if bad.any():
        row = int(np.argmax(bad))
        raise DataPrunerError(
            f"{what}: row {row} has {values[row]:.6g}; a Jensen-Shannon divergence lies between 0 and ln 2, in nats"
        )
    return np.minimum(values, np.log(2))


def _divergence_file(path: Path) -> NDArray[Any]:
    """Read one number a row: a .npy file, or the column ``jsd`` of a parquet file, such as a folder of scores has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.exists() and not path.is_file():
            raise DataPrunerError(f"the divergences {path} are no file")
        check_file(path)
        if path.suffix == ".parquet":
            column: NDArray[Any] = pq.read_table(path, columns=["jsd"]).column("jsd").to_numpy()
            return column
        if path.suffix == ".npy":
            return np.asarray(load_npy(path))
    except (OSError, ValueError, EOFError, KeyError, pa.ArrowException) as error:
        raise DataPrunerError(
            f"no divergences can be read from {path}: {first_line(error)}; it must be a .npy file with a number a row, "
            "or a .parquet file with a column jsd"
        ) from error
    raise DataPrunerError(f"divergences must be a .npy or .parquet file, not {path.name}")


def _check_twins(recipe: Recipe, scorers: Sequence[Scorer]) -> bool:
    """Refuse a pruned model that nobody reads, and a scorer that needs one; whether divergences are given instead."""
    wanted = {scorer.name: scorer.requires & OF_TWINS for scorer in scorers}
    readers = [name for name, needs in wanted.items() if needs]
    pruned = recipe.pruned_model is not None or "pruned_model" in recipe.in_memory
    given = recipe.divergences is not None or "divergences" in recipe.in_memory
    if not readers:
        if pruned or given:
            raise DataPrunerError(
                f"--{'pruned-model' if pruned else 'divergences'} is given, and no scorer of this run compares a "
                "pruned model with the dense one; take the scorer paser"
            )
        return False
    if pruned and given:
        raise DataPrunerError("divergences are measured or given: leave --pruned-model or --divergences out")
    if given:
        if more := sorted(set().union(*wanted.values()) - {"jsd"}):
            raise DataPrunerError(
                f"the scorer '{readers[0]}' reads {', '.join(more)} too, which --divergences do not tell; pass --model "
                "and --pruned-model"
            )
        return True
    if not pruned or (recipe.model is None and "model" not in recipe.in_memory):
        missing = (
            "--model with the dense model" if pruned else "--pruned-model with the model that was pruned"
        )
        raise DataPrunerError(
            f"the scorer '{readers[0]}' compares a pruned model with the dense one: pass {missing}, or --divergences "
            "with what was measured before"
        )
    return False


def _check_target(recipe: Recipe, scorers: Sequence[Scorer]) -> None:
    """Refuse a target that nobody reads, and a scorer that reads one where none is named."""
    fields = ("target", "target_split", "target_columns", "target_embeddings")
    named = [name for name in fields if getattr(recipe, name) is not None]
    readers = [scorer.name for scorer in scorers if TARGET in scorer.requires]
    if readers and recipe.target is None:
        raise DataPrunerError(
            f"the scorer '{readers[0]}' looks for the rows nearest to a target set: name one with --target, a file, a "
            "folder or a hub name"
        )
    if named and not readers:
        raise DataPrunerError(
            f"--{named[0].replace('_', '-')} is given, and no scorer of this run reads a target; take the scorer "
            "feature_mapping or label_mapping"
        )


def _tokenizer_of(recipe: Recipe) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the recipe's language model, or the one that counts tokens without a model."""
    return load_tokenizer(recipe.model or DEFAULT_TOKENIZER, recipe.adapter)


def _given_embeddings(recipe: Recipe, samples: Samples, embeddings: Any) -> Matrix | None:
    if embeddings is not None:
        try:
            array = np.asanyarray(embeddings)
        except ValueError as error:
            raise DataPrunerError(
                "the given embeddings are ragged; one vector of one length a row"
            ) from error
        return check_embeddings(array, len(samples), "the given array")
    if recipe.embeddings is not None and recipe.embedding_column is not None:
        raise DataPrunerError(
            "vectors come from a file or from a column: give embeddings or embedding_column"
        )
    if recipe.embeddings is not None:
        return read_embeddings(expanded(Path(recipe.embeddings)), len(samples))
    if recipe.embedding_column is not None or samples.layout.name == "embedding":
        name = recipe.embedding_column or samples.layout.columns.get("embedding")
        if name is None:
            raise DataPrunerError(
                "this dataset has no text and no embedding column; pass --embeddings with its vectors"
            )
        samples.check_column(name)
        column = samples.dataset.with_format("arrow").select_columns([name])[:].column(0)
        return check_embeddings(
            column_embeddings(column, f"column '{name}'"), len(samples), f"column '{name}'"
        )
    return None


def _image_model(recipe: Recipe) -> str:
    if recipe.embedder == "minilm":
        raise DataPrunerError(
            "images need an image model: pass --embedder with its path or hub name, or --embeddings"
        )
    return recipe.embedder


@dataclass(frozen=True)
class _Images:
    """Images read one by one, so that they are never all in memory."""

    samples: Samples
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Any:
        column = self.samples.layout.columns["image"]
        value = self.samples.dataset[int(self.rows[place])][column]
        if value is None or not hasattr(value, "convert"):
            raise DataPrunerError(f"row {int(self.rows[place])} has no readable image in column '{column}'")
        return value
