"""Supervised positions that wait for the output layer, and what it says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Floats
from datapruner.ragged import Ragged
from datapruner.signals.language_model.batches import Item
from datapruner.signals.language_model.records import STATISTICS, TWINS, row_means

if TYPE_CHECKING:
    import torch

    from datapruner.signals.language_model.output_layer import OutputLayer
    from datapruner.signals.language_model.sketch import Sketched


@dataclass
class Waiting:
    """Supervised positions that wait for the output layer, the other model's states there, and rows' weighted sums."""

    items: list[Item] = field(default_factory=list)
    states: list[torch.Tensor] = field(default_factory=list)
    others: list[torch.Tensor] = field(default_factory=list)
    pooled: list[torch.Tensor] = field(default_factory=list)
    positions: int = 0

    def add(self, more: Waiting) -> None:
        """Let more wait."""
        self.items += more.items
        self.states += more.states
        self.others += more.others
        self.pooled += more.pooled
        self.positions += more.positions


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


def measured(
    layer: OutputLayer,
    waiting: Waiting,
    targets: torch.Tensor,
    lengths: list[int],
    *,
    full: bool,
    sketched: Sketched | None = None,
) -> tuple[Floats, list[torch.Tensor], Floats | None]:
    """Give the numbers of a row beside its mean loss and entropy, those of its tokens, and the rows' sketches."""
    import torch

    states = torch.cat([states.to(targets.device) for states in waiting.states])
    from datapruner.signals.language_model.token_statistics import output_statistics

    out = output_statistics(layer, states, targets, lengths, gradients=full, sketched=sketched)
    numbers = np.zeros((len(lengths), len(STATISTICS) - 2))
    if full:
        numbers[:] = np.column_stack([row_means(out.el2n, lengths), out.grad_norm, out.weight_dot])
    return numbers, [out.nll, out.entropy], out.sketch


def compared(
    layer: OutputLayer,
    other: Other,
    waiting: Waiting,
    targets: torch.Tensor,
    lengths: list[int],
    *,
    gradients: bool,
    agreement: bool,
) -> tuple[Floats, list[torch.Tensor]]:
    """Do the same for two models, the dense one first."""
    import torch

    from datapruner.signals.language_model.divergence import divergence_statistics, gradient_agreement
    from datapruner.signals.language_model.token_statistics import output_statistics

    own, beside = (
        torch.cat([states.to(targets.device) for states in held]) for held in (waiting.states, waiting.others)
    )
    pairs = [(layer, own), (other.layer, beside)]
    dense, pruned = pairs if other.model is not None else pairs[::-1]
    layers, states = (dense[0], pruned[0]), (dense[1], pruned[1])
    found = divergence_statistics(layers, states, targets)
    numbers = np.zeros((len(lengths), len(TWINS) - 2))
    if gradients:
        out = output_statistics(*dense, targets, lengths)
        numbers[:, :3] = np.column_stack([row_means(out.el2n, lengths), out.grad_norm, out.weight_dot])
    if agreement:
        squares = gradient_agreement(layers, states, targets, lengths)
        numbers[:, 3:] = np.column_stack([np.sqrt(squares[:, 1].clip(min=0)), squares[:, 2]])
    return numbers, [
        found.nll[0],
        found.entropy[0],
        found.nll[1],
        found.entropy[1],
        found.jsd,
    ]
