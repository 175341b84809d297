"""The one forward pass of a causal language model that serves every loss-based scorer.

The body runs once over tokens without padding; the output layer runs at supervised positions only
(:mod:`datapruner.signals.output_layer`). Rows are packed into sequences of a fixed number of tokens, short ones
filled with dummies, and attention is computed for each row alone. All matrix products then have one shape, so
that a row's bits depend on the row alone: growth, resume and sharing are byte-identical. What a chat template puts
before every conversation is computed once a pack and attended to by all its rows (exact, since attention is
causal; *ours*). A model whose attention cannot be steered so runs in padded length buckets instead. A mixture of
experts promises less: how many tokens share an expert's products depends on a row's company, and so do its last bits.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.models.identity import evaluation
from datapruner.models.sizes import vocabulary_size
from datapruner.progress import PASSES, Ahead, Clock
from datapruner.ragged import Ragged, offsets_of
from datapruner.samples.rendered import Rendered
from datapruner.samples.rendering import render, responses
from datapruner.samples.sample import Message, Sample
from datapruner.signals.attention import Pack, Segment, packed_attention
from datapruner.signals.readers import LanguageModel, Reader
from datapruner.signals.records import STATISTICS, TOKENS, TWINS, Asked, Way, What, fed_content, numbers_of
from datapruner.signals.shapes import canonical_shape
from datapruner.signals.store import Batch, RaggedBatch, SignalStore, row_keys

if TYPE_CHECKING:
    import torch

    from datapruner.samples.samples import Samples
    from datapruner.signals.output_layer import OutputLayer

logger = logging.getLogger(__name__)

LEAST_TOKENS = 128
"""Batches are not halved below this many tokens."""
WINDOW_ROWS = 8192
"""Rows that are tokenised and packed together, while the model is busy with those before."""
HEAD_POSITIONS = 4096
"""Supervised positions that wait for the output layer together."""
LEAST_PREFIX = 4
WINDOWS = ("sliding_window", "attention_chunk_size")
"""What configurations call the number of tokens that a token sees."""
PROBE_TOLERANCE = {"torch.float64": 1e-5, "torch.float32": 1e-4}
"""Root mean square by which the states of packed rows may differ, relative to the states; else ``HALF_TOLERANCE``."""
HALF_TOLERANCE = 0.05


def measure_language_model(
    samples: Samples,
    rows: NDArray[np.int64],
    language_model: Reader,
    store: SignalStore,
    *,
    what: What = "row",
    num_tokens: NDArray[np.int64] | None = None,
    progress: bool = True,
    ahead: Sequence[Ahead] = (),
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
    what : {"row", "response"}
        Every row as it is, or every supervised turn after the assistant's header alone (the unconditional pass of
        IFD), which gives losses only.
    num_tokens : ndarray, int64, shape (m,), optional
        Tokens a row that the pass reads, about, for the time left.
    progress : bool
        Show tokens a second and the time left on a terminal, and announce how long a long pass will take.
    ahead : sequence of Ahead
        The passes after it, for how long all of them will take.

    Returns
    -------
    dict
        For ``row``: ``log_ppl``, ``entropy``, ``el2n``, ``grad_norm``, ``weight_dot``, ``weight_norm`` (float64,
        shape (m,)), ``token_nll``, ``token_entropy`` (:class:`Ragged`, float32). For ``response``:
        ``response_log_ppl``, ``response_token_nll``. Nats, all of them.

    Raises
    ------
    DataPrunerError
        The model's logits cannot be computed exactly or are not finite, the tokenizer is another model's, or memory
        does not suffice for one row.
    """
    held = None
    if language_model.known is not None:
        known = language_model.known
        held = Asked(what, known.identity, known, language_model).held(samples, rows, store)
    if held is None:
        from datapruner.signals.output_layer import find_output_layer

        opened = language_model.opened
        layer = find_output_layer(opened.model)
        known = opened.told()
        # It is put back here: a generator that an exception leaves open would keep the user's model changed.
        with evaluation(opened.model):
            feed, prefix = way_of_feeding(opened)
            run = Pass(feed, layer, prefix, samples, rows, what, num_tokens, progress, ahead=ahead)
            held = fetch(run, Asked(what, known.identity, known, opened), store, layer.norm())
    records, way = held
    table, tokens = numbers_of(records, STATISTICS, len(TOKENS))
    if what == "response":
        return {"response_log_ppl": table["log_ppl"], "response_token_nll": tokens[0]}
    return {
        **table,
        "weight_norm": np.full(len(rows), way.norm),
        **dict(zip(TOKENS, tokens, strict=True)),
    }


