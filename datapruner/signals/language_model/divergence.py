"""How far two language models' predictions lie apart: exact, tiled by positions, from their last hidden states."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datapruner.arrays import Floats
from datapruner.signals.language_model.output_layer import CPU_PART, TILE, OutputLayer, logits_of, token_steps
from datapruner.signals.language_model.token_statistics import statistics_of

LN2 = math.log(2)
"""The largest divergence there is, in nats: predictions that share no token."""


@dataclass(frozen=True, eq=False)
class Divergence:
    """What two output layers say of the same m positions; the first layer's entries come first.

    Parameters
    ----------
    jsd : Tensor, shape (m,)
        Jensen-Shannon divergence of the two predictions, nats, in [0, ln 2] (*published*: what PASER, arXiv
        2502.12594, compares a dense and a pruned model by; the square of the Jensen-Shannon distance).
    nll, entropy : pair of Tensor, shape (m,)
        -log p_y and -sum p log p of each, nats. NaN where a state or a logit is not finite.
    """

    jsd: Tensor
    nll: tuple[Tensor, Tensor]
    entropy: tuple[Tensor, Tensor]


def divergence_statistics(
    layers: tuple[OutputLayer, OutputLayer],
    states: tuple[Tensor, Tensor],
    targets: Tensor,
    *,
    byte_budget: int = 256 << 20,
) -> Divergence:
    """Compare the predictions of two models of one vocabulary, position by position.

    With p and q the two softmaxes and u = (p - q) / (p + q), the divergence is sum(p log1p(u) + q log1p(-u)) / 2
    (*derived*): no difference of large sums, so that near predictions keep their digits, equal ones give 0 exactly,
    and a probability that underflows adds nothing. Computed in float32, in float64 if both models are.

    Parameters
    ----------
    layers : pair of OutputLayer
        Of the same number of tokens; their widths may differ.
    states : pair of Tensor, shapes (m, d1) and (m, d2)
        The states that predict the targets.
    targets : Tensor, int64, shape (m,)
    byte_budget : int
        Bytes for logits and what is derived from them.

    Returns
    -------
    Divergence
        Its tensors are where the first states are.
    """
    vocabulary, m = layers[0].weight.shape[0], len(targets)
    if layers[1].weight.shape[0] != vocabulary or {len(held) for held in states} != {m}:
        raise ValueError("both layers must have the same tokens, and both models a state for every target")
    exact = all(
        held.dtype == layer.weight.dtype == torch.float64 for layer, held in zip(layers, states, strict=True)
    )
    dtype, device = torch.float64 if exact else torch.float32, states[0].device
    # Two logits a position of a tile, five vectors a position of the part that is gone through.
    vectors = byte_budget // (vocabulary * dtype.itemsize)
    part = CPU_PART if device.type == "cpu" else max(CPU_PART, min(TILE, vectors // 8 // CPU_PART * CPU_PART))
    tile = max(part, min(TILE, (vectors - 5 * part) // 2 // part * part))
    stride = -(-vocabulary // 16) * 16
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        logits = torch.empty(2, tile, stride, dtype=dtype, device=device)[:, :, :vocabulary]
        scratch = torch.empty(5, part, stride, dtype=dtype, device=device)[:, :, :vocabulary]
        out = torch.empty(5, m, dtype=dtype, device=device)
        for start in range(0, m, tile):
            end = min(start + tile, m)
            wanted = targets.new_zeros(tile)
            wanted[: end - start] = targets[start:end]
            padded = []
            for number, (layer, held) in enumerate(zip(layers, states, strict=True)):
                padded.append(torch.zeros(tile, held.shape[1], dtype=dtype, device=device))
                padded[-1][: end - start] = held[start:end].detach()
                logits_of(layer, padded[-1], logits[number])
            for first in range(0, end - start, part):
                of = slice(first, first + part)
                found = [_jsd(layers, logits[:, of], scratch)]
                for number, layer in enumerate(layers):
                    found += statistics_of(
                        layer, padded[number][of], wanted[of], logits[number][of], scratch[:2]
                    )
                taken = min(part, end - start - first)
                out[:, start + first : start + first + taken] = torch.stack(found)[:, :taken]
    jsd, first_nll, first_entropy, second_nll, second_entropy = (column.clone() for column in out)
    return Divergence(jsd, (first_nll, second_nll), (first_entropy, second_entropy))


def _jsd(layers: tuple[OutputLayer, OutputLayer], logits: Tensor, scratch: Tensor) -> Tensor:
    """Give the divergence of some positions; ``logits`` (2, n, V), before soft-capping, are left as they are."""
    p, q, total, ratio, term = scratch[:, : logits.shape[1]]
    for layer, held, out in zip(layers, logits, (p, q), strict=True):
        capped = (
            held
            if layer.softcap is None
            else torch.div(held, layer.softcap, out=ratio).tanh_().mul_(layer.softcap)
        )
        torch.softmax(capped, 1, out=out)
    torch.add(p, q, out=total).clamp_(min=torch.finfo(p.dtype).tiny)
    # At exactly 1 the logarithm of the vanishing one would be infinite, times nothing.
    limit = 1 - torch.finfo(p.dtype).eps / 2
    torch.sub(p, q, out=ratio).div_(total).clamp_(-limit, limit)
    summed = torch.log1p(ratio, out=term).mul_(p).sum(1)
    summed += torch.log1p(ratio.neg_(), out=term).mul_(q).sum(1)
    return (summed / 2).clamp_(0, LN2)


def gradient_agreement(
    layers: tuple[OutputLayer, OutputLayer],
    states: tuple[Tensor, Tensor],
    targets: Tensor,
    lengths: Sequence[int],
    *,
    byte_budget: int = 128 << 20,
) -> Floats:
    """Compare the gradients that two models' output layers get from the same rows (*ours*).

    G = (1/T) sum_t delta_t h_t^T is a row's mean loss's gradient by the output layer's weight, through the output path
    only. For two models, <G1, G2> = (1/T^2) sum_{s,t} (delta1_s . delta2_t) (h1_s . h2_t) (*derived*): no gradient is
    formed. The vocabulary is gone through in chunks.

    Parameters
    ----------
    layers : pair of OutputLayer
        Of the same tokens and the same width, without soft-capping.
    states, targets
        As for :func:`divergence_statistics`, row after row.
    lengths : sequence of int
        Positions of each row.
    byte_budget : int
        Bytes for the residuals of a row.

    Returns
    -------
    ndarray, float64, shape (rows, 3)
        ||G1||^2, ||G2||^2 and <G1, G2> of every row.
    """
    if len({layer.weight.shape for layer in layers}) > 1 or any(layer.softcap for layer in layers):
        raise ValueError("gradients are compared between layers of one shape, without soft-capping")
    vocabulary = layers[0].weight.shape[0]
    out = np.empty((len(lengths), 3))
    start = 0
    with torch.no_grad(), torch.autocast(states[0].device.type, enabled=False):
        for row, length in enumerate(lengths):
            of = slice(start, start + length)
            start += length
            held = [state[of].float() for state in states]
            weighted = [
                state.double() * layer.scale / length for state, layer in zip(held, layers, strict=True)
            ]
            totals = torch.full((2, length), -math.inf, dtype=torch.float64, device=held[0].device)
            cross = totals.new_zeros(3, length, length)
            for residuals in (False, True):  # first the softmax's sums, then the residuals
                for first, step in token_steps(vocabulary, 2 * length * 4, byte_budget):
                    parts = [held[0].new_empty(length, step) for _ in layers]
                    here = ((targets[of] >= first) & (targets[of] < first + step)).nonzero()[:, 0]
                    for number, (layer, part) in enumerate(zip(layers, parts, strict=True)):
                        logits_of(layer, held[number], part, first)
                        if not residuals:
                            chunk = part.double().logsumexp(1)
                            totals[number] = torch.logaddexp(totals[number], chunk)
                            continue
                        of_target = part[here, targets[of][here] - first].double() - totals[number][here]
                        part.sub_(totals[number].float()[:, None]).exp_()
                        # p - 1 would cancel where the target is certain.
                        part[here, targets[of][here] - first] = torch.expm1(of_target).float()
                    if residuals:
                        for number, (a, b) in enumerate(((0, 0), (1, 1), (0, 1))):
                            cross[number] += (parts[a] @ parts[b].T).double()
            for number, (a, b) in enumerate(((0, 0), (1, 1), (0, 1))):
                out[row, number] = float((cross[number] * (weighted[a] @ weighted[b].T)).sum())
    return out
