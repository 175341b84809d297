"""The pass with a way back: a sketch of every row's gradient by the linear layers of a model's body.

Rows are packed or padded as in the pass of losses (:mod:`datapruner.signals.language_model.forward`), but for what a
template puts before every conversation: shared, its tokens would have one gradient for all rows. The loss of a row is
the mean over its supervised tokens; dropout is off.

Published (LESS, arXiv 2402.04333): comparing rows by gradients that are randomly projected. Ours: two-sided sketches of
every linear layer, one way back for a whole batch, layers that count alike. That last layers alone say less, since
their gradients cancel, is known (arXiv 2202.11844).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.models.identity import evaluation
from datapruner.progress import Ahead
from datapruner.signals.language_model.batches import Item
from datapruner.signals.language_model.feeding import way_of_feeding
from datapruner.signals.language_model.find_output_layer import find_output_layer
from datapruner.signals.language_model.forward import WINDOW_ROWS, Pass, no_finite_loss
from datapruner.signals.language_model.linear_layers import Watched, find_linear_layers
from datapruner.signals.language_model.measure import fetch
from datapruner.signals.language_model.output_layer import TILE, OutputLayer, logits_of, step
from datapruner.signals.language_model.reader import LanguageModel, Reader
from datapruner.signals.language_model.records import asked_of_gradients, matrix_of
from datapruner.signals.language_model.room import check_room
from datapruner.signals.language_model.sketch import GRADIENT_WORK, LESS
from datapruner.signals.language_model.token_statistics import statistics_of
from datapruner.signals.language_model.waiting import Waiting
from datapruner.signals.store import SignalStore

if TYPE_CHECKING:
    from datapruner.models.optimizers import Moments
    from datapruner.samples.samples import Samples
    from datapruner.signals.language_model.sketch import GradientSketch

SHARE = {"cpu": 2, "cuda": 4}
"""How many times fewer tokens a batch has than a forward pass's: what the way back needs is kept of every layer."""


def measure_gradients(
    samples: Samples,
    rows: Ints,
    language_model: Reader,
    store: SignalStore,
    sketch: GradientSketch,
    *,
    moments: Moments | None = None,
    num_tokens: Ints | None = None,
    progress: bool = True,
    ahead: Sequence[Ahead] = (),
    work: int = GRADIENT_WORK,
    window_rows: int = WINDOW_ROWS,
) -> NDArray[np.float32]:
    """Sketch rows' gradients through the store: one forward and backward pass over those that are not there.

    Parameters
    ----------
    samples, rows, language_model, store, num_tokens, progress, ahead, window_rows
        As in :func:`datapruner.signals.language_model.measure_language_model`.
    sketch : GradientSketch
    moments : Moments, optional
        An optimiser's: sketched is what its next step would make of a row's gradient (*published*, LESS, of the rows
        that are chosen from).
    work : int
        What a token costs, in tokens of a forward pass, for the time left.

    Returns
    -------
    ndarray, float32, shape (m, d)
        Layer after layer; mapped from the store and read-only.

    Raises
    ------
    DataPrunerError
        As in :func:`datapruner.signals.language_model.measure_language_model`; or no layer can be sketched, or the
        dimension has no number for each of them.
    """
    reader = language_model
    held = None
    if reader.known is not None:
        held = asked_of_gradients(reader, reader.known, sketch, moments).held(samples, rows, store)
    if held is None:
        check_room(store, sketch.disk * len(rows), "sketches", LESS)
        opened = reader.opened
        layer = find_output_layer(opened.model)
        watched = Watched(
            opened.model,
            find_linear_layers(opened.model, sketch.layers),
            sketch,
            None if moments is None else moments.load(opened.model),
        )
        known = opened.told()
        with evaluation(opened.model):
            feed, _ = way_of_feeding(opened)
            feed = replace(feed, batch_tokens=tokens_back(feed))
            run = GradientPass(
                feed,
                layer,
                np.empty(0, np.int32),
                samples,
                rows,
                "gradients",
                num_tokens,
                progress,
                ahead=ahead,
                window_rows=window_rows,
            )
            run.watched, run.token_work = watched, work
            held = fetch(run, asked_of_gradients(opened, known, sketch, moments), store, layer.norm())
    return matrix_of(held[0][0])


