"""What the output layer says of supervised positions: exact, from one forward pass, without a backward pass.

With the last hidden state h of a position (d,), the output matrix W (V, d), the target y, the logits
z = softcap(scale (W h + b)) and p = softmax(z), everything here follows from the residual
delta = p - onehot(y). It is kept as delta / (1 - p_y): the softmax over the *other* tokens, with -1 at y. So
no confident token cancels or underflows, and 1 - p_y is a sigmoid of the log-odds.

Published: the signals themselves (DONOD, EL2N, perplexity, entropy). Derived: the gradient's norm by a Gram
matrix and <W, G>, neither of which needs a backward pass. Ours: the tiling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datapruner.arrays import Floats
from datapruner.signals.language_model.output_layer import (
    CPU_PART,
    TILE,
    OutputLayer,
    logits_of,
    step,
    token_steps,
)
from datapruner.signals.language_model.sketch import Sketched, Tokens


@dataclass(frozen=True, eq=False)
class TokenStatistics:
    """What the output layer says of m supervised positions in some rows.

    Parameters
    ----------
    nll : Tensor, shape (m,)
        -log p_y in nats. NaN where the state or a logit is not finite, and then so are the entropy and the
        row's norm.
    entropy : Tensor, shape (m,)
        -sum p log p in nats.
    el2n : Tensor, shape (m,)
        ||p - onehot(y)||_2 (published: EL2N). Empty without gradients, as are the following.
    grad_norm : ndarray, float64, shape (rows,)
        ||G||_F, where G (V, d) is the gradient of a row's mean NLL by the weight, through the output path
        only: where the weight is also the input embedding, that use of it has no part (derived, DONOD).
    weight_dot : ndarray, float64, shape (rows,)
        <W, G>; without bias and soft-capping the row's mean NLL less its mean entropy (derived, DONOD).
    sketch : ndarray, float64, shape (rows, d), optional
        Of G, where one was asked for.
    """

    nll: Tensor
    entropy: Tensor
    el2n: Tensor
    grad_norm: Floats
    weight_dot: Floats
    sketch: Floats | None = None


def output_statistics(
    layer: OutputLayer,
    hidden: Tensor,
    targets: Tensor,
    lengths: Sequence[int],
    *,
    byte_budget: int = 256 << 20,
    gradients: bool = True,
    sketched: Sketched | None = None,
) -> TokenStatistics:
    """Compute loss, entropy, EL2N and the gradient's norm of rows from their last hidden states.

    Everything is computed in float32, in float64 if ``hidden`` and the weight are float64; half-precision
    weights are cast a chunk at a time. A row's result depends on nothing but itself and ``byte_budget``;
    positions go 128 at a time, so many rows a call are cheaper than a few. Entropy has float32's relative
    precision where the target is the likeliest token, and is good to about 1e-7 nats where another token has
    nearly all probability.

    Parameters
    ----------
    layer : OutputLayer
    hidden : Tensor, shape (m, d)
        The states that predict the targets, row after row.
    targets : Tensor, int64, shape (m,)
    lengths : sequence of int
        Positions of each row, at least 1; their sum is m.
    byte_budget : int
        Bytes for logits and what is derived from them, whatever the rows' lengths. A row whose logits do not
        fit is computed twice: by positions, then by chunks of the vocabulary. Each row may need an
        (m, m) matrix beside that, and a budget below a few rows of logits is exceeded.
    gradients : bool
        Without, only ``nll`` and ``entropy`` are computed.
    sketched : Sketched, optional
        The projections of a sketch of every row's G; only with gradients.

    Returns
    -------
    TokenStatistics
        The tensors are where ``hidden`` is.
    """
    if sum(lengths) != len(hidden) or len(targets) != len(hidden) or min(lengths, default=1) < 1:
        raise ValueError("lengths must be at least 1 and add up to the number of states and targets")
    exact = hidden.dtype == layer.weight.dtype == torch.float64
    # The matrix products would else run in half precision inside a trainer's autocast.
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        states = hidden.detach().to(torch.float64 if exact else torch.float32)
        sketch = None if sketched is None else sketched.empty(states)
        columns, squares, too_long = _by_tiles(
            layer, states, targets, lengths, byte_budget, gradients, sketch=sketch
        )
        if not gradients:
            nothing = np.empty(0, dtype=np.float64)
            return TokenStatistics(columns[0], columns[1], states.new_empty(0), nothing, nothing)
        # Clones, so that what is kept of the result does not keep the rest alive.
        nll, entropy, el2n, weight_dot, miss, log_others = (column.clone() for column in columns)
        for row, of in too_long.items():
            weighted = _weighted(states[of], miss[of], layer.scale)
            squares[row] = _long_squared_norm(
                layer, states[of], targets[of], log_others[of], weighted, byte_budget
            )
        # Rounding can make the square of a vanishing norm negative.
        grad_norm = squares.clamp(min=0).sqrt().cpu().numpy()
        starts = np.cumsum(lengths, dtype=np.int64) - np.asarray(lengths, dtype=np.int64)
        sums = np.add.reduceat(weight_dot.double().cpu().numpy(), starts) if len(lengths) else grad_norm
        vectors = None if sketch is None else sketch.rows(lengths, miss, layer.scale)
        return TokenStatistics(nll, entropy, el2n, grad_norm, sums / np.asarray(lengths), vectors)


def _by_tiles(
    layer: OutputLayer,
    states: Tensor,
    targets: Tensor,
    lengths: Sequence[int],
    byte_budget: int,
    gradients: bool,
    *,
    sketch: Tokens | None = None,
) -> tuple[Tensor, Tensor, dict[int, slice]]:
    """Go through the positions in tiles; a row's residuals are held until its last position is there.

    Returns
    -------
    columns : Tensor, shape (6, m), or (2, m) without gradients
        As :func:`statistics_of` gives them.
    squares : Tensor, float64, shape (rows,)
        ||G||_F^2.
    too_long : dict
        The rows, and their positions, whose residuals do not fit, so that ``squares`` lacks them.
    """
    (m, d), vocabulary = states.shape, layer.weight.shape[0]
    vectors = byte_budget // (vocabulary * states.element_size())
    scratches = 1 if layer.softcap is None else 2
    # A sixth, so that rows of a fair length can be held beside the tile where the vocabulary is large; and
    # no small or odd number, for a product of few rows may treat the last of them otherwise.
    tile = min(TILE, max(CPU_PART, vectors // 6 // CPU_PART * CPU_PART))
    part = min(tile, CPU_PART) if states.device.type == "cpu" else tile
    limit = vectors - 2 * tile - scratches * part  # two tiles: a copy of one is made below
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    rows = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    fits = [gradients and length <= limit for length in lengths]
    longest = max((length for length, fit in zip(lengths, fits, strict=True) if fit), default=0)

    # Each position's logits begin at a multiple of 64 bytes: where they lie must not move their bits.
    stride = -(-vocabulary // 16) * 16
    buffer = states.new_empty(longest + tile, stride)[:, :vocabulary]
    scratch = states.new_empty(scratches, part, stride)[:, :, :vocabulary]
    columns = states.new_empty(6 if gradients else 2, m)
    squares = states.new_zeros(len(rows), dtype=torch.float64)
    row = held = 0
    for start in range(0, m, tile):
        end = min(start + tile, m)
        padded, wanted = states.new_zeros(tile, d), targets.new_zeros(tile)
        padded[: end - start], wanted[: end - start] = states[start:end], targets[start:end]
        logits = buffer[held : held + tile]
        logits_of(layer, padded, logits)
        parts = [slice(first, first + part) for first in range(0, tile, part)]
        found = torch.cat(
            [
                statistics_of(layer, padded[of], wanted[of], logits[of], scratch, gradients=gradients)
                for of in parts
            ],
            dim=1,
        )
        columns[:, start:end] = found[:, : end - start]
        if sketch is not None:
            sketch.add(start, end, logits, padded)
        origin = start - held  # the position that lies first in the buffer
        while row < len(rows) and rows[row].stop <= end:
            of = rows[row]
            if fits[row]:
                weighted = _weighted(states[of], columns[4, of], layer.scale)
                residual = buffer[of.start - origin : of.stop - origin]
                squares[row] = _squared_norm(residual, weighted, _gram(weighted))
            row += 1
        held = end - rows[row].start if row < len(rows) and fits[row] else 0
        begins = end - held - origin
        if held and begins:  # the unfinished row moves to the front, where it may overlap itself
            unfinished = buffer[begins : begins + held]
            buffer[:held] = unfinished.clone() if held > begins else unfinished
    return columns, squares, {row: of for row, of in enumerate(rows) if not fits[row]}


def statistics_of(
    layer: OutputLayer,
    states: Tensor,
    targets: Tensor,
    residual: Tensor,
    scratch: Tensor,
    *,
    gradients: bool = False,
) -> Tensor:
    """Compute the statistics of some of a tile's positions.

    Parameters
    ----------
    residual : Tensor, shape (n, V)
        Holds scale (W h + b), and receives the derivative of the loss by it, over 1 - p_y.
    scratch : Tensor, shape (1, at least n, V), or (2, at least n, V) with soft-capping
    gradients : bool

    Returns
    -------
    Tensor, shape (6, n), or (2, n) without gradients
        NLL, entropy, EL2N, the position's part of <W, G>, 1 - p_y, log sum_{j != y} exp z_j.
    """
    column = targets[:, None]
    scratch = scratch[:, : len(states)]
    if layer.softcap is None:
        logits, others = residual, residual
    else:
        logits, others = scratch
        torch.div(residual, layer.softcap, out=logits).tanh_().mul_(layer.softcap)
    target_logit = logits.gather(1, column)[:, 0]
    logits.scatter_(1, column, -math.inf)
    top = logits.amax(1)
    shifted = torch.sub(logits, top[:, None], out=scratch[0])
    torch.softmax(shifted, 1, out=others)
    log_total = -others.amax(1).log()
    log_odds = top - target_logit + log_total  # log((1 - p_y) / p_y)
    zero = log_odds.new_zeros(())
    nll, other_nll = torch.logaddexp(log_odds, zero), torch.logaddexp(-log_odds, zero)
    hit, miss = torch.sigmoid(-log_odds), torch.sigmoid(log_odds)
    mean_shifted = shifted.scatter_(1, column, 0.0).mul_(others).sum(1)
    # First whether it is the target, then which of the others: sums of terms that are not negative.
    entropy = hit * nll + miss * (other_nll + log_total - mean_shifted)
    # Soft-capping would hide infinite logits, and a sigmoid that the target's is infinite.
    broken = entropy.isnan() | ~states.isfinite().all(1)
    nll, entropy = (it.masked_fill_(broken, math.nan) for it in (nll, entropy))
    if not gradients:
        return torch.stack([nll, entropy])
    el2n = miss * (1 + torch.mul(others, others, out=scratch[0]).sum(1)).sqrt()
    others.scatter_(1, column, -1.0)
    bias = None if layer.bias is None else layer.bias.to(states.dtype) * layer.scale
    if layer.softcap is None:
        weight_dot = mean_shifted + top - target_logit
        if bias is not None:
            weight_dot -= torch.mul(others, bias, out=scratch[0]).sum(1)
    else:
        product = scratch[0].copy_(residual) if bias is None else torch.sub(residual, bias, out=scratch[0])
        _softcap_slope(residual, layer.softcap).mul_(others)
        weight_dot = product.mul_(residual).sum(1)
    return torch.stack([nll, entropy, el2n, miss * weight_dot, miss, top + log_total])


def _softcap_slope(logits: Tensor, softcap: float) -> Tensor:
    """Turn logits, in place, into the derivative there of ``softcap * tanh(logits / softcap)``."""
    # 1 - tanh^2 cancels where it is small.
    return logits.div_(softcap).cosh_().reciprocal_().square_()


def _weighted(states: Tensor, miss: Tensor, scale: float) -> Tensor:
    """Give a row's states (T, d) times the part of the gradient that residuals over 1 - p_y leave out."""
    return states.double() * (miss.double() * scale / len(states))[:, None]


