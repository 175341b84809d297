"""A small adapter, trained on some rows and read on others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.models.identity import evaluation
from datapruner.samples.rendered import Rendered

if TYPE_CHECKING:
    import torch

IGNORED = -100
TOGETHER = {"cpu": 1024, "cuda": 8192}
"""Tokens that go through the model together, padding included."""


@dataclass(frozen=True)
class Training:
    """How an adapter is trained.

    Attributes
    ----------
    rank : int
        Of a LoRA adapter on every linear layer; its alpha is twice that.
    rate : float
        AdamW's learning rate: a twentieth of the steps up, then down to zero by a cosine.
    step_tokens : int
        Supervised tokens a step, about.
    last_layers : int, optional
        Layers that have an adapter, counted from the last; by default all. Those below run once for a row.
    """

    rank: int = 8
    rate: float = 5e-4
    step_tokens: int = 512
    last_layers: int | None = None


def in_words(last_layers: int) -> str:
    """Name the last layers."""
    return "the last layer" if last_layers == 1 else f"the last {last_layers:,} layers"


@contextmanager
def adapter(model: Any, rank: int, seed: int, layers: Sequence[str] | None = None) -> Iterator[Any]:
    """Put a fresh adapter on a model, or on its modules of some names and what is in them; and take it off again."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        exclude_modules=None if layers is None else rf"(?!{_inside(layers)}).*",
        task_type="CAUSAL_LM",
    )
    try:
        wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise DataPrunerError(f"no LoRA adapter fits this model: {error}") from error
    try:
        if layers is not None:
            _only_in(wrapped, layers)
        yield wrapped
    finally:
        wrapped.unload()
        for weight in model.parameters():
            weight.requires_grad_(True)
        for weight in frozen:
            weight.requires_grad_(False)
        model.eval()


def _inside(layers: Sequence[str]) -> str:
    """Give a pattern of what is in modules of some names."""
    return rf"(?:{'|'.join(map(re.escape, layers))})\..*"


def _only_in(wrapped: Any, layers: Sequence[str]) -> None:
    """Let no adapter learn but those in modules of some names: of experts' weights peft leaves none out."""
    within = re.compile(rf"(?:.*\.)?{_inside(layers)}")
    learning = 0
    for name, weight in wrapped.named_parameters():
        if weight.requires_grad:
            weight.requires_grad_(bool(within.fullmatch(name)))
            learning += weight.requires_grad
    if not learning:
        raise DataPrunerError("no LoRA adapter fits the last layers of this model; leave --last-layers out")


def train(model: Any, rows: Sequence[Rendered], count: int, rate: float, seed: int) -> None:
    """Train what of a model requires gradients: every row once, in ``count`` steps, in an order of the seed's.

    Raises
    ------
    DataPrunerError
        The loss is not finite.
    """
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    batches = steps(rows, count, seed)
    warm = max(1, len(batches) // 20)

    def scale(at: int) -> float:
        return float(min(1.0, (at + 1) / warm) * 0.5 * (1 + np.cos(np.pi * at / len(batches))))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, scale)
    model.train()
    for batch in batches:
        total = sum(supervised(row) for row in batch)
        for places in together(batch, _device(model)):
            losses, _ = token_losses(model, [batch[place] for place in places])
            loss = losses.sum() / total
            if not bool(torch.isfinite(loss)):
                raise DataPrunerError(
                    "the loss is not finite; lower the learning rate, or take --dtype=float32"
                )
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        schedule.step()
    model.eval()


def steps(rows: Sequence[Rendered], count: int, seed: int) -> list[list[Rendered]]:
    """Cut rows, in an order of the seed's, into batches of nearly as many supervised tokens; each has a row.

    So many whatever the lengths of the rows, so that what is compared takes as many steps.
    """
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    ends = np.cumsum([supervised(rows[place]) for place in order])
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, count) / count) + 1
    # A row of more than a step's tokens ends its batch late: those after it still have a row each.
    cuts = np.maximum.accumulate(cuts - np.arange(count - 1)) + np.arange(count - 1)
    cuts = np.minimum(cuts, len(order) - np.arange(count - 1, 0, -1))
    return [[rows[int(place)] for place in part] for part in np.split(np.asarray(order), cuts)]


