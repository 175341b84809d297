"""One vector a row from its last hidden states, for comparing rows as the model sees them.

*Published* (RDS+, arXiv 2503.01807): v = sum_t t h_t / sum_t t over all tokens t = 1..T of a row, prompt and answer,
with h_t the last hidden states after the final norm; rows are compared by their cosine. *Ours*: v is scaled to length
one, so that the sum of the weights has no part; summed in float64, so that a row's bits depend on the row alone, and
stored in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.signals.language_model.batches import Item, Ran

if TYPE_CHECKING:
    import torch


def weighted_sums(ran: Ran, batch: Sequence[Item]) -> list[torch.Tensor]:
    """Add up each sequence's states, every one times its place, counted from 1.

    Parameters
    ----------
    ran : Ran
    batch : sequence of Item

    Returns
    -------
    list of Tensor, float64, shape (d,)
        Where the states are. What all sequences begin with is added up once.
    """
    shared = _weighted(ran.states[: ran.prefix], 0) if ran.prefix else None
    sums = []
    for item, start in zip(batch, ran.starts, strict=True):
        own = _weighted(ran.states[start : start + len(item.ids) - ran.prefix], ran.prefix)
        sums.append(own if shared is None else own + shared)
    return sums


def _weighted(states: torch.Tensor, before: int) -> torch.Tensor:
    import torch

    places = torch.arange(before + 1, before + 1 + len(states), dtype=torch.float64, device=states.device)
    return (states.double() * places[:, None]).sum(0)


def unit_vectors(sums: Sequence[torch.Tensor]) -> tuple[NDArray[np.float32], Ints]:
    """Scale sums to length one.

    Returns
    -------
    vectors : float32, shape (m, d)
    broken : int64
        Which of them have no direction: not finite, or all zeros.
    """
    import torch

    table = torch.stack(list(sums)).cpu()
    lengths = table.norm(dim=1)
    broken = ~(lengths.isfinite() & (lengths > 0)).numpy()
    return (table / lengths[:, None]).float().numpy(), np.flatnonzero(broken).astype(np.int64)
