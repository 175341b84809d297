"""The linear layers of a model's body, and sketches of each row's gradient by their weights.

What enters a layer is projected as it passes, and so is the loss's derivative by what it gave, on its way back: a few
numbers a token are kept of each. A row's sketch is the product of both over its tokens. No gradient of a weight is
formed, and the model's own ``grad`` stay as they are.

What Adam would make of a gradient is no sum over tokens: with an optimiser's moments a row's gradient is formed, layer
after layer, scaled, and projected then.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datapruner.errors import DataPrunerError
from datapruner.models.identity import evaluation
from datapruner.models.optimizers import WITHOUT, Adam
from datapruner.models.sizes import input_device, vocabulary_size
from datapruner.signals.language_model.find_output_layer import body
from datapruner.signals.language_model.sketch import (
    BODY_SIDE,
    LARGEST_EXACT,
    GradientSketch,
    Sketched,
    shortening,
)
from datapruner.text import safe_text

logger = logging.getLogger(__name__)

LORA = ("lora_A", "lora_B")
"""The parts of an adapter, as peft calls them."""
PROBED = 7
"""Tokens that a model is shown to see which layers read all of them."""


class Linear(NamedTuple):
    """A linear layer: its name in the body, itself, and how many numbers it gives and takes."""

    name: str
    module: Any
    outputs: int
    inputs: int


def find_linear_layers(model: Any, which: str) -> list[Linear]:
    """Find the linear layers of a model's body that read every token once, in the order of their names.

    Parameters
    ----------
    model : PreTrainedModel
    which : str
        ``all``: those of the model; ``lora``: an adapter's; else a pattern of their names, such as ``*.down_proj``.

    Raises
    ------
    DataPrunerError
        There is none.
    """
    inner = body(model)
    named = [(name, module) for name, module in inner.named_modules() if _is_linear(module)]
    chosen = [(name, module) for name, module in named if _fits(name, which)]
    if not chosen and which == "lora":
        raise DataPrunerError(
            f"{type(model).__name__} has no LoRA adapter whose layers --sketch-layers=lora could take: name "
            "an adapter's folder with --model, --adapter or --sketch-checkpoints"
        )
    if not chosen:
        some = ", ".join(safe_text(name, 60) for name, _ in named[:3])
        raise DataPrunerError(
            f"no linear layer of {type(model).__name__} is one of --sketch-layers={safe_text(which, 60)}: "
            + (
                f"its {len(named)} layers are called {some}, ..."
                if named
                else "it has none that is known as one"
            )
        )
    seen: dict[str, list[tuple[int, int, int]]] = defaultdict(list)

    def see(name: str) -> Any:
        def hook(_: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
            seen[name].append((out.shape[:-1].numel(), out.shape[-1], given[0].shape[-1]))

        return hook

    with ExitStack() as hooks, torch.no_grad(), evaluation(model):
        for name, module in chosen:
            hooks.callback(module.register_forward_hook(see(name)).remove)
        ids = torch.arange(PROBED, device=input_device(model))[None] % vocabulary_size(model)
        inner(input_ids=ids, use_cache=False)
    layers = [
        Linear(name, module, *seen[name][0][1:])
        for name, module in chosen
        if len(seen[name]) == 1 and seen[name][0][0] == PROBED
    ]
    if not layers:
        raise DataPrunerError(
            f"no linear layer of {type(model).__name__} reads every token of a row once, so that its gradient could be "
            "told row by row; take output_sketch, or a model of another family"
        )
    if len(layers) < len(chosen):
        left = sorted({name for name, _ in chosen} - {layer.name for layer in layers})
        logger.warning(
            "%s of %s linear layers do not read every token once (experts, or layers that are shared), and have no "
            "part in gradient_sketch: %s, ...",
            len(left),
            len(chosen),
            safe_text(left[0], 60),
        )
    return layers


def _is_linear(module: Any) -> bool:
    # GPT-2 has a class of its own; a quantised layer derives from torch's.
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def _fits(name: str, which: str) -> bool:
    adapter = any(part in LORA for part in name.split("."))
    if which in ("all", "lora"):
        return adapter == (which == "lora")
    return fnmatchcase(name, which)


@dataclass(eq=False)
class Watched:
    """Linear layers whose gradients are sketched, a batch at a time.

    Attributes
    ----------
    model : PreTrainedModel
    layers : list of Linear
    sketch : GradientSketch
    moments : mapping, optional
        An optimiser's, by the parameters' names: what its next step would make of a gradient is sketched.
    """

    model: Any
    layers: list[Linear]
    sketch: GradientSketch
    moments: Mapping[str, Adam] | None = None
    _left: dict[int, Tensor] = field(default_factory=dict, init=False)
    _right: dict[int, Tensor] = field(default_factory=dict, init=False)
    _stepped: dict[int, Tensor] = field(default_factory=dict, init=False)
    _rows: Sequence[tuple[slice, float]] = field(default=(), init=False)
    embedded: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Refuse what is too large, and moments of other parameters."""
        whole = sum(layer.outputs * layer.inputs for layer in self.layers)
        if self.sketch.dimension is None and whole > LARGEST_EXACT:
            raise DataPrunerError(
                f"the whole gradient of {len(self.layers)} linear layers is {whole:,} numbers a row, too many; pass a "
                "number with --sketch-dimension"
            )
        sides = (BODY_SIDE, BODY_SIDE)
        self.parts = [
            Sketched(self.sketch, layer.outputs, layer.inputs, layer.name, sides) for layer in self.layers
        ]
        width = sum(part.shape[0] * part.shape[1] for part in self.parts)
        self.shortened = shortening(self.sketch, width)
        self.steps = (
            None if self.moments is None else [self._step_of(layer, self.moments) for layer in self.layers]
        )

    def _step_of(self, layer: Linear, moments: Mapping[str, Adam]) -> Adam:
        """Find the moments of a layer's weight, as they fit its gradient."""
        weight = layer.module.weight
        name = next((name for name, one in self.model.named_parameters() if one is weight), None)
        if name is None or name not in moments:
            raise DataPrunerError(
                f"the optimiser has no moments of the layer {safe_text(layer.name, 80)}, which it did not train: name "
                f"what it did with --sketch-layers (an adapter's: lora), or {WITHOUT}"
            )
        like = weight.detach()[:0].to(torch.promote_types(weight.dtype, torch.float32))
        return moments[name].on(like, turned=type(layer.module).__name__ == "Conv1D")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what passes; gradients are taken by what the embedding gives, and by no weight."""
        with ExitStack() as stack:
            for weight in self.model.parameters():
                if weight.requires_grad:
                    stack.callback(weight.requires_grad_, True)
                    weight.requires_grad_(False)
            for number, layer in enumerate(self.layers):
                stack.callback(layer.module.register_forward_hook(self._seen(number)).remove)
            embedding = self.model.get_input_embeddings()
            stack.callback(embedding.register_forward_hook(self._begun).remove)
            stack.enter_context(torch.enable_grad())
            try:
                yield
            finally:
                self.embedded = None
                self._left, self._right, self._stepped = {}, {}, {}

    def _begun(self, _: Any, __: Any, out: Tensor) -> Tensor:
        self.embedded = out.detach().requires_grad_()
        return self.embedded.clone()  # some families scale it in place

    def _seen(self, number: int) -> Any:
        part = self.parts[number]

        def hook(_: Any, given: tuple[Tensor, ...], out: Tensor) -> None:
            entered = given[0].detach()
            self._right[number] = entered if self.steps else part.project(entered, 1)

            def back(derivative: Tensor) -> None:
                if self.steps:
                    self._stepped[number] = self._tables(number, derivative, self._right.pop(number))
                else:
                    self._left[number] = part.project(derivative, 0)

            if out.requires_grad:
                out.register_hook(back)  # type: ignore[no-untyped-call]

        return hook

    def _tables(self, number: int, derivative: Tensor, entered: Tensor) -> Tensor:
        """Form each row's gradient by a layer's weight, take the optimiser's step with it and project; (rows, r s)."""
        assert self.steps is not None
        part, step = self.parts[number], self.steps[number]
        left, right = flat(derivative), flat(entered)
        tables = []
        for place, weight in self._rows:
            moved = step.step(left[place].T @ right[place] * weight)
            tables.append(part.project(part.project(moved.T, 0).T, 1).flatten())
        return self._alike(torch.stack(tables))

    def _alike(self, tables: Tensor) -> Tensor:
        """Scale vectors to length one where all layers count alike; (n, r s)."""
        if not self.sketch.alike:
            return tables
        lengths: Tensor = tables.norm(dim=1, keepdim=True).clamp(min=torch.finfo(tables.dtype).tiny)
        return tables / lengths

    def back(
        self, states: Tensor, derivatives: Tensor, places: Sequence[slice], weights: Sequence[float]
    ) -> Tensor:
        """Go back from the derivatives of a loss by the last hidden states, and give each row's sketch.

        Parameters
        ----------
        states, derivatives : Tensor
            Of one shape.
        places : sequence of slice
            Where each row lies among the batch's tokens.
        weights : sequence of float
            What its gradient is multiplied by.

        Returns
        -------
        Tensor, shape (rows, d)
        """
        assert self.embedded is not None
        self._rows = list(zip(places, weights, strict=True))
        torch.autograd.grad(states, self.embedded, derivatives.to(states.dtype))
        return self.shortened(
            torch.cat(self._stepped_tables() if self.steps else self._summed_tables(), dim=1)
        )

    def _stepped_tables(self) -> list[Tensor]:
        """Give each layer's table for every row, as they were made on the way back."""
        some = next(iter(self._stepped.values()))
        zero = {
            shape: some.new_zeros(len(some), shape[0] * shape[1])
            for shape in {one.shape for one in self.parts}
        }
        # What the states do not depend on has had no derivative.
        return [self._stepped.get(number, zero[part.shape]) for number, part in enumerate(self.parts)]

    def _summed_tables(self) -> list[Tensor]:
        """Multiply both factors of every layer over each row's tokens, layers of one shape together."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, part in enumerate(self.parts):
            groups[part.shape].append(number)
        found: list[list[Tensor]] = [[] for _ in self.parts]
        for of in groups.values():
            right = torch.stack([self._right[number] for number in of])
            # What the states do not depend on has had no derivative.
            zero = right.new_zeros(right.shape[1], self.parts[of[0]].shape[0])
            left = torch.stack([self._left.get(number, zero) for number in of])
            for place, weight in self._rows:
                products = (left[:, place].transpose(1, 2) @ right[:, place]).flatten(1) * weight
                for number, product in zip(of, self._alike(products), strict=True):
                    found[number].append(product)
        return [torch.stack(of_layer) for of_layer in found]


def flat(values: Tensor) -> Tensor:
    """Give a layer's numbers token by token; (tokens, d), at least float32."""
    one = values.reshape(-1, values.shape[-1])
    return one.to(torch.promote_types(one.dtype, torch.float32))
