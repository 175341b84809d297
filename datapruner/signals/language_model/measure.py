"""Losses of rows by one language model, through the store: what is not there is measured in one forward pass."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import RowError
from datapruner.models.identity import evaluation
from datapruner.progress import Ahead
from datapruner.ragged import Ragged
from datapruner.signals.language_model.attention import packed_attention
from datapruner.signals.language_model.feeding import way_of_feeding
from datapruner.signals.language_model.forward import HEAD_POSITIONS, WINDOW_ROWS, Pass
from datapruner.signals.language_model.memory import OutOfMemoryError
from datapruner.signals.language_model.reader import Reader
from datapruner.signals.language_model.records import (
    STATISTICS,
    TOKENS,
    Asked,
    Vectors,
    Way,
    What,
    matrix_of,
    numbers_of,
)
from datapruner.signals.language_model.room import check_room
from datapruner.signals.language_model.sketch import LESS, OUTPUT_SKETCH, Sketch
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples

logger = logging.getLogger(__name__)

LEAST_TOKENS = 128
"""Batches are not halved below this many tokens."""


def measure_language_model(
    samples: Samples,
    rows: Ints,
    language_model: Reader,
    store: SignalStore,
    *,
    what: What = "row",
    pools: bool = False,
    num_tokens: Ints | None = None,
    progress: bool = True,
    ahead: Sequence[Ahead] = (),
    called: str | None = None,
    sketch: Sketch | None = None,
    window_rows: int = WINDOW_ROWS,
    head_positions: int = HEAD_POSITIONS,
) -> dict[str, Any]:
    """Measure rows through the store: one forward pass over those that are not there.

    Parameters
    ----------
    samples : Samples
    rows : ndarray, int64, shape (m,), ascending
        Each must have a supervised token.
    language_model : LanguageModel or NamedModel
        One that is named is opened only where a row is missing.
    store : SignalStore
    what : {"row", "response", "pooled"}
        Every row as it is; every supervised turn after the assistant's header alone (the unconditional pass of IFD),
        which gives losses only; or the rows' pooled states alone, for which the output layer has no part.
    pools : bool
        With ``row``: the pooled states too, in the same pass. Rows of which the losses are stored and the states are
        not run through the body alone.
    num_tokens : ndarray, int64, shape (m,), optional
        Tokens a row that the pass reads, about, for the time left.
    progress : bool
        Show tokens a second and the time left on a terminal, and announce how long a long pass will take.
    ahead : sequence of Ahead
        The passes after it, for how long all of them will take.
    called : str, optional
        The pass, where it is shown; by default after what is read.
    sketch : Sketch, optional
        Of a ``row``: a sketch of the output layer's gradient too; see
        :mod:`datapruner.signals.language_model.sketch`.
    window_rows : int
        Rows that are tokenised and packed together, while the model is busy with those before.
    head_positions : int
        Supervised positions that wait for the output layer together.

    Returns
    -------
    dict
        For ``row``: ``log_ppl``, ``entropy``, ``el2n``, ``grad_norm``, ``weight_dot``, ``weight_norm`` (float64,
        shape (m,)), ``token_nll``, ``token_entropy`` (:class:`Ragged`, float32). For ``response``:
        ``response_log_ppl``, ``response_token_nll``. Nats, all of them. For ``pooled``, and where ``pools``:
        ``pooled_state``, float32 of shape (m, d), see :mod:`datapruner.signals.language_model.pooled`. With a sketch
        ``output_sketch``, the same. Vectors are mapped from the store and read-only.

    Raises
    ------
    DataPrunerError
        The model's logits cannot be computed exactly or are not finite, the tokenizer is another model's, or memory
        does not suffice for one row.
    """
    vectors: Vectors = {} if sketch is None or what != "row" else {OUTPUT_SKETCH: sketch.settings}
    asked: dict[What, Vectors] = {what: vectors, **({"pooled": {}} if pools and what == "row" else {})}
    held: dict[What, tuple[list[Ragged], Way]] = {}
    if (known := language_model.known) is not None:
        for one, made in asked.items():
            found = Asked(one, known.identity, known, language_model, vectors=made)
            if (stored := found.held(samples, rows, store)) is not None:
                held[one] = stored
    if missing := [one for one in asked if one not in held]:
        from datapruner.signals.language_model.find_output_layer import find_output_layer

        if sketch is not None and vectors:
            check_room(store, sketch.disk * len(rows), "sketches", LESS)
        opened = language_model.opened
        layer = None if missing == ["pooled"] else find_output_layer(opened.model)
        known = opened.told()
        # It is put back here: a generator that an exception leaves open would keep the user's model changed.
        with evaluation(opened.model):
            feed, prefix = way_of_feeding(opened)
            passes = [Asked(one, known.identity, known, opened, vectors=asked[one]) for one in missing]
            for asking in passes:
                beside = [] if asking.what == "pooled" else [one for one in passes if one is not asking]
                run = Pass(
                    feed,
                    layer,
                    prefix,
                    samples,
                    rows,
                    asking.what,
                    num_tokens,
                    progress,
                    pools=bool(beside),
                    ahead=ahead,
                    called=called,
                    sketch=sketch if asking.vectors else None,
                    window_rows=window_rows,
                    head_positions=head_positions,
                )
                norm = 0.0 if layer is None else layer.norm()
                held[asking.what] = fetch(run, asking, store, norm, beside=beside)
                feed = replace(feed, batch_tokens=held[asking.what][1].batch_tokens)
    out: dict[str, Any] = {}
    for one, made in asked.items():
        out |= _signals(one, *held[one], made)
    return out


def _signals(what: What, found: list[Ragged], way: Way, vectors: Vectors) -> dict[str, Any]:
    """Give what stored records say, by name."""
    records, *made = found
    rows = len(records)
    if what == "pooled":
        return {"pooled_state": matrix_of(records)}
    table, tokens = numbers_of(records, STATISTICS, len(TOKENS))
    if what == "response":
        return {"response_log_ppl": table["log_ppl"], "response_token_nll": tokens[0]}
    return {
        **table,
        "weight_norm": np.full(rows, way.norm),
        **dict(zip(TOKENS, tokens, strict=True)),
        **{name: matrix_of(held) for name, held in zip(vectors, made, strict=True)},
    }


def fetch(
    run: Pass, asked: Asked, store: SignalStore, norm: float, *, beside: Sequence[Asked] = ()
) -> tuple[list[Ragged], Way]:
    """Get what a pass makes through the store, with a smaller batch where memory runs out.

    Parameters
    ----------
    norm : float
        Of the dense model's output layer, to be noted.
    beside : sequence of Asked
        What the pass makes by the way: kept, and not given.

    Returns
    -------
    found, way
        The records, then the vectors in their order; with the way in which the model was fed in the end.
    """
    while True:
        feed = run.feed
        way = Way(feed.packing, feed.tokens_a_batch, len(run.prefix), norm)
        try:
            with ExitStack() as packed:
                for model in run.live:
                    packed.enter_context(packed_attention(model, on=feed.packing))
                found = store.fetch_together(
                    asked.kinds(run.samples, run.rows, way),
                    run.compute,
                    [kind for other in beside for kind in other.kinds(run.samples, run.rows, way)],
                )
        except OutOfMemoryError as error:
            if error.alone or feed.tokens_a_batch < 2 * LEAST_TOKENS:
                raise RowError(
                    f"memory does not suffice for row {error.row} ({error.tokens:,} tokens) alone: pass a smaller "
                    "--max-length, --dtype=bfloat16, --quantize=4bit, or another --device",
                    error.row,
                ) from error
            run = run.smaller()
            logger.warning("memory ran out: the batch is halved to %s tokens", f"{run.feed.tokens_a_batch:,}")
            continue
        if asked.reader.known is not None:
            asked.note(way, store)
        return found, way
