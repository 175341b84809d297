"""An adapter in a model's last layers alone: what lies below runs once for a row, and its states are held (*ours*).

What a target loses is read after every training, and rows may be trained on in several: of them the layers below, in
which nothing changes, run once. In a training nothing goes back through them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from datapruner.errors import DataPrunerError
from datapruner.models.identity import evaluation
from datapruner.signals.language_model.find_output_layer import body
from datapruner.signals.language_model.layers import PROBES, layers_of, probe, replaced, run_again

logger = logging.getLogger(__name__)

HELD_BYTES = 2 << 30
"""States that are held, at most; of rows beyond, the layers below run each time."""


def last_layers(model: Any, count: int) -> list[str]:
    """Name the last layers of a model, as its modules are named.

    Raises
    ------
    DataPrunerError
        It has fewer, or none that could be told apart.
    """
    layers = layers_of(model)
    if not layers:
        raise DataPrunerError(
            f"the layers of {type(model).__name__} cannot be told apart; leave --last-layers out"
        )
    if count > len(layers):
        raise DataPrunerError(
            f"this model has {len(layers)} layers, and not the last {count:,} of --last-layers"
        )
    names = {id(part): name for name, part in model.named_modules()}
    return [names[id(layer)] for layer in layers[len(layers) - count :]]


@contextmanager
def running_below_once(model: Any, count: int, again: Collection[bytes]) -> Iterator[bool]:
    """Let the layers below the last ``count`` run once for a row, whatever is trained in those.

    Batches are those of :func:`datapruner.validation.training.token_losses`: padded at their ends.

    Parameters
    ----------
    model : PreTrainedModel
        Without an adapter; one may be put on its last layers later.
    count : int
    again : collection of bytes
        Keys of rows that come more than once; of others nothing is held.

    Yields
    ------
    bool
        Whether they do: it is tried on a few tokens that nothing else changes.
    """
    with ExitStack() as undo:
        try:
            held = _begin(model, count, again, undo)
        except Exception as error:  # whatever a model of another kind says; then it runs whole
            logger.info("the layers below the last %d do not run on their own: %s", count, error)
            held = False
        if not held:
            undo.close()
        yield held


def _begin(model: Any, count: int, again: Collection[bytes], undo: ExitStack) -> bool:
    whole, layers = body(model), list(layers_of(model))
    below, last = layers[: len(layers) - count], layers[len(layers) - count :]
    if not below or replaced(whole, *layers):
        return False
    with evaluation(model), torch.inference_mode():
        # As a training asks, through all that a model does around its body.
        batch, other = (probe(model, shape) for shape in PROBES)
        alone, _ = (
            _answers(model, batch),
            _answers(model, other),
        )  # what layers hand on elsewhere is then of these
        held = _Held(whole, below, last)
        undo.callback(held.put_back)
        undo.callback(whole.register_forward_pre_hook(held.before, with_kwargs=True).remove)
        # Once as the layers below run, and once, after they ran over other tokens, as their states are held.
        first, _, later = (_answers(model, tokens) for tokens in (batch, other, batch))
        held.hold(again)
    return torch.equal(first, alone) and torch.equal(later, alone)


def _answers(model: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    ids, mask = batch
    logits: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[mask.to(logits.device).bool()]


class _Held:
    """The states of rows above some layers, which stand in for these."""

    def __init__(self, whole: Any, below: Sequence[Any], last: Sequence[Any]) -> None:
        self.whole, self.below, self.last = whole, below, last
        self.signature = inspect.signature(whole.forward)
        self.again: Collection[bytes] | None = None
        self.states: dict[bytes, torch.Tensor] = {}
        self.bytes = 0
        self.running = False
        self.given: Any = None
        self.beside: tuple[None, ...] | None = None
        self.device = torch.device("cpu")

    def hold(self, again: Collection[bytes]) -> None:
        """Hold the states of some rows from now on, and of no other; until then all are held."""
        self.again, self.bytes = again, 0
        self.states.clear()

    def before(self, _body: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Have the states of a batch's rows ready, before the layers that use them run."""
        if self.running:
            return
        asked = self.signature.bind(*given, **named).arguments
        ids, mask = asked["input_ids"], asked["attention_mask"]
        lengths = mask.sum(1).tolist()
        tokens = ids.to("cpu", torch.int32).numpy()
        keys = [row[:length].tobytes() for row, length in zip(tokens, lengths, strict=True)]
        found = {key: self.states[key] for key in keys if key in self.states}
        if missing := [place for place, key in enumerate(keys) if key not in found]:
            for place, of in zip(missing, self._run(ids[missing], mask[missing]), strict=True):
                found[keys[place]] = of[: lengths[place]]
                self._keep(keys[place], found[keys[place]])
        one = found[keys[0]]
        # Nothing looks at what stands at the padding, at the ends of rows.
        states = torch.zeros((*ids.shape, one.shape[-1]), dtype=one.dtype, device=self.device)
        for place, key in enumerate(keys):
            states[place, : lengths[place]] = found[key].to(self.device)
        if any(getattr(layer, "gradient_checkpointing", False) for layer in self.last):
            states.requires_grad_(
                torch.is_grad_enabled()
            )  # without it one kind of checkpointing gives no gradients
        self.given = self._as_given(states)
        self._skip(self.below)

    def _run(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Run the layers below alone."""
        out: list[torch.Tensor] = []

        def keep(_layer: Any, _input: Any, output: Any) -> None:
            states, *beside = output if isinstance(output, tuple) else (output,)
            if any(one is not None for one in beside):
                raise ValueError("a layer gives more than states")
            self.beside = tuple(beside) if isinstance(output, tuple) else None
            self.given = self._as_given(states)
            out.append(states)

        self.running = True
        self.put_back()
        self._skip(self.last)
        hook = self.below[-1].register_forward_hook(keep)
        try:
            with evaluation(self.whole), torch.inference_mode(False), torch.no_grad():
                self.whole(input_ids=ids, attention_mask=mask, use_cache=False)
        finally:
            hook.remove()
            self.put_back()
            self.running = False
        self.device = out[0].device
        return out[0]

    def _keep(self, key: bytes, states: torch.Tensor) -> None:
        size = states.numel() * states.element_size()
        wanted = key not in self.states and (self.again is None or key in self.again)
        if wanted and self.bytes + size <= HELD_BYTES:
            self.states[key] = states.cpu().clone()
            self.bytes += size

    def _skip(self, layers: Sequence[Any]) -> None:
        for layer in layers:
            layer.forward = self._passed

    def _passed(self, *_: Any, **__: Any) -> Any:
        return self.given

    def _as_given(self, states: torch.Tensor) -> Any:
        """Put states as the layers of this model give them."""
        return states if self.beside is None else (states, *self.beside)

    def put_back(self) -> None:
        """Let every layer run again."""
        self.given = None
        run_again((*self.below, *self.last))