def fetch(run: Pass, asked: Asked, store: SignalStore, norm: float) -> tuple[Ragged, Way]:
    """Get the records of a pass through the store, with a smaller batch where memory runs out.

    Parameters
    ----------
    norm : float
        Of the dense model's output layer, to be noted.

    Returns
    -------
    records, way
        With the way in which the model was fed in the end.
    """
    while True:
        feed = run.feed
        way = Way(feed.packing, feed.tokens_a_batch, len(run.prefix), norm)
        try:
            with ExitStack() as packed:
                for model in run.live:
                    packed.enter_context(packed_attention(model, on=feed.packing))
                keys = asked.keys(run.samples, run.rows, way)
                records = store.fetch_ragged(keys, asked.context(way), run.compute)
        except _OutOfMemoryError as error:
            if error.alone or feed.tokens_a_batch < 2 * LEAST_TOKENS:
                raise DataPrunerError(
                    f"memory does not suffice for row {error.row} ({error.tokens:,} tokens) alone: pass a smaller "
                    "--max-length, --dtype=bfloat16, --quantize=4bit, or another --device"
                ) from error
            run = run.smaller()
            logger.warning("memory ran out: the batch is halved to %s tokens", f"{run.feed.tokens_a_batch:,}")
            continue
        if asked.reader.known is not None:
            asked.note(way, store)
        return records, way


def number_surprise(
    samples: Samples,
    rows: NDArray[np.int64],
    language_model: Reader,
    token_nll: Ragged,
    token_entropy: Ragged,
    store: SignalStore | None = None,
) -> NDArray[np.float64]:
    """Tell how far each row's last number is from what the model expected there (*ours*).

    Parameters
    ----------
    samples, rows, language_model
        As for :func:`measure_language_model`; rows are tokenised again, the model does not run.
    token_nll, token_entropy : Ragged
        Of these rows.
    store : SignalStore, optional
        Rows that are there are not tokenised.

    Returns
    -------
    ndarray, float64, shape (m,)
        Largest NLL - entropy among the tokens of the last run of tokens with digits in the supervised text; 0 for a
        row without one. Nats.
    """

    def compute(places: NDArray[np.int64]) -> Iterator[Batch]:
        tokenizer = language_model.tokenizer
        names = tokenizer.batch_decode([[id_] for id_ in range(len(tokenizer))])
        has_digit = np.array([any(character.isdigit() for character in name) for name in names])
        out = np.zeros((len(places), 1), dtype=np.float32)
        for number, rendered in enumerate(language_model.render(samples, rows[places])):
            digits = np.flatnonzero(has_digit[rendered.input_ids[rendered.supervised]])
            if digits.size:
                run = digits[np.flatnonzero(np.diff(digits, prepend=-2) != 1)[-1]]
                of = slice(run, digits[-1] + 1)
                out[number] = (token_nll[places[number]] - token_entropy[places[number]])[of].max()
        yield places, out

    every = np.arange(len(rows), dtype=np.int64)
    if store is None:
        return next(compute(every))[1][:, 0].astype(np.float64)
    context = {
        "signal": "number_surprise",
        "version": 1,
        "tokenizer": language_model.told().tokenizer,
        "max_length": language_model.max_length,
        "last_turn_only": language_model.last_turn_only,
    }
    contents = (
        fed_content(sample) + token_nll[place].tobytes() + token_entropy[place].tobytes()
        for place, sample in enumerate(samples.iter_samples(rows, identity=False))
    )
    return store.fetch(row_keys(contents, context), context, 1, compute)[:, 0].astype(np.float64)


