"""Q-Tuning inside training, as published (arXiv 2509.23873): what its trainers share.

Every mini-batch (the rows one device sees at once) is scored without gradients by the model as it is, triaged by
:mod:`datapruner.selection.quadrants`, its Q2 rows pruned by :mod:`datapruner.selection.tokens`, and only then trained
on. What is kept is a smaller batch: fewer rows, as wide as the longest of them.

*Ours*: dropout is off while a batch is scored; the loss is the mean over the kept tokens of all the batches that are
accumulated before a step; rows without supervised tokens do not compete.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.parameters import as_written, check_parameters
from datapruner.ragged import Ragged, offsets_of
from datapruner.selection.quadrants import Fill, triage
from datapruner.selection.selectors.eu_plane import check_tokens
from datapruner.selection.tokens import Condition, prune_tokens

if TYPE_CHECKING:
    from transformers import Trainer as _Base
else:
    _Base = object

IGNORED = -100
TILE = 1 << 25
"""Logits turned into float32 at a time."""
SLICE = 1 << 28
"""Logits that a scoring pass makes at a time; rows beyond it wait for the next."""
PACKED = ("cu_seq_lens_q", "seq_idx", "shift_labels")


@dataclass(frozen=True)
class QTuningSettings:
    """What is kept of a batch.

    Parameters
    ----------
    sample_ratio : float
        Share of the rows, in (0, 1]: max(1, round(rows * share)) are kept.
    token_ratio : float
        Share of the supervised tokens of a row in Q2, in (0, 1].
    smoothing : float
        Weight of a token's neighbours in its score, in [0, 1].
    fill : {"ppl", "log_ppl", "rank"}
        Scale of |error - uncertainty| in the fill: ``ppl`` is published, see
        :func:`datapruner.selection.quadrants.gaps`.
    condition : {"none", "both"}
        Which tokens of Q2 may go: any (*published*: Algorithm 1, the code), or those alone that the paper's text calls
        detrimental, see :func:`datapruner.selection.tokens.detrimental`.
    """

    sample_ratio: float = 0.25
    token_ratio: float = 0.5
    smoothing: float = 0.5
    fill: Fill = "ppl"
    condition: Condition = "none"
    name = "QTuningTrainer"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        check_parameters(self)
        for name in ("sample_ratio", "token_ratio"):
            if not 0 < getattr(self, name) <= 1:
                raise DataPrunerError(
                    f"{self.name}: {name} must lie above 0 and at most 1, not {getattr(self, name)}"
                )
        check_tokens(self.name, self.token_ratio, self.smoothing)

    def choose(self, token_nll: Ragged, entropy: Floats) -> tuple[Ints, Ragged]:
        """Choose among rows by the loss of their tokens and their mean entropy.

        Returns
        -------
        rows : ndarray, int64
            The kept ones, ascending.
        masks : Ragged
            bool, one row for each kept one: which of its supervised tokens stay in the loss.
        """
        lengths = token_nll.lengths
        scored = np.flatnonzero(lengths)
        log_ppl = np.bincount(token_nll.rows(), token_nll.values, len(lengths))[scored] / lengths[scored]
        budget = max(1, round(as_written(self.sample_ratio) * len(scored)))
        order, quadrants, _ = triage(log_ppl, entropy[scored], budget, fill=self.fill, rows=scored)
        places = np.sort(order[:budget])
        rows = scored[places]
        masks = [np.ones(length, dtype=np.bool_) for length in lengths[rows]]
        confident = np.flatnonzero(quadrants.numbers[places] == 2)
        pruned = prune_tokens(
            token_nll,
            rows[confident],
            keep=self.token_ratio,
            smoothing=self.smoothing,
            condition=self.condition,
        )
        for place, mask in zip(confident.tolist(), pruned, strict=True):
            masks[place] = mask
        return rows, Ragged.from_rows(masks, np.bool_)


def prune_batch(
    model: Any, batch: Mapping[str, Any], settings: QTuningSettings, *, multiple: int = 1
) -> tuple[dict[str, Any], dict[str, int]]:
    """Score a batch with a model and keep what is worth a gradient.

    Parameters
    ----------
    model : torch.nn.Module
        A causal language model; it is called without labels and without gradients.
    batch : mapping of str to tensor
        Padded rows, with ``input_ids`` and ``labels``, on the model's device.
    settings : QTuningSettings
    multiple : int
        The kept batch's width is a multiple of it, as far as the batch's own is.

    Returns
    -------
    batch : dict
        Its kept rows, without the columns that are padding in all of them; a label is -100 where a token was pruned.
    counts : dict of str to int
        ``rows``, ``rows_kept``, ``tokens``, ``tokens_kept``.

    Raises
    ------
    DataPrunerError
        The batch is packed or holds what cannot be taken apart by rows, or the model's loss is not finite.
    """
    _check_rows(batch)
    labels = batch["labels"].clone()
    targets = labels.ne(IGNORED)
    targets[:, 0] = False  # nothing predicts a row's first token
    if _is_tensor(mask := batch.get("attention_mask")):
        targets[:, 1:] &= mask[:, :-1].ne(0)
    token_nll, entropy = score_batch(model, batch, targets)
    counts = {"rows": len(labels), "tokens": len(token_nll.values)}
    if not counts["tokens"]:  # no row can be preferred to another
        return dict(batch), {**counts, "rows_kept": len(labels), "tokens_kept": 0}
    finite = np.isfinite(token_nll.values)
    if not (finite.all() and np.isfinite(entropy).all()):
        row = token_nll.rows()[np.argmin(finite)] if not finite.all() else np.argmin(np.isfinite(entropy))
        raise DataPrunerError(
            f"the model's loss is not finite in row {row} of a batch, which cannot be pruned then: the training has "
            "diverged, or its precision is too low"
        )
    rows, masks = settings.choose(token_nll, entropy)
    kept = torch.from_numpy(rows).to(labels.device)
    stay = torch.zeros_like(targets)
    stay[kept] = torch.zeros_like(targets[kept]).masked_scatter(
        targets[kept], torch.from_numpy(masks.values).to(labels.device)
    )
    labels[~stay] = IGNORED
    pruned = _taken({**batch, "labels": labels}, kept, multiple)
    return pruned, {**counts, "rows_kept": len(rows), "tokens_kept": int(masks.values.sum())}


def score_batch(model: Any, batch: Mapping[str, Any], targets: torch.Tensor) -> tuple[Ragged, Floats]:
    """Give the loss of every supervised token, and the mean entropy of each row (0 where it has none).

    The model's own logits are read, a few rows at a time, so that whatever it does to them is in the result.
    """
    inputs = {name: held for name, held in batch.items() if name != "labels"}
    rows, width = targets.shape
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None) or 1 << 17
    step = max(1, SLICE // (width * vocabulary))
    was_training = model.training
    model.eval()
    found = []
    try:
        with torch.no_grad():
            for start in range(0, rows, step):
                some = slice(start, start + step)
                part = {name: held[some] if _is_tensor(held) else held for name, held in inputs.items()}
                logits = model(**part, use_cache=False).logits[:, -width:]  # before them, a soft prompt's
                found.append(token_statistics(logits, part["input_ids"], targets[some]))
    finally:
        model.train(was_training)
    lengths = targets.sum(1).cpu().numpy().astype(np.int64)
    nll, entropy = torch.cat(found, 1).cpu().numpy().astype(np.float64)
    token_nll = Ragged(nll, offsets_of(lengths))
    sums = np.bincount(token_nll.rows(), entropy, len(lengths))
    return token_nll, np.divide(sums, lengths, out=np.zeros(len(lengths)), where=lengths > 0)


def token_statistics(logits: torch.Tensor, input_ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Give loss and entropy of the targeted tokens, row after row: float32 (2, total), in nats."""
    rows, columns = targets.nonzero(as_tuple=True)
    tile = max(1, TILE // logits.shape[-1])
    out = [torch.zeros(2, 0, device=logits.device)]
    for start in range(0, len(rows), tile):
        r, c = rows[start : start + tile], columns[start : start + tile]
        log_p = torch.log_softmax(logits[r, c - 1].float(), -1)
        nll = -log_p.gather(1, input_ids[r, c, None])[:, 0]
        # A token that is ruled out (-inf) adds nothing; 0 times -inf would be NaN.
        entropy = -(log_p.exp() * log_p.clamp(min=torch.finfo(torch.float32).min)).sum(-1)
        out.append(torch.stack([nll, entropy]))
    return torch.cat(out, 1)


def _taken(batch: Mapping[str, Any], rows: torch.Tensor, multiple: int) -> dict[str, Any]:
    """Take some rows, without the columns at either end that are padding in all of them."""
    width = batch["labels"].shape[1]
    first, stop = 0, width
    if _is_tensor(mask := batch.get("attention_mask")):
        read = mask[rows].ne(0).any(0).nonzero()[:, 0]
        first, stop = int(read[0]), int(read[-1]) + 1
        spare = min(-(stop - first) % multiple, width - (stop - first))
        stop, first = min(width, stop + spare), first - max(0, stop + spare - width)

    def take(held: Any) -> Any:
        if not _is_tensor(held):
            return held
        return held[rows] if held.dim() == 1 else held[rows, first:stop]

    return {name: take(held) for name, held in batch.items()}


def _check_rows(batch: Mapping[str, Any]) -> None:
    """Refuse a batch that is not one row of tokens for every sample."""
    labels, ids = batch.get("labels"), batch.get("input_ids")
    if not _is_tensor(labels) or not _is_tensor(ids) or ids.dim() != 2 or labels.shape != ids.shape:
        raise DataPrunerError(
            "Q-Tuning needs batches with input_ids and labels of one shape, (rows, tokens); use a collator that pads "
            "both, such as DataCollatorForSeq2Seq"
        )
    positions = batch.get("position_ids")
    packed = any(name in batch for name in PACKED)
    if not packed and _is_tensor(positions) and positions.shape == ids.shape:
        read = batch["attention_mask"].ne(0) if _is_tensor(batch.get("attention_mask")) else True
        packed = bool((positions.eq(0) & read).sum(1).gt(1).any())
    if packed:
        raise DataPrunerError(
            "Q-Tuning prunes rows, and packed or padding-free batches have none; switch packing and padding_free off"
        )
    for name, held in batch.items():
        if _is_tensor(held) and held.shape not in (ids.shape, ids.shape[:1]):
            raise DataPrunerError(
                f"Q-Tuning prunes rows of text, and '{name}' of shape {tuple(held.shape)} in a batch of "
                f"{len(ids)} rows is something else; leave it out"
            )


def _is_tensor(held: Any) -> TypeGuard[torch.Tensor]:
    return isinstance(held, torch.Tensor)


class _Tally:
    """What was kept, and what choosing it took, since the last line of the log."""

    def __init__(self) -> None:
        self.since = time.perf_counter()
        self.seconds = 0.0
        self.counts: dict[str, int] = {}

    def add(self, seconds: float, counts: Mapping[str, int]) -> None:
        self.seconds += seconds
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def shares(self) -> dict[str, float]:
        """Give shares of the time, of the rows and of the supervised tokens."""
        if not self.counts:
            return {}
        passed = max(time.perf_counter() - self.since, 1e-9)
        return {
            "qtuning_selection_share": round(self.seconds / passed, 4),
            **{
                f"qtuning_{name}_kept": round(self.counts[f"{name}_kept"] / max(self.counts[name], 1), 4)
                for name in ("rows", "tokens")
            },
        }


class QTuningMixin(_Base):  # type: ignore[misc]
    """Makes a trainer of the `transformers` family prune every mini-batch before it trains on it.

    Evaluation is left alone. Each device prunes its own batches; parameters that are sharded over devices (FSDP,
    DeepSpeed ZeRO 3) and nn.DataParallel are refused.

    Parameters
    ----------
    *args, **kwargs
        The trainer's own.
    sample_ratio, token_ratio, smoothing, fill, condition
        See :class:`QTuningSettings`.
    """

    def __init__(
        self,
        *args: Any,
        sample_ratio: float = 0.25,
        token_ratio: float = 0.5,
        smoothing: float = 0.5,
        fill: Fill = "ppl",
        condition: Condition = "none",
        **kwargs: Any,
    ) -> None:
        self.qtuning = QTuningSettings(sample_ratio, token_ratio, smoothing, fill, condition)
        self._tally: _Tally | None = None
        given = kwargs.get("args", args[1] if len(args) > 1 else None)
        if getattr(given, "packing", False) or getattr(given, "padding_free", False):
            raise DataPrunerError(
                "Q-Tuning prunes rows, and packed or padding-free batches have none; set packing=False and "
                "padding_free=False"
            )
        super().__init__(*args, **kwargs)
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        if getattr(self, "is_fsdp_enabled", False) or getattr(plugin, "zero_stage", 0) == 3:
            raise DataPrunerError(
                "Q-Tuning scores batches of each device's own, which parameters sharded by FSDP or ZeRO 3 do not "
                "allow; use DDP, or ZeRO up to 2"
            )
        if self.args.n_gpu > 1:
            raise DataPrunerError(
                "Q-Tuning does not run under nn.DataParallel; start the script with `accelerate launch` or `torchrun`"
            )

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *args: Any, **kwargs: Any) -> Any:
        """Prune the batches of a step before their tokens are counted, so that the loss is a mean over what is kept.

        The model does not change between the batches of a step, so that scoring them ahead is as good as one by one.
        """
        return super().get_batch_samples(map(self._pruned, epoch_iterator), *args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add what was kept, and the share of the time that choosing it took, to the training's lines."""
        if "loss" in logs and self._tally is not None:
            logs.update(self._tally.shares())
            self._tally = _Tally()
        super().log(logs, *args, **kwargs)

    def _pruned(self, batch: Any) -> dict[str, Any]:
        if self._tally is None:
            self._tally = _Tally()
        if torch.cuda.is_available():  # the step before is not to be counted
            torch.cuda.synchronize()
        start = time.perf_counter()
        batch = self._prepare_inputs(batch)
        multiple = getattr(self.args, "pad_to_multiple_of", None) or 1
        pruned, counts = prune_batch(self.model, batch, self.qtuning, multiple=multiple)
        self._tally.add(time.perf_counter() - start, counts)
        return pruned
