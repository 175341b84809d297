"""Training with power on two cores: the lower layers are frozen, and their states are computed once for all arms.

Only the top layers learn, all of their weights. A step is a batch of supervised tokens, not of rows, so that arms of
one budget take as many steps over as many tokens, whatever the lengths of their rows. The last layer's queries and the
head are computed at supervised positions only, the softmax over the tokens that occur as targets.

On an accelerator the whole model learns, all but its embeddings, by the same code: rows without states start there.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from finetune import Row, by_length, part_of, rendered
from numpy.typing import NDArray

MODEL = "smollm2-135m-q4"
HELD_DEPTH = 1
"""Layers above the states that are stored."""
CHUNK = 256
"""Rows a file of states."""
MICRO = {"cpu": 1024, "cuda": 16384}
"""Tokens that go through the layers together."""


class States:
    """The rows of several sets, each text once, with the states below the top layers on disk.

    Files are written one after the other and whole, so that several processes may fill the folder, and go on later.
    """

    def __init__(self, folder: Path, sets: Sequence[str], tokenizer: Any) -> None:
        self.folder = folder / "states"
        self.folder.mkdir(exist_ok=True)
        self.rows: list[Row] = []
        self.mapped: set[int] = set()
        self.places: dict[str, list[int]] = {}
        known: dict[bytes, int] = {}
        for name in sets:
            self.places[name] = []
            for row in self._rendered(folder / f"{name}.jsonl", tokenizer):
                key = hashlib.sha256(row.ids.tobytes() + b"|" + row.supervised.tobytes()).digest()
                if key not in known:
                    known[key] = len(self.rows)
                    self.rows.append(row)
                self.places[name].append(known[key])

    def _rendered(self, source: Path, tokenizer: Any) -> Iterator[Row]:
        kept = self.folder / f"{source.stem}.rows.npz"
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        if not kept.exists() or str(np.load(kept)["source"]) != digest:
            count = sum(1 for line in source.open(encoding="utf-8") if line.strip())
            rows = rendered(source, tokenizer, range(count))
            np.savez(
                kept,
                source=digest,
                ids=np.concatenate([np.asarray(row.ids, np.int32) for row in rows]),
                supervised=np.concatenate([np.asarray(row.supervised, np.bool_) for row in rows]),
                lengths=np.array([len(row.ids) for row in rows]),
            )
        held = np.load(kept)
        cuts = np.cumsum(held["lengths"])[:-1]
        for ids, supervised in zip(
            np.split(held["ids"], cuts), np.split(held["supervised"], cuts), strict=True
        ):
            yield Row(ids, supervised)

    def chunks(self) -> list[range]:
        return [range(at, min(at + CHUNK, len(self.rows))) for at in range(0, len(self.rows), CHUNK)]

    def path(self, chunk: range) -> Path:
        of = hashlib.sha256(b"".join(self.rows[place].ids.tobytes() for place in chunk)).hexdigest()[:16]
        return self.folder / f"{of}.{HELD_DEPTH}.npy"

    def fill(self, model: Any, chunk: range, device: str) -> None:
        """Compute and write what is not there."""
        import torch

        path = self.path(chunk)
        if path.exists():
            return
        lower = part_of(model, slice(None, -HELD_DEPTH))
        lower.model.norm = torch.nn.Identity()
        found: dict[int, NDArray[np.float16]] = {}
        filled = [place for place in chunk if len(self.rows[place].ids)]
        for batch in by_length(self.rows, filled, MICRO[device]):
            ids, mask = _padded_ids([self.rows[place].ids for place in batch])
            with torch.inference_mode(), fast(device):
                given = lower.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
            for place, row in zip(batch, given.last_hidden_state, strict=True):
                found[place] = row[: len(self.rows[place].ids)].half().cpu().numpy()
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.save(file, np.concatenate([found[place] for place in filled]))
        part.rename(path)

    def of(self, name: str) -> list[Row]:
        """The rows of a set, with their states mapped from the files."""
        chunks = self.chunks()
        for number in {place // CHUNK for place in self.places[name]} - self.mapped:
            states = np.load(self.path(chunks[number]), mmap_mode="r")
            cuts = np.cumsum([len(self.rows[place].ids) for place in chunks[number]])[:-1]
            for place, part in zip(chunks[number], np.split(states, cuts), strict=True):
                self.rows[place] = self.rows[place]._replace(states=part)
            self.mapped.add(number)
        return [self.rows[place] for place in self.places[name]]


def fast(device: str, wanted: bool = True) -> Any:
    """bfloat16 products, where the processor has them; logits that a model is judged by are float32."""
    import torch

    able = wanted and (device != "cpu" or torch.cpu._is_avx512_bf16_supported())
    return torch.autocast(device, torch.bfloat16) if able else contextlib.nullcontext()


def _padded_ids(rows: Sequence[NDArray[np.int32]]) -> tuple[Any, Any]:
    import torch

    longest = max(map(len, rows))
    ids, mask = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(2))
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = torch.from_numpy(row.astype(np.int64)), 1
    return ids, mask


def counted(rows: Sequence[Row]) -> NDArray[np.int64]:
    """Supervised tokens that a loss counts, of every row: the first of a row has nothing before it."""
    return np.array([int(row.supervised[1:].sum()) for row in rows], dtype=np.int64)


def targets_of(rows: Sequence[Row]) -> NDArray[np.int64]:
    """The tokens that occur as targets, ascending."""
    return np.unique(np.concatenate([row.ids[row.supervised] for row in rows])).astype(np.int64)


class Head:
    """The losses of supervised positions, over some of the vocabulary or all of it."""

    def __init__(self, model: Any, vocabulary: NDArray[np.int64] | None, device: str) -> None:
        import torch

        weight = model.lm_head.weight.detach()
        kept = torch.arange(len(weight)) if vocabulary is None else torch.from_numpy(vocabulary)
        self.place = torch.full((len(weight),), -1, dtype=torch.long)
        self.place[kept] = torch.arange(len(kept))
        self.place = self.place.to(device)
        self.weight = weight[kept.to(weight.device)].to(device)
        with fast(device):
            # Once, not at every batch: autocast keeps no copy of a weight that does not learn.
            self.rough = self.weight.to(
                torch.bfloat16 if torch.is_autocast_enabled(device) else torch.float32
            )
        self.device = device

    def losses(self, states: Any, wanted: Any, rough: bool = False) -> Any:
        import torch

        with fast(self.device, rough):
            logits = torch.nn.functional.linear(states, self.rough if rough else self.weight)
        return torch.nn.functional.cross_entropy(logits.float(), self.place[wanted], reduction="none")

    def uncertain(self, states: Any, wanted: Any) -> tuple[Any, Any]:
        """The losses, and the entropies of the predictions."""
        import torch

        with fast(self.device):
            logits = torch.nn.functional.linear(states, self.rough)
        logs = logits.float().log_softmax(-1)
        return -logs.gather(1, self.place[wanted][:, None])[:, 0], -(logs.exp() * logs).sum(-1)


def batch_of(rows: Sequence[Row], embed: Any, device: str) -> tuple[Any, Any, Any]:
    """States [b, t, d], padded on the left; which are there [b, t]; labels [b, t], -100 where nothing is learnt."""
    import torch

    longest = max(len(row.ids) for row in rows)
    states = torch.zeros(len(rows), longest, embed.embedding_dim, device=device)
    there = torch.zeros(len(rows), longest, dtype=torch.bool)
    labels = torch.full((len(rows), longest), -100, dtype=torch.long)
    for number, row in enumerate(rows):
        start = longest - len(row.ids)
        ids, supervised = torch.from_numpy(row.ids.astype(np.int64)), torch.from_numpy(row.supervised)
        if row.states is None:
            states[number, start:] = embed(ids.to(device)).detach()
        else:
            states[number, start:] = torch.from_numpy(np.asarray(row.states, dtype=np.float32)).to(device)
        there[number, start:] = True
        labels[number, start:][supervised] = ids[supervised]
        labels[number, start] = -100
    return states, there.to(device), labels.to(device)


def top_of(model: Any, depth: int) -> Any:
    """A copy of the layers above the states, or of so many as learn, of which the last ``depth`` learn."""
    top = copy.deepcopy(part_of(model, slice(-max(HELD_DEPTH, depth), None)))
    top.requires_grad_(False)
    for part in (*top.model.layers[-depth:], top.model.norm):
        part.requires_grad_(True)
    return top


def losses_of(top: Any, head: Head, rows: Sequence[Row], device: str, rough: bool = False) -> tuple[Any, Any]:
    """Losses of the supervised tokens, and how many each row has."""
    states, wanted, counts = supervised_states(top, rows, device)
    return head.losses(states, wanted, rough), counts


def supervised_states(top: Any, rows: Sequence[Row], device: str) -> tuple[Any, Any, Any]:
    """States that predict the supervised tokens [n, d], these tokens [n], and how many each row has."""
    import torch

    states, there, labels = batch_of(rows, top.model.embed_tokens, device)
    positions = (there.cumsum(1) - 1).clamp(min=0)
    at = labels != -100
    # Answers end the rows, and the padding is on the left: few queries of the last layer are nobody's.
    first = max(int(at.any(0).float().argmax()) - 1, 0)
    with fast(device):
        turns = top.model.rotary_emb(states, positions)
        length = states.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=states.device).tril()
        itself = torch.eye(length, dtype=torch.bool, device=states.device)
        allowed = (causal & there[:, None, :] | itself)[:, None]
        for layer in top.model.layers[:-1]:
            states = decoder_layer(layer, states, turns, allowed, 0)
        states = decoder_layer(top.model.layers[-1], states, turns, allowed, first)
        states = top.model.norm(states)
    wanted = labels[:, first + 1 :]
    at = wanted != -100
    return states[:, :-1][at], wanted[at], at.sum(1)


def decoder_layer(layer: Any, states: Any, turns: tuple[Any, Any], allowed: Any, first: int) -> Any:
    """A Llama decoder layer at the positions from ``first`` on; keys and values are computed at all."""
    import torch

    attention = layer.self_attn
    normed = layer.input_layernorm(states)

    def heads(projection: Any, of: Any) -> Any:
        return projection(of).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    def turned(of: Any, cos: Any, sin: Any) -> Any:
        half = of.shape[-1] // 2
        return of * cos[:, None] + torch.cat([-of[..., half:], of[..., :half]], -1) * sin[:, None]

    cos, sin = turns
    query = turned(heads(attention.q_proj, normed[:, first:]), cos[:, first:], sin[:, first:])
    key, value = turned(heads(attention.k_proj, normed), cos, sin), heads(attention.v_proj, normed)
    key, value = (
        of.repeat_interleave(query.shape[1] // of.shape[1], 1).to(query.dtype) for of in (key, value)
    )
    found = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=allowed[:, :, first:]
    )
    states = states[:, first:] + attention.o_proj(found.transpose(1, 2).flatten(2))
    return states + layer.mlp(layer.post_attention_layernorm(states))


def steps_of(rows: Sequence[int], tokens: NDArray[np.int64], steps: int) -> list[list[int]]:
    """Cut rows into consecutive batches of nearly as many tokens each; every batch has a row."""
    if len(rows) < steps:
        raise ValueError(f"{len(rows)} rows make no {steps} batches")
    ends = np.cumsum(tokens[np.asarray(rows)])
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, steps) / steps, side="left") + 1
    # Long rows may take more than a step's tokens: the batches after them still have a row each.
    for at in range(len(cuts)):
        low = (cuts[at - 1] if at else 0) + 1
        cuts[at] = min(max(int(cuts[at]), low), len(rows) - (steps - 1 - at))
    return [list(map(int, part)) for part in np.split(np.asarray(rows), cuts)]


def within_budget(order: Sequence[int], tokens: NDArray[np.int64], budget: int) -> list[int]:
    """Take rows in order as long as they fit the budget of supervised tokens; those without any are left."""
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
    data: Sequence[Row],
    rows: Sequence[int],
    *,
    steps: int,
    seed: int,
    depth: int,
    rate: float,
    device: str,
    chosen: Callable[[Any, Sequence[Row]], Sequence[Row]] | None = None,
) -> Any:
    """Train a copy of the top layers on some rows: so many steps, whatever their number.

    ``chosen`` says what of a batch is learnt, by the model as it is.
    """
    import torch

    torch.manual_seed(seed)
    top = top_of(model, depth).to(device).train()
    weights = [weight for weight in top.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda at: min(1.0, (at + 1) / warm) * 0.5 * (1 + math.cos(math.pi * at / steps))
    )
    tokens = counted(data)
    order = np.random.default_rng(seed).permutation(np.asarray(rows)).tolist()
    for batch in steps_of(order, tokens, steps):
        learnt = [data[place] for place in batch]
        if chosen is not None:
            learnt = list(chosen(top, learnt))
        wanted = int(counted(learnt).sum())
        for micro in by_length(learnt, range(len(learnt)), MICRO[device]):
            losses, _ = losses_of(top, head, [learnt[place] for place in micro], device, rough=True)
            (losses.sum() / wanted).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
    return top.eval()


def judged(top: Any, head: Head, data: Sequence[Row], device: str) -> NDArray[np.float64]:
    """Summed loss of every row's supervised tokens, nats."""
    import torch

    out = np.zeros(len(data))
    for micro in by_length(data, range(len(out)), 4 * MICRO[device]):
        with torch.inference_mode():
            losses, counts = losses_of(top, head, [data[place] for place in micro], device)
        for place, part in zip(micro, losses.double().cpu().split(counts.tolist()), strict=True):
            out[place] = float(part.sum())
    return out