class _OutOfMemoryError(Exception):
    """Memory ran out.

    Attributes
    ----------
    row, tokens : int
        The longest row of the batch.
    alone : bool
        It was alone in the batch, so that a smaller batch does not help.
    """

    def __init__(self, row: int, tokens: int, *, alone: bool) -> None:
        super().__init__(row)
        self.row, self.tokens, self.alone = row, tokens, alone


@dataclass(frozen=True)
class _Item:
    """A sequence on its way through the model: a row, or one of its turns."""

    place: int
    ids: NDArray[np.int32]
    targets: NDArray[np.int64]
    """Positions of the supervised tokens."""
    part: int = 0


@dataclass
class _Waiting:
    """Supervised positions that wait for the output layer, and the other model's states there."""

    items: list[_Item] = field(default_factory=list)
    states: list[torch.Tensor] = field(default_factory=list)
    others: list[torch.Tensor] = field(default_factory=list)
    positions: int = 0


@dataclass(frozen=True)
class Other:
    """The other model of a pair: it runs beside the first, or its states are there already.

    Attributes
    ----------
    layer : OutputLayer
    model : PreTrainedModel, optional
        The pruned one, where the pass's own is the dense one.
    states : Ragged, optional
        Of the dense model's supervised positions, d numbers each, where the pass's own model is the pruned one.
    """

    layer: OutputLayer
    model: Any = None
    states: Ragged | None = None


