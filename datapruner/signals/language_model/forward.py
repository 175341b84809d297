"""The one forward pass of a causal language model that serves every loss-based scorer.

The body runs once over tokens without padding; the output layer runs at supervised positions only
(:mod:`datapruner.signals.language_model.token_statistics`). Rows are packed into sequences of a fixed number of
tokens, short ones filled with dummies, and attention is computed for each row alone. All matrix products then have
one shape, so that a row's bits depend on the row alone: growth, resume and sharing are byte-identical. What a chat
template puts before every conversation is computed once a pack and attended to by all its rows (exact, since
attention is causal; *ours*). A model whose attention cannot be steered so runs in padded length buckets instead. A
mixture of experts promises less: how many tokens share an expert's products depends on a row's company, and so do its
last bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.models.sizes import vocabulary_size
from datapruner.progress import PASSES, Ahead, Clock
from datapruner.ragged import Ragged, offsets_of
from datapruner.signals.failing import Failing, NoNumberError
from datapruner.signals.language_model.batches import (
    Item,
    Ran,
    even_tokens,
    fill_buckets,
    fill_packs,
    lay_out,
    padded_shape,
    rows_a_batch,
    run_packed,
    run_padded,
)
from datapruner.signals.language_model.memory import OutOfMemoryError, is_out_of_memory
from datapruner.signals.language_model.pooled import unit_vectors, weighted_sums
from datapruner.signals.language_model.reader import LanguageModel
from datapruner.signals.language_model.records import What, row_record
from datapruner.signals.language_model.sequences import Sequences
from datapruner.signals.language_model.sketch import Sketch, Sketched
from datapruner.signals.language_model.waiting import Other, Waiting, compared, measured
from datapruner.signals.shapes import canonical_shape

if TYPE_CHECKING:
    import torch

    from datapruner.samples.samples import Samples
    from datapruner.signals.language_model.output_layer import OutputLayer

Found = tuple[Ints, list[Ragged]]
"""Rows that are done: their records, then the vectors that were asked for."""

WINDOW_ROWS = 8192
"""Rows that are tokenised and packed together, while the model is busy with those before."""
HEAD_POSITIONS = 4096
"""Supervised positions that wait for the output layer together."""


class Pass:
    """One run of the model over the rows that the store lacks, or of two models side by side."""

    def __init__(
        self,
        feed: LanguageModel,
        layer: OutputLayer | None,
        prefix: NDArray[np.int32],
        samples: Samples,
        rows: Ints,
        what: What,
        num_tokens: Ints | None,
        progress: bool,
        other: Other | None = None,
        *,
        gradients: bool = True,
        agreement: bool = False,
        pools: bool = False,
        ahead: Sequence[Ahead] = (),
        called: str | None = None,
        sketch: Sketch | None = None,
        window_rows: int = WINDOW_ROWS,
        head_positions: int = HEAD_POSITIONS,
    ) -> None:
        self.window_rows, self.head_positions = window_rows, head_positions
        self.other, self.gradients, self.agreement, self.ahead = other, gradients, agreement, ahead
        self.feed, self.layer, self.prefix = feed, layer, prefix
        self.called = called or PASSES[what]
        self.samples, self.rows, self.what = samples, rows, what
        self.num_tokens, self.progress = num_tokens, progress
        self.sketched = (
            None if sketch is None or layer is None else Sketched.of_output(sketch, *layer.weight.shape)
        )
        self.sequences = Sequences(feed, samples, rows, what, vocabulary_size(feed.model))
        self.room = even_tokens(feed.tokens_a_batch, feed)
        self.pools = pools or what == "pooled"
        who = "language model" if called is None else called
        self.failing = Failing(f"the {who}", rows, collect=feed.drop_failing)
        self.over = False
        self.parts: dict[int, int] = {}
        """Sequences of each row of the window that are still to come."""
        self.found: dict[int, dict[int, tuple[list[NDArray[np.float32]], Floats]]] = defaultdict(dict)

    @property
    def live(self) -> list[Any]:
        """The models that run."""
        beside = None if self.other is None else self.other.model
        return [self.feed.model] if beside is None else [self.feed.model, beside]

    @property
    def work(self) -> int:
        """What a token costs, in tokens of one forward pass."""
        return len(self.live)

    def smaller(self) -> Pass:
        """Give the same pass with half the tokens a batch."""
        out = copy(self)
        out.feed = replace(self.feed, batch_tokens=self.feed.tokens_a_batch // 2)
        out.room = even_tokens(out.feed.tokens_a_batch, out.feed)
        out.parts, out.found = {}, defaultdict(dict)
        return out

    def compute(self, places: Ints) -> Iterator[Found]:
        """Yield the records and vectors of some rows as they are done."""
        tokens = None if self.num_tokens is None else int(self.num_tokens[places].sum())
        self.over = False
        self.failing.begin(len(places))
        self.parts, self.found = {}, defaultdict(dict)  # of a call that was closed before its end
        windows = [
            places[start : start + self.window_rows] for start in range(0, len(places), self.window_rows)
        ]
        with (
            Clock(
                self.called if self.what != "twins" or len(self.live) > 1 else "pruned model",
                len(places),
                tokens,
                self.progress,
                by_rows=self.what == "response",  # which may cost more tokens than are supervised
                models=self.work,
                ahead=self.ahead,
            ) as clock,
            ThreadPoolExecutor(1) as background,
        ):
            try:
                coming = background.submit(self.sequences.of, windows[0], lambda: self.over)
                for number in range(len(windows)):
                    items = coming.result()
                    if number + 1 < len(windows):
                        coming = background.submit(self.sequences.of, windows[number + 1], lambda: self.over)
                    yield from self._window(items, clock)
            finally:
                self.over = True
        self.failing.end()

    def _window(self, items: list[Item], clock: Clock) -> Iterator[Found]:
        """Run the sequences of a window, longest first."""
        for item in items:
            self.parts[item.place] = self.parts.get(item.place, 0) + 1
        waiting = Waiting()
        for batch in self._batches(items):
            with self._memory(batch, alone=self._cannot_shrink(batch)):
                for _, ran in self.failing.each(batch, self._alone, lambda item: item.place):
                    waiting.add(ran)
            clock.tick(sum(len(item.ids) for item in batch))
            if waiting.positions >= self.head_positions:
                yield from self.finish(waiting, clock)
                waiting = Waiting()
        if waiting.items:
            yield from self.finish(waiting, clock)

    def _alone(self, batch: Sequence[Item]) -> Waiting:
        """Run a batch by itself."""
        ran = Waiting()
        self.run_batch(list(batch), ran)
        return ran

    def finish(self, waiting: Waiting, clock: Clock) -> Iterator[Found]:
        """Give the rows that are complete after the output layer, where there are any."""
        with self._memory(waiting.items, alone=False):
            done, records = self.head(waiting)
        clock.finish(len(done))
        if len(done):
            yield done, records

    @contextmanager
    def _memory(self, items: Sequence[Item], *, alone: bool) -> Iterator[None]:
        """Name the longest row where memory runs out."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            longest = max(items, key=lambda item: len(item.ids))
            raise OutOfMemoryError(int(self.rows[longest.place]), len(longest.ids), alone=alone) from None

    def _cannot_shrink(self, batch: Sequence[Item]) -> bool:
        """Whether a batch is one sequence that half the tokens a batch would leave as it is."""
        if len(batch) > 1:
            return False
        length = len(batch[0].ids)
        if not self.feed.packing:
            return rows_a_batch(canonical_shape(length, self.feed.max_length)[0], self.feed) == 1
        tokens = self.feed.tokens_a_batch
        return canonical_shape(length, length + tokens)[0] >= tokens

    def _batches(self, items: list[Item]) -> Iterator[list[Item]]:
        if not self.feed.packing:
            yield from fill_buckets(items, self.feed)
            return
        sharing = [item for item in items if self._shares(item)]
        alone = [item for item in items if not self._shares(item)]
        for group, taken in ((sharing, len(self.prefix)), (alone, 0)):
            yield from fill_packs([len(item.ids) - taken for item in group], group, self.room - taken)

    def _shares(self, item: Item) -> bool:
        """Whether a sequence begins with the template's prefix, and its first target is predicted after it."""
        taken = len(self.prefix)
        return bool(
            taken
            and len(item.ids) > taken
            and item.targets[0] > taken
            and np.array_equal(item.ids[:taken], self.prefix)
        )

    def run_batch(self, batch: list[Item], waiting: Waiting) -> None:
        """Run the bodies over a batch, and keep the states that predict supervised tokens."""
        import torch

        waiting.items += batch
        waiting.positions += sum(len(item.targets) for item in batch)
        with torch.inference_mode():
            ran = self._ran(self.feed, batch)
            if self.pools:
                waiting.pooled += weighted_sums(ran, batch)
            if self.what != "pooled":
                waiting.states += _supervised(ran, batch)
            if self.other is None:
                return
            if self.other.model is not None:
                waiting.others += _supervised(
                    self._ran(replace(self.feed, model=self.other.model), batch), batch
                )
            elif self.other.states is not None:
                stored = self.other.states
                width = self.other.layer.weight.shape[1]
                waiting.others += [
                    torch.from_numpy(np.array(stored[item.place]).reshape(-1, width)) for item in batch
                ]

    def _ran(self, feed: LanguageModel, batch: list[Item]) -> Ran:
        """Run one body over a batch."""
        if feed.packing:
            taken = len(self.prefix) if self._shares(batch[0]) else 0
            pack = lay_out(batch, self.prefix[:taken], self.room)
            starts = [segment.start for segment in pack.segments if segment.start >= taken]
            return Ran(run_packed(feed, pack), taken, starts)
        length, _ = padded_shape(batch, feed)
        return Ran(run_padded(feed, batch), 0, [number * length for number in range(len(batch))])

    def head(self, waiting: Waiting) -> Found:
        """Run the output layer over what waits, and give the rows that are complete."""
        import torch

        pooled = self._pooled(waiting) if self.pools else None
        places = np.array([item.place for item in waiting.items], dtype=np.int64)
        if pooled is not None and self.what == "pooled":
            well = np.array([place not in self.failing for place in places.tolist()], dtype=np.bool_)
            return places[well], [pooled.take(np.flatnonzero(well))]
        if self.what in ("states", "gradients"):
            held = [state.float().cpu().numpy().reshape(-1) for state in waiting.states]
            return places, [Ragged.from_rows(held)]
        assert self.layer is not None
        device = self.layer.weight.device
        targets = np.concatenate([item.ids[item.targets] for item in waiting.items]).astype(np.int64)
        lengths = [len(item.targets) for item in waiting.items]
        on_device = torch.from_numpy(targets).to(device)
        if self.other is None:
            full = self.what == "row"
            numbers, tokens, sketches = measured(
                self.layer, waiting, on_device, lengths, full=full, sketched=self.sketched
            )
        else:
            sketches = None
            numbers, tokens = compared(
                self.layer,
                self.other,
                waiting,
                on_device,
                lengths,
                gradients=self.gradients,
                agreement=self.agreement,
            )
        offsets = offsets_of(np.array(lengths))
        columns = torch.stack(tokens).cpu().numpy()
        bad = ~np.isfinite(columns).all(axis=0)
        for number in np.unique(np.searchsorted(offsets, np.flatnonzero(bad), side="right") - 1).tolist():
            place = waiting.items[number].place
            which = "the model gives" if self.other is None else "the dense or the pruned model gives"
            self.failing.refuse(place, no_finite_loss(which, int(self.rows[place])))
        done, records, vectors = [], [], []
        for number, item in enumerate(waiting.items):
            if item.place in self.failing:
                self.found.pop(item.place, None)
                continue
            of = slice(offsets[number], offsets[number + 1])
            self.found[item.place][item.part] = (list(columns[:, of]), numbers[number])
            self.parts[item.place] -= 1
            if not self.parts[item.place]:
                del self.parts[item.place]
                done.append(item.place)
                records.append(row_record(self.found.pop(item.place)))
                if sketches is not None:  # of rows, which are one sequence each
                    vectors.append(sketches[number])
        made = [Ragged.from_rows(records)]
        if sketches is not None:
            made.append(Ragged.from_rows(vectors))
        if pooled is not None:
            made.append(
                pooled if len(done) == len(places) else pooled.take(np.flatnonzero(np.isin(places, done)))
            )
        return np.array(done, dtype=np.int64), made

    def _pooled(self, waiting: Waiting) -> Ragged:
        """Give the pooled states of what waits."""
        vectors, broken = unit_vectors(waiting.pooled)
        for number in broken.tolist():
            place = waiting.items[number].place
            said, row = "no finite state", int(self.rows[place])
            self.failing.refuse(
                place,
                NoNumberError(
                    f"the model gives {said} for row {row}; try --dtype=float32, or look at the model's weights",
                    row,
                    said,
                ),
            )
        return Ragged.from_rows(list(vectors))


def no_finite_loss(which: str, row: int) -> NoNumberError:
    """Say that a row has none; ``which`` is who gives it."""
    said = "no finite loss"
    return NoNumberError(
        f"{which} {said} for row {row}: its logits hold NaN or infinity; try --dtype=float32, or look at the model's "
        "weights",
        row,
        said,
    )


def _supervised(ran: Ran, batch: list[Item]) -> list[torch.Tensor]:
    """Give each sequence's states where a supervised token follows."""
    import torch

    return [
        ran.states[torch.from_numpy(item.targets - 1 - ran.prefix + start).to(ran.states.device)]
        for item, start in zip(batch, ran.starts, strict=True)
    ]
