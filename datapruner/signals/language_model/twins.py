"""A dense model and its pruned twin over the same rows: side by side, or one after the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.models.identity import evaluation
from datapruner.models.known import Known
from datapruner.models.twins import check_twins
from datapruner.progress import Ahead, say
from datapruner.ragged import Ragged
from datapruner.signals.language_model.feeding import way_of_feeding
from datapruner.signals.language_model.forward import HEAD_POSITIONS, WINDOW_ROWS, Pass
from datapruner.signals.language_model.measure import fetch
from datapruner.signals.language_model.reader import LanguageModel, Reader
from datapruner.signals.language_model.records import TWIN_TOKENS, TWINS, Asked, Way, numbers_of
from datapruner.signals.language_model.room import check_room
from datapruner.signals.language_model.waiting import Other

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples
    from datapruner.signals.language_model.output_layer import OutputLayer
    from datapruner.signals.store import SignalStore


def measure_twins(
    samples: Samples,
    rows: Ints,
    dense: Reader,
    open_pruned: Callable[[], LanguageModel],
    store: SignalStore,
    *,
    pruned_known: Known | None = None,
    in_turn: bool = False,
    release: bool = False,
    gradients: bool = False,
    agreement: bool = False,
    num_tokens: Ints | None = None,
    num_supervised: int = 0,
    progress: bool = True,
    window_rows: int = WINDOW_ROWS,
    head_positions: int = HEAD_POSITIONS,
) -> dict[str, Any]:
    """Measure what pruning changed in every row's predictions, and what the dense model says of the row.

    Both models run over the same batches, and layers at the bottom that are the same in both run once. In turn, the
    dense model runs first and its last hidden states at supervised positions are stored (d float32 numbers a token);
    then only its output layer is kept while the pruned model runs: the same numbers, with one model in memory at a
    time (*ours*).

    Parameters
    ----------
    samples : Samples
    rows : ndarray, int64, shape (m,), ascending
        Each must have a supervised token.
    dense : LanguageModel or NamedModel
    open_pruned : callable
        Loads the pruned model; its tokenizer may be None. Called once, in turn after the dense model has run.
    store : SignalStore
    pruned_known : Known, optional
        What the pruned model is, where that is known before it is loaded: neither model is then opened where no row
        is missing.
    in_turn : bool
        One model after the other.
    release : bool
        In turn, give back the dense model's memory once it has run; the object is of no use afterwards.
    gradients : bool
        The dense model's EL2N, ||G|| and <W, G> too.
    agreement : bool
        How far the two output layers' gradients agree too; the models must be of one width.
    num_tokens : ndarray, int64, shape (m,), optional
        Tokens a row, for the time left.
    num_supervised : int
        Supervised tokens of all rows, for the room that states take.
    progress : bool
    window_rows, head_positions : int
        As in :func:`datapruner.signals.language_model.measure_language_model`.

    Returns
    -------
    dict
        ``jsd``, ``pruned_log_ppl``, ``log_ppl``, ``entropy`` (float64, shape (m,)); ``token_jsd``,
        ``pruned_token_nll``, ``token_nll``, ``token_entropy`` (:class:`Ragged`, float32). Nats. With ``gradients`` the
        dense model's other signals, with ``agreement`` ``grad_norm``, ``pruned_grad_norm`` and ``gradient_dot``.

    Raises
    ------
    DataPrunerError
        The models are no twins, or as in :func:`datapruner.signals.language_model.measure_language_model`.
    """
    gradients |= agreement
    held = None
    if dense.known is not None and pruned_known is not None:
        held = asked_of_pair(dense, dense.known, pruned_known, gradients, agreement).held(
            samples, rows, store
        )
    if held is None:
        held = _run(
            samples,
            rows,
            dense.opened,
            open_pruned,
            store,
            in_turn=in_turn,
            release=release,
            gradients=gradients,
            agreement=agreement,
            num_tokens=num_tokens,
            num_supervised=num_supervised,
            progress=progress,
            window_rows=window_rows,
            head_positions=head_positions,
        )
    (records,), way = held
    table, tokens = numbers_of(records, TWINS, len(TWIN_TOKENS))
    return _signals(table, tokens, way.norm, gradients=gradients, agreement=agreement)


def _run(
    samples: Samples,
    rows: Ints,
    dense: LanguageModel,
    open_pruned: Callable[[], LanguageModel],
    store: SignalStore,
    *,
    in_turn: bool,
    release: bool,
    gradients: bool,
    agreement: bool,
    num_tokens: Ints | None,
    num_supervised: int,
    progress: bool,
    window_rows: int,
    head_positions: int,
) -> tuple[list[Ragged], Way]:
    """Open both models and run them over the rows that are missing."""
    from datapruner.signals.language_model.common_layers import running_once
    from datapruner.signals.language_model.find_output_layer import find_output_layer

    layer = find_output_layer(dense.model)
    known, norm = dense.told(), layer.norm()
    states: Ragged | None = None
    if in_turn:
        needed = 4 * layer.weight.shape[1] * num_supervised
        check_room(store, needed, "the dense model's states", "run both models together")
        with evaluation(dense.model):
            feed, prefix = way_of_feeding(dense)
            tokens = 0 if num_tokens is None else int(num_tokens.sum())
            ahead = [Ahead("pruned model", len(rows), tokens)]
            run = Pass(
                feed,
                layer,
                prefix,
                samples,
                rows,
                "states",
                num_tokens,
                progress,
                ahead=ahead,
                window_rows=window_rows,
                head_positions=head_positions,
            )
            (states,), _ = fetch(run, Asked("states", known.identity, known, dense), store, norm)
    if in_turn and release:
        # Whoever still holds the object: the tensors go, except the output layer's.
        dense.model.to("meta")
    pruned = open_pruned()
    shared = check_twins(dense.model, dense.tokenizer, pruned.model, pruned.tokenizer)
    asked = asked_of_pair(dense, known, pruned.told(), gradients, agreement)
    pruned = replace(dense, model=pruned.model, known=None)
    # Where one has more rows of padding; the two models and tokenizers of the record's key decide how many are shared.
    layer = layer.first(shared)
    beside = _beside(find_output_layer(pruned.model).first(shared), layer)
    if agreement and (beside.weight.shape != layer.weight.shape or layer.softcap or beside.softcap):
        raise DataPrunerError(
            f"gradients are compared between models of one width, and these have {layer.weight.shape[1]} and "
            f"{beside.weight.shape[1]}, or one caps its logits; leave the gradient variant out"
        )
    with evaluation(dense.model), evaluation(pruned.model), ExitStack() as once:
        feed, prefix = way_of_feeding(pruned)
        if states is not None:
            own, other = beside, Other(layer, states=states)
        else:
            own, other = layer, Other(beside, model=pruned.model)
            feed, prefix = _common_way(feed, prefix, dense)
            if count := once.enter_context(running_once(dense.model, pruned.model)):
                say(f"the first {count} layers are the same in both models and run once for both", progress)
        run = Pass(
            feed,
            own,
            prefix,
            samples,
            rows,
            "twins",
            num_tokens,
            progress,
            other,
            gradients=gradients,
            agreement=agreement,
            window_rows=window_rows,
            head_positions=head_positions,
        )
        return fetch(run, asked, store, norm)


def asked_of_pair(dense: Reader, known: Known, pruned: Known, gradients: bool, agreement: bool) -> Asked:
    """Describe the pass; the pruned model's tokenizer counts, since the two are held to each other once."""
    both = f"{known.identity} {pruned.identity} {pruned.tokenizer} {agreement}"
    return Asked("twins", both, known, dense, gradients)