class Pass:
    """One run of the model over the rows that the store lacks, or of two models side by side."""

    def __init__(
        self,
        feed: LanguageModel,
        layer: OutputLayer,
        prefix: NDArray[np.int32],
        samples: Samples,
        rows: NDArray[np.int64],
        what: What,
        num_tokens: NDArray[np.int64] | None,
        progress: bool,
        other: Other | None = None,
        *,
        gradients: bool = True,
        agreement: bool = False,
        ahead: Sequence[Ahead] = (),
    ) -> None:
        self.other, self.gradients, self.agreement, self.ahead = other, gradients, agreement, ahead
        self.feed, self.layer, self.prefix = feed, layer, prefix
        self.samples, self.rows, self.what = samples, rows, what
        self.num_tokens, self.progress = num_tokens, progress
        self.vocabulary = vocabulary_size(feed.model)
        self.room = _whole(feed.tokens_a_batch, feed)
        self.over = False
        self.parts: dict[int, int] = {}
        """Sequences of each row of the window that are still to come."""
        self.found: dict[int, dict[int, tuple[list[NDArray[np.float32]], NDArray[np.float64]]]] = defaultdict(
            dict
        )

    @property
    def live(self) -> list[Any]:
        """The models that run."""
        beside = None if self.other is None else self.other.model
        return [self.feed.model] if beside is None else [self.feed.model, beside]

    def smaller(self) -> Pass:
        """Give the same pass with half the tokens a batch."""
        out = copy(self)
        out.feed = replace(self.feed, batch_tokens=self.feed.tokens_a_batch // 2)
        out.room = _whole(out.feed.tokens_a_batch, out.feed)
        out.parts, out.found = {}, defaultdict(dict)
        return out

    def compute(self, places: NDArray[np.int64]) -> Iterator[RaggedBatch]:
        """Yield the records of some rows as they are done."""
        tokens = None if self.num_tokens is None else int(self.num_tokens[places].sum())
        self.over = False
        windows = [places[start : start + WINDOW_ROWS] for start in range(0, len(places), WINDOW_ROWS)]
        with (
            Clock(
                PASSES[self.what] if self.what != "twins" or len(self.live) > 1 else "pruned model",
                len(places),
                tokens,
                self.progress,
                by_rows=self.what == "response",  # which may cost more tokens than are supervised
                models=len(self.live),
                ahead=self.ahead,
            ) as clock,
            ThreadPoolExecutor(1) as background,
        ):
            try:
                coming = background.submit(self._items, windows[0])
                for number in range(len(windows)):
                    items = coming.result()
                    if number + 1 < len(windows):
                        coming = background.submit(self._items, windows[number + 1])
                    yield from self._window(items, clock)
            finally:
                self.over = True

    def _items(self, places: NDArray[np.int64]) -> list[_Item]:
        """Tokenise rows."""
        items = []
        for place, rendered in zip(
            places.tolist(), self.feed.render(self.samples, self.rows[places]), strict=True
        ):
            if self.over:  # nobody waits for these rows any more
                break
            self._check(place, rendered)
            if self.what == "response":
                items += self._turns(place, rendered)
            else:
                items.append(_Item(place, rendered.input_ids, np.flatnonzero(rendered.supervised)))
        return items

    def _check(self, place: int, rendered: Rendered) -> None:
        row = int(self.rows[place])
        highest = int(rendered.input_ids.max(initial=0))
        if highest >= self.vocabulary:
            raise DataPrunerError(
                f"row {row} holds the token id {highest}, but the model knows only {self.vocabulary:,} of them: the "
                "tokenizer is not this model's"
            )
        if not rendered.supervised.any():
            raise DataPrunerError(f"row {row} has no supervised token that could be scored")
        if self.what == "response" and rendered.plain:
            raise DataPrunerError(
                f"row {row} is plain text without a prompt, so a loss with and one without the prompt cannot be "
                "compared; take another scorer than ifd"
            )

    def _turns(self, place: int, rendered: Rendered) -> list[_Item]:
        """Take a row's supervised turns out of it; where nothing opens one, a start or end token does."""
        tokenizer = self.feed.tokenizer
        items = []
        for part, turn in enumerate(responses(rendered, tokenizer.bos_token_id)):
            ids, targets = turn.input_ids, np.flatnonzero(turn.supervised)
            wanted = int(rendered.supervised[rendered.turns[part, 1] : rendered.turns[part, 2]].sum())
            if len(targets) < wanted:
                named = (tokenizer.bos_token_id, tokenizer.eos_token_id)
                start = next((id_ for id_ in named if id_ is not None and id_ < self.vocabulary), 0)
                ids = np.concatenate([np.array([start], np.int32), ids])
                targets = np.arange(len(ids) - wanted, len(ids))
            if wanted:  # an answer that is the row's first token has nothing that predicts it
                items.append(_Item(place, ids, targets, part))
        return items

    def _window(self, items: list[_Item], clock: Clock) -> Iterator[RaggedBatch]:
        """Run the sequences of a window, longest first."""
        for item in items:
            self.parts[item.place] = self.parts.get(item.place, 0) + 1
        waiting = _Waiting()
        for batch in self._batches(items):
            with self._memory(batch, alone=self._cannot_shrink(batch)):
                self._forward(batch, waiting)
            clock.tick(sum(len(item.ids) for item in batch))
            if waiting.positions >= HEAD_POSITIONS:
                yield from self._finish(waiting, clock)
                waiting = _Waiting()
        if waiting.items:
            yield from self._finish(waiting, clock)

    def _finish(self, waiting: _Waiting, clock: Clock) -> Iterator[RaggedBatch]:
        """Give the rows that are complete after the output layer, where there are any."""
        with self._memory(waiting.items, alone=False):
            done, records = self._head(waiting)
        clock.finish(len(done))
        if len(done):
            yield done, records

    @contextmanager
    def _memory(self, items: Sequence[_Item], *, alone: bool) -> Iterator[None]:
        """Name the longest row where memory runs out."""
        try:
            yield
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            longest = max(items, key=lambda item: len(item.ids))
            raise _OutOfMemoryError(int(self.rows[longest.place]), len(longest.ids), alone=alone) from None

    def _cannot_shrink(self, batch: Sequence[_Item]) -> bool:
        """Whether a batch is one sequence that half the tokens a batch would leave as it is."""
        if len(batch) > 1:
            return False
        length = len(batch[0].ids)
        if not self.feed.packing:
            return _rows_a_batch(canonical_shape(length, self.feed.max_length)[0], self.feed) == 1
        tokens = self.feed.tokens_a_batch
        return canonical_shape(length, length + tokens)[0] >= tokens

    def _batches(self, items: list[_Item]) -> Iterator[list[_Item]]:
        if not self.feed.packing:
            yield from _buckets(items, self.feed)
            return
        sharing = [item for item in items if self._shares(item)]
        alone = [item for item in items if not self._shares(item)]
        for group, taken in ((sharing, len(self.prefix)), (alone, 0)):
            yield from _fill([len(item.ids) - taken for item in group], group, self.room - taken)

    def _shares(self, item: _Item) -> bool:
        """Whether a sequence begins with the template's prefix, and its first target is predicted after it."""
        taken = len(self.prefix)
        return bool(
            taken
            and len(item.ids) > taken
            and item.targets[0] > taken
            and np.array_equal(item.ids[:taken], self.prefix)
        )

    def _forward(self, batch: list[_Item], waiting: _Waiting) -> None:
        """Run the bodies over a batch, and keep the states that predict supervised tokens."""
        import torch

        waiting.items += batch
        waiting.positions += sum(len(item.targets) for item in batch)
        with torch.inference_mode():
            waiting.states += self._states(self.feed, batch)
            if self.other is None:
                return
            if self.other.model is not None:
                waiting.others += self._states(replace(self.feed, model=self.other.model), batch)
            elif self.other.states is not None:
                stored = self.other.states
                width = self.other.layer.weight.shape[1]
                waiting.others += [
                    torch.from_numpy(np.array(stored[item.place]).reshape(-1, width)) for item in batch
                ]

    def _states(self, feed: LanguageModel, batch: list[_Item]) -> list[torch.Tensor]:
        """Run one body over a batch; each sequence's states where a supervised token follows."""
        import torch

        if feed.packing:
            taken = len(self.prefix) if self._shares(batch[0]) else 0
            pack = _pack(batch, self.prefix[:taken], self.room)
            states = _run_packed(feed, pack)
            starts = [segment.start - taken for segment in pack.segments if segment.start >= taken]
        else:
            states = _run_padded(feed, batch)
            length, _ = _shape(batch, feed)
            starts = [number * length for number in range(len(batch))]
        return [
            states[torch.from_numpy(item.targets - 1 + start).to(states.device)]
            for item, start in zip(batch, starts, strict=True)
        ]

    def _head(self, waiting: _Waiting) -> RaggedBatch:
        """Run the output layer over what waits, and give the rows that are complete."""
        import torch

        if self.what == "states":
            held = [state.float().cpu().numpy().reshape(-1) for state in waiting.states]
            return np.array([item.place for item in waiting.items], dtype=np.int64), Ragged.from_rows(held)
        device = self.layer.weight.device
        targets = np.concatenate([item.ids[item.targets] for item in waiting.items]).astype(np.int64)
        lengths = [len(item.targets) for item in waiting.items]
        numbers, tokens = (self._measured if self.other is None else self._compared)(
            waiting, torch.from_numpy(targets).to(device), lengths
        )
        offsets = offsets_of(np.array(lengths))
        columns = torch.stack(tokens).cpu().numpy()
        bad = ~np.isfinite(columns).all(axis=0)
        if bad.any():
            item = waiting.items[int(np.searchsorted(offsets, int(np.argmax(bad)), side="right")) - 1]
            which = "the model gives" if self.other is None else "the dense or the pruned model gives"
            raise DataPrunerError(
                f"{which} no finite loss for row {int(self.rows[item.place])}: its logits hold NaN or "
                "infinity; try --dtype=float32, or look at the model's weights"
            )
        done, records = [], []
        for number, item in enumerate(waiting.items):
            of = slice(offsets[number], offsets[number + 1])
            self.found[item.place][item.part] = (list(columns[:, of]), numbers[number])
            self.parts[item.place] -= 1
            if not self.parts[item.place]:
                del self.parts[item.place]
                done.append(item.place)
                records.append(_record(self.found.pop(item.place)))
        return np.array(done, dtype=np.int64), Ragged.from_rows(records)

    def _measured(
        self, waiting: _Waiting, targets: torch.Tensor, lengths: list[int]
    ) -> tuple[NDArray[np.float64], list[torch.Tensor]]:
        """Give the numbers of a row beside its mean loss and entropy, and those of its tokens."""
        import torch

        states = torch.cat([states.to(targets.device) for states in waiting.states])
        from datapruner.signals.output_layer import output_statistics

        full = self.what == "row"
        out = output_statistics(self.layer, states, targets, lengths, gradients=full)
        numbers = np.zeros((len(lengths), len(STATISTICS) - 2))
        if full:
            numbers[:] = np.column_stack([_row_means(out.el2n, lengths), out.grad_norm, out.weight_dot])
        return numbers, [out.nll, out.entropy]

    def _compared(
        self, waiting: _Waiting, targets: torch.Tensor, lengths: list[int]
    ) -> tuple[NDArray[np.float64], list[torch.Tensor]]:
        """Do the same for two models, the dense one first."""
        import torch

        from datapruner.signals.divergence import divergence_statistics, gradient_agreement
        from datapruner.signals.output_layer import output_statistics

        assert self.other is not None
        own, beside = (
            torch.cat([states.to(targets.device) for states in held])
            for held in (waiting.states, waiting.others)
        )
        pairs = [(self.layer, own), (self.other.layer, beside)]
        dense, pruned = pairs if self.other.model is not None else pairs[::-1]
        layers, states = (dense[0], pruned[0]), (dense[1], pruned[1])
        found = divergence_statistics(layers, states, targets)
        numbers = np.zeros((len(lengths), len(TWINS) - 2))
        if self.gradients:
            out = output_statistics(*dense, targets, lengths)
            numbers[:, :3] = np.column_stack([_row_means(out.el2n, lengths), out.grad_norm, out.weight_dot])
        if self.agreement:
            squares = gradient_agreement(layers, states, targets, lengths)
            numbers[:, 3:] = np.column_stack([np.sqrt(squares[:, 1].clip(min=0)), squares[:, 2]])
        return numbers, [
            found.nll[0],
            found.entropy[0],
            found.nll[1],
            found.entropy[1],
            found.jsd,
        ]


def _row_means(tokens: torch.Tensor, lengths: Sequence[int]) -> NDArray[np.float64]:
    """Average a number of every token over its row, each row by itself."""
    offsets = offsets_of(np.array(lengths))
    held = tokens.cpu().numpy()
    return np.array(
        [held[start:end].mean(dtype=np.float64) for start, end in pairwise(offsets.tolist())],
        dtype=np.float64,
    )


def _record(parts: dict[int, tuple[list[NDArray[np.float32]], NDArray[np.float64]]]) -> NDArray[np.float32]:
    """Put a row's numbers and tokens together as they are stored: means of loss and entropy, the rest, the tokens."""
    ordered = [parts[part] for part in sorted(parts)]
    tokens = [np.concatenate(held) for held in zip(*(part[0] for part in ordered), strict=True)]
    head = [tokens[0].mean(dtype=np.float64), tokens[1].mean(dtype=np.float64), *ordered[0][1]]
    return np.concatenate(
        [np.array(head, dtype="<f8").view("<f4"), *(held.astype(np.float32) for held in tokens)]
    )


def _fill(lengths: Sequence[int], items: Sequence[_Item], room: int) -> Iterator[list[_Item]]:
    """Share sequences over packs: the longest that is left, then whatever still fits, longest first."""
    order = sorted(
        range(len(items)), key=lambda number: (-lengths[number], items[number].place, items[number].part)
    )
    by_length: dict[int, list[int]] = defaultdict(list)
    for number in reversed(order):
        by_length[lengths[number]].append(number)
    left = sorted(by_length)
    while left:
        batch, free = [], max(room, left[-1])
        while (at := bisect_right(left, free)) > 0:
            length = left[at - 1]
            batch.append(items[by_length[length].pop()])
            free -= length
            if not by_length[length]:
                left.pop(at - 1)
        yield batch


def _buckets(items: Sequence[_Item], feed: LanguageModel) -> Iterator[list[_Item]]:
    """Share sequences over padded batches of one canonical shape each."""
    shapes: dict[tuple[int, bool], list[_Item]] = defaultdict(list)
    for item in items:
        shapes[canonical_shape(len(item.ids), feed.max_length)].append(item)
    for (length, _), of in sorted(shapes.items(), reverse=True):
        each = _rows_a_batch(length, feed)
        yield from (of[start : start + each] for start in range(0, len(of), each))


def _shape(batch: Sequence[_Item], feed: LanguageModel) -> tuple[int, int]:
    """Give a padded batch's length and its number of rows, dummies included."""
    length, _ = canonical_shape(max(len(item.ids) for item in batch), feed.max_length)
    return length, _rows_a_batch(length, feed)


def _rows_a_batch(length: int, feed: LanguageModel) -> int:
    rows = feed.tokens_a_batch // length
    return _whole(rows * length, feed, length) // length if rows > 1 else 1


def _whole(tokens: int, feed: LanguageModel, step: int = 1) -> int:
    """Round a number of tokens up, in steps, to one that the CPU's threads share evenly.

    A model's width is whole vectors, so that each thread's share of an elementwise operation then is. The end of one
    that is not is computed with other instructions, in other bits: a row's would depend on its place in the batch.
    """
    import torch

    unit = math.lcm(step, torch.get_num_threads()) if feed.device.type == "cpu" else step
    return -(-tokens // unit) * unit


def _pack(batch: Sequence[_Item], prefix: NDArray[np.int32], tokens: int) -> Pack:
    """Lay sequences out one after the other, behind the prefix that they share."""
    taken = len(prefix)
    used = taken + sum(len(item.ids) - taken for item in batch)
    length, _ = (tokens, True) if used <= tokens else canonical_shape(used, used + tokens)
    ids, positions = np.zeros((2, length), dtype=np.int64)
    ids[:taken], positions[:taken] = prefix, np.arange(taken)
    segments = [Segment(0, taken)] if taken else []
    start = taken
    for item in batch:
        rest = len(item.ids) - taken
        ids[start : start + rest], positions[start : start + rest] = (
            item.ids[taken:],
            np.arange(taken, taken + rest),
        )
        segments.append(Segment(start, rest))
        start += rest
    return Pack(ids, positions, segments, taken)


def _run_packed(feed: LanguageModel, pack: Pack) -> torch.Tensor:
    """Give the last hidden states of a pack's tokens; shape (n, d)."""
    import torch

    from datapruner.signals.output_layer import body

    with pack.active():
        out = body(feed.model)(
            input_ids=torch.from_numpy(pack.ids)[None].to(feed.device),
            position_ids=torch.from_numpy(pack.positions)[None].to(feed.device),
            use_cache=False,
        )
    states: torch.Tensor = out.last_hidden_state[0]
    return states


def _run_padded(feed: LanguageModel, batch: Sequence[_Item]) -> torch.Tensor:
    """Give the last hidden states of a padded batch, dummies included; shape (rows * length, d)."""
    import torch

    from datapruner.signals.output_layer import body

    length, rows = _shape(batch, feed)
    ids, mask = np.zeros((2, rows, length), dtype=np.int64)
    for number in range(len(ids)):
        item = batch[number] if number < len(batch) else batch[0]
        ids[number, : len(item.ids)], mask[number, : len(item.ids)] = item.ids, 1
    out = body(feed.model)(
        input_ids=torch.from_numpy(ids).to(feed.device),
        attention_mask=torch.from_numpy(mask).to(feed.device),
        use_cache=False,
    )
    states: torch.Tensor = out.last_hidden_state.flatten(0, 1)
    return states


def _template_prefix(feed: LanguageModel) -> NDArray[np.int32]:
    """Give the tokens that the chat template puts before every conversation without a system turn."""
    try:
        first, second = (
            render(Sample((Message("user", word), Message("assistant", word))), feed.tokenizer).input_ids
            for word in ("0", "Why")
        )
    except DataPrunerError:
        return np.empty(0, np.int32)
    size = min(len(first), len(second))
    same = int(np.argmin(np.append(first[:size] == second[:size], False)))
    return (
        first[:same] if LEAST_PREFIX <= same < min(feed.max_length, feed.tokens_a_batch // 4) else first[:0]
    )


def way_of_feeding(language_model: LanguageModel) -> tuple[LanguageModel, NDArray[np.int32]]:
    """Tell whether a model's rows can be packed, and which tokens they share then."""
    if language_model.packing:
        prefix = _template_prefix(language_model)
        if _packs_exactly(language_model, prefix):
            return language_model, prefix
        logger.info("this model's rows cannot be packed: they run in padded batches")
    return replace(language_model, packing=False), np.empty(0, np.int32)


def _packs_exactly(feed: LanguageModel, prefix: NDArray[np.int32]) -> bool:
    """Whether packed sequences give the states that the model gives each alone.

    A model with a state that runs on between tokens, or with an attention of its own, does not.
    """
    import torch

    from datapruner.signals.output_layer import body

    if getattr(feed.model, "_is_stateful", False):
        return False
    rng = np.random.default_rng(0)
    highest, longest = vocabulary_size(feed.model), feed.max_length - len(prefix)
    rows = [
        np.concatenate([prefix, rng.integers(0, highest, size=min(size, longest)).astype(np.int32)])
        for size in (_telling_length(feed), 11, 5, 17)
    ]
    items = [_Item(number, row, np.array([len(row) - 1])) for number, row in enumerate(rows)]
    try:
        with torch.inference_mode():
            plain = [
                body(feed.model)(
                    input_ids=torch.from_numpy(row)[None].long().to(feed.device), use_cache=False
                ).last_hidden_state[0, len(prefix) :]
                for row in rows
            ]
            with packed_attention(feed.model):
                pack = _pack(items, prefix, len(prefix) + sum(map(len, rows)))
                states = _run_packed(feed, pack)
    except Exception as error:  # whatever a model says to a mask of another kind, or to its length
        logger.info("packing is refused by the model: %s", error)
        return False
    own = pack.segments[1:] if len(prefix) else pack.segments
    packed = [states[segment.start : segment.start + segment.length] for segment in own]
    tolerance = PROBE_TOLERANCE.get(str(states.dtype), HALF_TOLERANCE)
    return all(
        _root_mean_square(other - one) <= tolerance * _root_mean_square(one)
        for one, other in zip(plain, packed, strict=True)
    )


def _telling_length(feed: LanguageModel) -> int:
    """Give the length of a row that a model's windows show in: longer than any that rows can be longer than."""
    config = feed.model.config.get_text_config()
    named = [getattr(config, key, None) for key in WINDOWS]
    # Rotary positions of these two kinds change for all rows of a batch once one of them is long.
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if {"dynamic", "longrope"} & {rope.get("rope_type"), rope.get("type")}:
        named += [rope.get("original_max_position_embeddings"), config.max_position_embeddings]
    return max([1, *(int(size) + 8 for size in named if size and size < feed.max_length)])


def _root_mean_square(values: torch.Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)
