"""The layers of a model's body, and what they make of a few tokens: by these it is seen that nothing else changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from datapruner.models.sizes import input_device, vocabulary_size
from datapruner.signals.language_model.find_output_layer import body

PROBES = (2, 24), (3, 7)
"""Rows and tokens of two batches that are tried."""


def layers_of(model: Any) -> Sequence[Any]:
    """Give the layers of a body, in the order in which they run; none where it has no list of them."""
    lists: list[Any] = [part for part in body(model).children() if isinstance(part, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])


def replaced(*modules: Any) -> bool:
    """Whether something else runs in the place of one of some modules, or beside it."""
    return any(
        "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks for module in modules
    )


def run_again(layers: Sequence[Any]) -> None:
    """Let layers run whose ``forward`` something stood in for."""
    for layer in layers:
        vars(layer).pop("forward", None)


def probe(model: Any, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Give token ids of a few rows, always the same ones, and their mask; the last row ends early."""
    ids = torch.randint(vocabulary_size(model), shape, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[-1, shape[1] // 2 :] = 0
    device = input_device(model)
    return ids.to(device), mask.to(device)


def states_of_probe(model: Any, shape: tuple[int, int]) -> torch.Tensor:
    """Give the last hidden states of such rows."""
    ids, mask = probe(model, shape)
    with torch.inference_mode():
        states: torch.Tensor = body(model)(
            input_ids=ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
    return states[mask.to(states.device).bool()]
