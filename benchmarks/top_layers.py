"""Training with power on two cores: the lower layers are frozen and their states computed once for all arms.

Only the top layers learn, all of their weights. A step is a batch of supervised tokens, not of rows, so that arms of
the same budget take the same number of steps over the same number of tokens, whatever the lengths of their rows. The
head is applied at supervised positions only, over the tokens that occur as targets in any of the sets.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from finetune import MICRO_TOKENS, by_length, part_of, rendered
from numpy.typing import NDArray

MODEL = "smollm2-135m-q4"
DEPTH = 4
"""Layers that learn, from the top."""
STEP_TOKENS = 512
"""Supervised tokens a step."""
RATE = 2e-4


@dataclass(frozen=True)
class Held:
    """The rows of a set as the top layers read them.

    Attributes
    ----------
    ids : ndarray, int32, shape (tokens,)
    supervised : ndarray, bool, shape (tokens,)
    states : ndarray, float16, shape (tokens, d); mapped from a file
    offsets : ndarray, int64, shape (rows + 1,)
    """

    ids: NDArray[np.int32]
    supervised: NDArray[np.bool_]
    states: NDArray[np.float16]
    offsets: NDArray[np.int64]

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Supervised tokens that a loss counts, of every row: the first of a row has nothing before it."""
        counted = self.supervised.copy()
        counted[self.offsets[:-1][np.diff(self.offsets) > 0]] = False
        sums = np.concatenate([[0], np.cumsum(counted)])
        return np.asarray(sums[self.offsets[1:]] - sums[self.offsets[:-1]])

    def row(self, place: int) -> slice:
        return slice(int(self.offsets[place]), int(self.offsets[place + 1]))


def hold(source: Path, folder: Path, model: Any, tokenizer: Any, depth: int, device: str) -> Held:
    """Render the rows of a file and keep what the lower layers make of them; what stands in the folder is read."""
    name, done = source.name.removesuffix(".jsonl"), folder / f"{source.stem}.{depth}.json"
    files = {key: folder / f"{name}.{depth}.{key}.npy" for key in ("ids", "supervised", "states", "offsets")}
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        count = sum(1 for line in source.open(encoding="utf-8") if line.strip())
        rows = rendered(source, tokenizer, range(count))
        offsets = np.concatenate([[0], np.cumsum([len(row.ids) for row in rows])]).astype(np.int64)
        np.save(files["ids"], np.concatenate([np.asarray(row.ids, np.int32) for row in rows]))
        np.save(files["supervised"], np.concatenate([np.asarray(row.supervised, bool) for row in rows]))
        np.save(files["offsets"], offsets)
        _write_states(files["states"], rows, offsets, model, depth, device)
        done.write_text(json.dumps({"rows": count, "tokens": int(offsets[-1])}), encoding="utf-8")
    return Held(
        np.load(files["ids"]),
        np.load(files["supervised"]),
        np.load(files["states"], mmap_mode="r"),
        np.load(files["offsets"]),
    )