def layers_alike(one: Reader, other: Reader, which: str, store: SignalStore) -> bool:
    """Whether two models have the same linear layers by names and widths, which is noted of each."""

    def shapes(reader: Reader) -> list[list[Any]]:
        about = {"linear layers": reader.told().identity, "which": which}
        noted = store.notes.get(about)
        if noted is None:
            found = find_linear_layers(reader.opened.model, which)
            noted = {"layers": [[layer.name, layer.outputs, layer.inputs] for layer in found]}
            store.notes.put(about, noted)
        held: list[list[Any]] = noted["layers"]
        return held

    return shapes(one) == shapes(other)


def tokens_back(feed: LanguageModel) -> int:
    """Give the tokens of a batch that goes back too."""
    return feed.batch_tokens or feed.tokens_a_batch // SHARE.get(feed.device.type, SHARE["cuda"])


class GradientPass(Pass):
    """The pass that goes back from the losses of a batch before the next one runs."""

    watched: Watched
    token_work: int = GRADIENT_WORK

    @property
    def work(self) -> int:
        """What a token costs, in tokens of one forward pass."""
        return self.token_work

    def run_batch(self, batch: list[Item], waiting: Waiting) -> None:
        """Run the body over a batch and back, and keep every row's sketch."""
        waiting.items += batch
        waiting.positions += sum(len(item.targets) for item in batch)
        with self.watched.watching():
            states, _, starts = self._ran(self.feed, batch)
            pairs = list(zip(batch, starts, strict=True))
            at = np.concatenate([item.targets - 1 + start for item, start in pairs])
            places = torch.from_numpy(at).to(states.device)
            targets = np.concatenate([item.ids[item.targets] for item in batch]).astype(np.int64)
            derivatives = torch.zeros_like(states)
            derivatives[places] = self._derivatives(states.detach()[places], targets, batch).to(derivatives)
            # Of the sum over a row's tokens, since the mean's would be very small numbers in half precision.
            waiting.states += self.watched.back(
                states,
                derivatives,
                [slice(start, start + len(item.ids)) for item, start in pairs],
                [1 / len(item.targets) for item in batch],
            )

    def _derivatives(
        self, states: torch.Tensor, targets: NDArray[np.int64], batch: list[Item]
    ) -> torch.Tensor:
        """Give the derivative of each position's loss by its state, and refuse what is none."""
        assert self.layer is not None
        device = self.layer.weight.device
        found = state_derivatives(self.layer, states.to(device), torch.from_numpy(targets).to(device))
        if not found.isfinite().all():
            broken = int((~found.isfinite().all(1)).nonzero()[0])
            ends = np.cumsum([len(item.targets) for item in batch])
            item = batch[int(np.searchsorted(ends, broken, side="right"))]
            raise no_finite_loss("the model gives", int(self.rows[item.place]))
        return found


def state_derivatives(layer: OutputLayer, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Give the derivative of each position's loss by its last hidden state, of shape (m, d); at least float32.

    As W^T (p - onehot(y)), from residuals in which no confident token cancels; see
    :mod:`datapruner.signals.language_model.token_statistics`.
    """
    dtype = torch.promote_types(states.dtype, torch.float32)
    (vocabulary, width), scratches = layer.weight.shape, 1 if layer.softcap is None else 2
    residual = states.new_empty(TILE, vocabulary, dtype=dtype)
    scratch = states.new_empty(scratches, TILE, vocabulary, dtype=dtype)
    out = states.new_zeros(len(states), width, dtype=dtype)
    chunk = step(width * residual.element_size())
    with torch.no_grad(), torch.autocast(states.device.type, enabled=False):
        for start in range(0, len(states), TILE):
            end = min(start + TILE, len(states))
            padded, wanted = states.new_zeros(TILE, width, dtype=dtype), targets.new_zeros(TILE)
            padded[: end - start], wanted[: end - start] = states[start:end], targets[start:end]
            logits_of(layer, padded, residual)
            miss = statistics_of(layer, padded, wanted, residual, scratch, gradients=True)[4]
            product = torch.zeros_like(padded)
            for first in range(0, vocabulary, chunk):
                of = slice(first, first + chunk)
                product.addmm_(residual[:, of], layer.weight[of].to(dtype))
            out[start:end] = (product * (miss * layer.scale)[:, None])[: end - start]
    return out
