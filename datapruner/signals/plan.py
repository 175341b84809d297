"""Merge the needs of all scorers in a run into the fewest passes, and make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.cleaning.own_text import OwnText
from datapruner.errors import DataPrunerError
from datapruner.models.names import DEFAULT_TOKENIZER
from datapruner.progress import PASSES, Ahead
from datapruner.signals import COLUMN, KNOWN, TARGET
from datapruner.signals.columns import measure_label
from datapruner.signals.shape import measure_shape
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.models.known import Known
    from datapruner.recipe import Recipe
    from datapruner.samples.rendered import TokenCounts
    from datapruner.samples.samples import Samples
    from datapruner.scorers.base import Scorer
    from datapruner.signals.language_model.reader import LanguageModel, NamedModel
    from datapruner.signals.language_model.records import What


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
        The pruned model; see :func:`datapruner.signals.language_model.twins.measure_twins`.
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
        from datapruner.signals.language_model.twins import measure_twins

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