def _write_states(
    path: Path, rows: Sequence[Any], offsets: NDArray[np.int64], model: Any, depth: int, device: str
) -> None:
    import torch

    lower = part_of(model, slice(None, -depth))
    lower.model.norm = torch.nn.Identity()
    width = model.config.hidden_size
    states = np.lib.format.open_memmap(path, "w+", np.float16, (int(offsets[-1]), width))
    order = [place for place in range(len(rows)) if len(rows[place].ids)]
    for batch in by_length(rows, order, 4 * MICRO_TOKENS[device]):
        longest = max(len(rows[place].ids) for place in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros(len(batch), longest, dtype=torch.long)
        for number, place in enumerate(batch):
            row = torch.from_numpy(np.asarray(rows[place].ids).astype(np.int64))
            ids[number, : len(row)], mask[number, : len(row)] = row, 1
        with torch.inference_mode():
            given = lower.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
        for number, place in enumerate(batch):
            found = given.last_hidden_state[number, : len(rows[place].ids)]
            states[offsets[place] : offsets[place + 1]] = found.half().cpu().numpy()
    states.flush()


def targets_of(sets: Sequence[Held]) -> NDArray[np.int64]:
    """The tokens that occur as targets in any set, ascending."""
    return np.unique(np.concatenate([held.ids[held.supervised] for held in sets])).astype(np.int64)


class Head:
    """The losses of supervised positions, over some of the vocabulary or all of it."""

    def __init__(self, model: Any, vocabulary: NDArray[np.int64] | None, device: str) -> None:
        import torch

        weight = model.lm_head.weight.detach()
        size = weight.shape[0]
        self.place = torch.full((size,), -1, dtype=torch.long)
        kept = torch.arange(size) if vocabulary is None else torch.from_numpy(vocabulary)
        self.place[kept] = torch.arange(len(kept))
        self.weight = weight[kept.to(weight.device)].to(device)
        self.place = self.place.to(device)

    def losses(self, states: Any, wanted: Any) -> Any:
        import torch

        logits = states.float() @ self.weight.float().T
        return torch.nn.functional.cross_entropy(logits, self.place[wanted], reduction="none")


def batch_of(held: Held, places: Sequence[int], device: str) -> tuple[Any, Any, Any]:
    """States [b, t, d], their mask, and labels [b, t]: -100 where nothing is learnt."""
    import torch

    longest = max(int(held.offsets[place + 1] - held.offsets[place]) for place in places)
    states = torch.zeros(len(places), longest, held.states.shape[1])
    mask = torch.zeros(len(places), longest, dtype=torch.long)
    labels = torch.full((len(places), longest), -100, dtype=torch.long)
    for number, place in enumerate(places):
        of = held.row(place)
        ids = torch.from_numpy(held.ids[of].astype(np.int64))
        states[number, : len(ids)] = torch.from_numpy(np.asarray(held.states[of], dtype=np.float32))
        mask[number, : len(ids)] = 1
        counted = torch.from_numpy(held.supervised[of])
        labels[number, : len(ids)][counted] = ids[counted]
    return states.to(device), mask.to(device), labels.to(device)


def losses_of(top: Any, head: Head, batch: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    """Losses of the supervised tokens, and where they are."""
    states, mask, labels = batch
    out = top.model(inputs_embeds=states, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    at = wanted != -100
    return head.losses(out[at], wanted[at]), at


def steps_of(rows: Sequence[int], tokens: NDArray[np.int64], steps: int) -> list[list[int]]:
    """Cut rows into consecutive batches of nearly as many tokens each; every batch has a row."""
    ends = np.cumsum(tokens[np.asarray(rows)])
    if len(rows) < steps:
        raise ValueError(f"{len(rows)} rows make no {steps} batches")
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, steps) / steps, side="left") + 1
    # Long rows may take more than a step's tokens: the batches after them still have a row each.
    for at in range(len(cuts)):
        low = (cuts[at - 1] if at else 0) + 1
        cuts[at] = min(max(int(cuts[at]), low), len(rows) - (steps - 1 - at))
    return [list(map(int, part)) for part in np.split(np.asarray(rows), cuts)]


def within_budget(order: Sequence[int], tokens: NDArray[np.int64], budget: int) -> list[int]:
    """Take rows in order until the next would exceed the budget of supervised tokens; those without any are left."""
    out: list[int] = []
    left = budget
    for place in order:
        if 0 < tokens[place] <= left:
            out.append(int(place))
            left -= int(tokens[place])
    return out


def train(
    model: Any,
    head: Head,
    held: Held,
    rows: Sequence[int],
    *,
    steps: int,
    seed: int,
    depth: int,
    rate: float,
    device: str,
) -> Any:
    """Train a copy of the top layers on some rows: so many steps, whatever their number."""
    import torch

    torch.manual_seed(seed)
    top = copy.deepcopy(part_of(model, slice(-depth, None))).to(device).train()
    top.requires_grad_(False)
    for part in (top.model.layers, top.model.norm):
        part.requires_grad_(True)
    weights = [weight for weight in top.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda at: min(1.0, (at + 1) / warm) * 0.5 * (1 + math.cos(math.pi * at / steps))
    )
    tokens = held.tokens
    order = np.random.default_rng(seed).permutation(np.asarray(rows)).tolist()
    lengths = _Lengths(held)
    for batch in steps_of(order, tokens, steps):
        wanted = int(tokens[batch].sum())
        for micro in by_length(lengths, batch, 2 * MICRO_TOKENS[device]):
            losses, _ = losses_of(top, head, batch_of(held, micro, device))
            (losses.sum() / wanted).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
    return top.eval()


class _Lengths:
    """Rows as `by_length` asks for them."""

    def __init__(self, held: Held) -> None:
        self.held = held

    def __len__(self) -> int:
        return len(self.held.offsets) - 1

    def __getitem__(self, place: int) -> Any:
        return _Row(range(int(self.held.offsets[place + 1] - self.held.offsets[place])))


@dataclass(frozen=True)
class _Row:
    ids: range


def judged(top: Any, head: Head, held: Held, device: str) -> NDArray[np.float64]:
    """Summed loss of every row's supervised tokens, nats."""
    import torch

    out = np.zeros(len(held.offsets) - 1)
    for micro in by_length(_Lengths(held), range(len(out)), 4 * MICRO_TOKENS[device]):
        with torch.inference_mode():
            losses, at = losses_of(top, head, batch_of(held, micro, device))
        parts = losses.double().cpu().split(at.sum(dim=1).tolist())
        for place, part in zip(micro, parts, strict=True):
            out[place] = float(part.sum())
    return out


def timed_arm(run: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    found = run()
    return found, round(time.perf_counter() - start, 1)