def judged(model: Any, rows: Sequence[Rendered]) -> Floats:
    """Give the summed loss of every row's supervised tokens, in nats; float64 (n,)."""
    import torch

    out = np.zeros(len(rows))
    with evaluation(model), torch.inference_mode():
        for places in together(rows, _device(model)):
            losses, counts = token_losses(model, [rows[place] for place in places])
            parts = np.split(losses.double().cpu().numpy(), np.cumsum(counts)[:-1])
            out[places] = [float(part.sum()) for part in parts]
    return out


def token_losses(model: Any, rows: Sequence[Rendered]) -> tuple[torch.Tensor, list[int]]:
    """Run padded rows; the losses of the supervised tokens, row by row, and how many each row has."""
    import torch

    longest, device = max(len(row.input_ids) for row in rows), _device(model)
    ids, mask, labels = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))
    labels[:] = IGNORED
    for place, row in enumerate(rows):
        count = len(row.input_ids)
        own = torch.from_numpy(row.input_ids.astype(np.int64))
        ids[place, :count], mask[place, :count] = own, 1
        labels[place, :count][torch.from_numpy(row.supervised)] = own[torch.from_numpy(row.supervised)]
    at = labels[:, 1:] != IGNORED
    logits = _logits(model, ids.to(device), mask.to(device), at)
    wanted = labels[:, 1:][at].to(logits.device)
    losses = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="none")
    return losses, at.sum(1).tolist()


def _logits(model: Any, ids: torch.Tensor, mask: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Run a model; its logits at some positions, row by row, of shape (positions, vocabulary).

    The output layer sees the states of these alone: of a small model it is a fifth of the work, and of the memory most.
    Whatever else a family does to its logits it does as ever.
    """
    layer = model.get_output_embeddings()

    def some(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return given[0][:, :-1][at.to(given[0].device)][None], *given[1:]

    hook = None if layer is None else layer.register_forward_pre_hook(some)
    try:
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    finally:
        if hook is not None:
            hook.remove()
    return logits[:, :-1][at.to(logits.device)] if hook is None else logits[0]


def together(rows: Sequence[Rendered], device: Any) -> Iterator[list[int]]:
    """Put the places of rows of like length together, so that little is padded."""
    room = TOGETHER.get(device.type, TOGETHER["cpu"])
    part: list[int] = []
    for place in sorted(range(len(rows)), key=lambda place: len(rows[place].input_ids)):
        if part and (len(part) + 1) * len(rows[place].input_ids) > room:
            yield part
            part = []
        part.append(place)
    if part:
        yield part


def supervised(row: Rendered) -> int:
    """Count the tokens of a row that a loss counts: nothing predicts its first."""
    return int(row.supervised[1:].sum())


def _device(model: Any) -> torch.device:
    device: torch.device = model.get_input_embeddings().weight.device
    return device


def as_many(tokens: Ints, budget: float) -> int:
    """Count how many of the first rows have about so many tokens: the row that crosses counts where that is nearer.

    At least one, and not all.
    """
    gone = np.cumsum(tokens)
    count = int(np.searchsorted(gone, budget, side="right"))
    if count < len(tokens):
        over, under = gone[count] - budget, budget - (gone[count] - tokens[count])
        count += int(over < under)
    return min(max(count, 1), len(tokens) - 1)


def left_out(values: Floats, tokens: Ints, leave_out: float, rng: np.random.Generator) -> dict[str, Ints]:
    """Give the places that stay without the best rows, without the worst, and without any.

    Each time rows go, one after the other, until about ``leave_out`` of the supervised tokens are gone: as many steps
    are trained then, however long the rows are that a score prefers. Rows of equal value go in an order of their own.

    Parameters
    ----------
    values : ndarray, float64, shape (n,)
        Higher = keep.
    tokens : ndarray, int64, shape (n,)
    leave_out : float
    rng : Generator

    Returns
    -------
    dict of str to ndarray, int64
        ``best``, ``worst``, ``any`` -> the places that stay, ascending.
    """
    ties = rng.permutation(len(values))
    orders = {
        "best": np.lexsort((ties, -values)),
        "worst": np.lexsort((ties, values)),
        "any": rng.permutation(len(values)),
    }
    budget = leave_out * float(tokens.sum())
    return {name: np.sort(order[as_many(tokens[order], budget) :]) for name, order in orders.items()}