def _gram(weighted: Tensor) -> Tensor | None:
    """Give the Gram matrix (T, T) of a row's weighted states where it is the shorter way, else None."""
    return weighted @ weighted.T if weighted.shape[0] < weighted.shape[1] else None


def _squared_norm(residual: Tensor, weighted: Tensor, gram: Tensor | None) -> Tensor:
    """Give ||E^T H||_F^2 of residuals E (T, some tokens) and weighted states H (T, d); float64 scalar."""
    if gram is not None:
        return (residual @ residual.T).double().mul_(gram).sum()
    states = weighted.to(residual.dtype)
    columns = step(states.shape[1] * states.element_size())
    # A float32 norm adds up plainly; a sum does not.
    sums = [(part.T @ states).square_().sum() for part in torch.split(residual, columns, dim=1)]
    return torch.stack(sums).double().sum()


def _long_squared_norm(
    layer: OutputLayer,
    states: Tensor,
    targets: Tensor,
    log_others: Tensor,
    weighted: Tensor,
    byte_budget: int,
) -> Tensor:
    """Give ||G||_F^2 of a row whose logits do not fit: again, by chunks of the vocabulary."""
    vocabulary, length = layer.weight.shape[0], len(states)
    buffers = 1 if layer.softcap is None else 2
    steps = token_steps(vocabulary, buffers * length * states.element_size(), byte_budget)
    buffer = states.new_empty(buffers, length * steps[0][1])
    gram = _gram(weighted)
    total = weighted.new_zeros(())
    for first, tokens in steps:
        residual, *slope = buffer[:, : length * tokens].view(buffers, length, tokens)
        logits_of(layer, states, residual, first)
        if layer.softcap is not None:
            _softcap_slope(slope[0].copy_(residual), layer.softcap)
            residual.div_(layer.softcap).tanh_().mul_(layer.softcap)
        residual.sub_(log_others[:, None]).exp_()
        here = ((targets >= first) & (targets < first + tokens)).nonzero()[:, 0]
        residual[here, targets[here] - first] = -1.0
        if layer.softcap is not None:
            residual.mul_(slope[0])
        total += _squared_norm(residual, weighted, gram)
    return total
