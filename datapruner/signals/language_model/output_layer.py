"""The output layer of a causal language model: logits from last hidden states, a chunk of the vocabulary at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

TILE = 128
"""Positions that go through the output matrix together. Always as many, filled up with zeros: the bits of a
product may depend on its shape, so a position's statistics would otherwise depend on its company."""

CPU_PART = 32
"""Positions of a tile whose logits are gone through together, so that they stay in a CPU's cache."""

CHUNK_BYTES = 8 << 20
"""Part of the output matrix that is multiplied or cast, or of its gradient that exists, at a time."""


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """Logits from last hidden states: ``softcap * tanh(scale * (W h + b) / softcap)``.

    Parameters
    ----------
    weight : Tensor, shape (V, d)
        In the model's dtype; the model's own memory, except that of a wrapped layer, which is worked out.
    bias : Tensor, shape (V,), optional
    scale : float
        Cohere's ``logit_scale``, the inverse of Granite's ``logits_scaling``.
    softcap : float, optional
        Gemma's ``final_logit_softcapping``.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def first(self, tokens: int) -> OutputLayer:
        """Give the layer of the first tokens alone, without the rows of padding."""
        if tokens == len(self.weight):
            return self
        bias = None if self.bias is None else self.bias[:tokens]
        return replace(self, weight=self.weight[:tokens], bias=bias)

    def norm(self) -> float:
        """Give the Frobenius norm of the weight, summed in float64."""
        rows = step(self.weight.shape[1] * 8)
        total = 0.0
        # Summed at once: a list of results between the casts would fragment the heap.
        for part in torch.split(self.weight.detach(), rows):
            total += part.to(torch.float64, copy=True).square_().sum().item()
        return math.sqrt(total)


def logits_of(layer: OutputLayer, states: Tensor, out: Tensor, first: int = 0) -> None:
    """Write scale (W h + b) for the tokens from ``first`` on into ``out``, before any soft-capping."""
    tokens = out.shape[1]
    # Faster than one product where they are few states; and so only a chunk of the weight is cast.
    chunk = step(layer.weight.shape[1] * out.element_size())
    scaled = states if layer.scale == 1 else states * layer.scale
    for start in range(0, tokens, chunk):
        of = slice(first + start, first + min(start + chunk, tokens))
        matrix = layer.weight[of].to(out.dtype).T
        part = out[:, start : start + chunk]
        if layer.bias is None:
            torch.mm(scaled, matrix, out=part)
        else:
            torch.addmm(layer.bias[of].to(out.dtype) * layer.scale, scaled, matrix, out=part)


def token_steps(vocabulary: int, bytes_each: int, byte_budget: int) -> list[tuple[int, int]]:
    """Cut the vocabulary into chunks, first token and number of tokens, at ``bytes_each`` a token."""
    step = max(1, min(vocabulary, byte_budget // bytes_each))
    return [(first, min(step, vocabulary - first)) for first in range(0, vocabulary, step)]


def step(bytes_each: int) -> int:
    """Give how many rows or columns of so many bytes are a chunk."""
    return max(1, CHUNK_BYTES // bytes_each)