def _signals(
    table: dict[str, Floats],
    tokens: list[Ragged],
    norm: float,
    *,
    gradients: bool,
    agreement: bool,
) -> dict[str, Any]:
    """Give what was measured by name, without what was not."""
    ragged = dict(zip(TWIN_TOKENS, tokens, strict=True))
    del ragged["pruned_token_entropy"]
    left_out = (set() if gradients else {"el2n", "grad_norm", "weight_dot"}) | (
        set() if agreement else {"pruned_grad_norm", "gradient_dot"}
    )
    numbers = {name: held for name, held in table.items() if name not in left_out}
    for name, of in (("pruned_log_ppl", "pruned_token_nll"), ("jsd", "token_jsd")):
        sums = (
            np.add.reduceat(ragged[of].values.astype(np.float64), ragged[of].offsets[:-1])
            if len(ragged[of])
            else np.empty(0)
        )
        numbers[name] = sums / ragged[of].lengths
    return {**numbers, "weight_norm": np.full(len(tokens[0]), norm), **ragged}


def _common_way(
    pruned: LanguageModel, prefix: NDArray[np.int32], dense: LanguageModel
) -> tuple[LanguageModel, NDArray[np.int32]]:
    """Give the way in which both models can be fed: packed only where both can."""
    feed, own = way_of_feeding(dense)
    if feed.packing and pruned.packing:
        return feed, own
    return replace(feed, packing=False), prefix[:0]


def _beside(layer: OutputLayer, other: OutputLayer) -> OutputLayer:
    """Give a layer on the device of another, so that their logits meet."""
    device = other.weight.device
    if layer.weight.device == device:
        return layer
    bias = None if layer.bias is None else layer.bias.to(device)
    return replace(layer, weight=layer.weight.to(device), bias=bias)
