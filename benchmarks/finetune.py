"""Fine-tuning that the benchmarks of worth and of recovery share: batches, losses, processes, intervals."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import os
import queue
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import write

RANK, ALPHA = 8, 16
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MAX_LENGTH = 1024
MICRO_TOKENS = {"cpu": 512, "cuda": 16384}
"""Tokens that go through the model together: rows of like length, gradients added up."""


class Row(NamedTuple):
    """A row's token ids and which of them are supervised; states below the layers that learn, where they are held."""

    ids: Any
    supervised: Any
    states: Any = None


Data = Sequence[Row]


def rendered(source: Path, tokenizer: Any, rows: Sequence[int]) -> list[Row]:
    """Some rows of a file."""
    from datapruner.samples import load_samples
    from datapruner.samples.rendering import render_many

    samples = load_samples(str(source))
    numbers = list(rows)
    return [
        Row(one.input_ids, one.supervised)
        for one in render_many(
            samples.iter_samples(np.array(numbers)), tokenizer, max_length=MAX_LENGTH, numbers=numbers
        )
    ]


def padded(data: Data, batch: Sequence[int], device: str) -> tuple[Any, Any, Any]:
    """Token ids [b, t], or the states [b, t, d] that are held; the mask; labels, -100 where nothing is learnt."""
    import torch

    longest = max(len(data[place].ids) for place in batch)
    ids, mask, labels = (torch.zeros(len(batch), longest, dtype=torch.long) for _ in range(3))
    held = data[batch[0]].states
    states = None if held is None else held.new_zeros(len(batch), longest, held.shape[1])
    labels -= 100
    for number, place in enumerate(batch):
        row, supervised = (torch.from_numpy(np.asarray(held)) for held in data[place][:2])
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
        labels[number, : len(row)][supervised] = row[supervised].long()
        if states is not None:
            states[number, : len(row)] = data[place].states
    return (ids if states is None else states).to(device), mask.to(device), labels.to(device)


def by_length(data: Data, batch: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Rows of like length together, so that little is padded."""
    part: list[int] = []
    for place in sorted(batch, key=lambda place: len(data[place].ids)):
        if part and (len(part) + 1) * len(data[place].ids) > tokens:
            yield part
            part = []
        part.append(place)
    yield part


def target_losses(model: Any, inputs: Any, mask: Any, labels: Any) -> tuple[Any, Any]:
    """Losses of the supervised tokens, and where they are; logits are formed there only."""
    import torch

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    given = {"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs}
    states = inner.model(**given, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    at = wanted != -100
    logits = inner.lm_head(states[at]).float()
    return torch.nn.functional.cross_entropy(logits, wanted[at], reduction="none"), at


def part_of(model: Any, layers: slice) -> Any:
    """Some decoder layers of a model as a model of its own, which shares the weights with it."""
    import torch

    held = model.model.layers[layers]
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(held)
    with torch.device("meta"):
        part = type(model)(config)
    for name in ("embed_tokens", "norm", "rotary_emb"):
        setattr(part.model, name, getattr(model.model, name))
    part.model.layers, part.lm_head = held, model.lm_head
    return part


def with_states(model: Any, data: Data, device: str) -> list[Row]:
    """The rows with the states that a part's last layer gives, before any norm."""
    import torch

    model.model.norm = torch.nn.Identity()
    out: dict[int, Row] = {}
    for batch in by_length(data, range(len(data)), MICRO_TOKENS[device]):
        ids, mask, _ = padded(data, batch, device)
        with torch.no_grad():
            states = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for place, held in zip(batch, states, strict=True):
            out[place] = data[place]._replace(states=held[: len(data[place].ids)].cpu().clone())
    return [out[place] for place in range(len(data))]


def mean_losses(model: Any, data: Data, device: str) -> list[float]:
    """Mean loss of every row's supervised tokens, nats."""
    import torch

    out = [0.0] * len(data)
    for batch in by_length(data, range(len(data)), MICRO_TOKENS[device]):
        with torch.no_grad():
            losses, at = target_losses(model, *padded(data, batch, device))
        parts = losses.double().cpu().split(at.sum(dim=1).tolist())
        for place, part in zip(batch, parts, strict=True):
            out[place] = float(part.mean())
    return out


def by_capability(losses: Sequence[float], names: Sequence[str]) -> dict[str, Any]:
    """Mean loss of each capability, and the mean of these."""
    by: dict[str, list[float]] = defaultdict(list)
    for name, loss in zip(names, losses, strict=True):
        by[name].append(loss)
    means = {name: float(np.mean(held)) for name, held in by.items()}
    return {
        "log_ppl": float(np.mean(list(means.values()))),
        "by_capability": {name: round(mean, 5) for name, mean in means.items()},
    }


def fine_tune(
    model: Any,
    data: Data,
    plan: Sequence[Sequence[int]],
    *,
    seed: int,
    rate: float,
    device: str,
) -> Any:
    """LoRA on all of this model's layers, a step a batch of the plan; prompts are masked, weights are float32."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=MODULES,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config).train()
    weights = [held for held in model.parameters() if held.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    warm = max(1, len(plan) // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda at: min(1.0, (at + 1) / warm) * 0.5 * (1 + math.cos(math.pi * at / len(plan))),
    )
    for batch in plan:
        wanted = sum(int(data[place].supervised.sum()) for place in batch)
        for micro in by_length(data, batch, MICRO_TOKENS[device]):
            (target_losses(model, *padded(data, micro, device))[0].sum() / wanted).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
    return model.eval()


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def load(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {"runs": {}}
    return found


Run = Callable[[Any], dict[str, Any]]


def work(inbox: Any, outbox: Any, prepare: Callable[[Any, str], Run], arguments: Any) -> None:
    """Do tasks until there are none; an error is told to the parent, which ends with it."""
    import torch

    told = int(os.environ.get("OMP_NUM_THREADS", "0"))
    torch.set_num_threads(told or max(1, (os.cpu_count() or 1) // arguments.processes))
    torch.backends.cuda.matmul.allow_tf32 = True
    run: Run | None = None
    while (task := inbox.get()) is not None:
        start = time.perf_counter()
        try:
            run = run or prepare(arguments, "cuda" if torch.cuda.is_available() else "cpu")
            found = run(task)
            outbox.put((task.key, {**found, "seconds": round(time.perf_counter() - start, 1)}, None))
        except Exception as error:
            outbox.put((task.key, {}, repr(error)))


class Workers:
    """Processes that train. What `prepare` gives in each of them keeps the models that it has loaded."""

    def __init__(self, prepare: Callable[[Any, str], Run], arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.out: Path = arguments.out
        self.inbox, self.outbox = context.Queue(), context.Queue()
        self.processes = [
            context.Process(target=work, args=(self.inbox, self.outbox, prepare, arguments), daemon=True)
            for _ in range(arguments.processes)
        ]
        for process in self.processes:
            process.start()

    def run(self, tasks: Sequence[Any]) -> None:
        """Work through the tasks that have no result yet; the file is written after each."""
        done = load(self.out)
        tasks = [task for task in tasks if task.key not in done["runs"]]
        for task in tasks:
            self.inbox.put(task)
        for number in range(len(tasks)):
            key, found, error = self._next()
            if error is not None:
                raise SystemExit(f"{key}: {error}")
            done["runs"][key] = found
            print(
                f"{number + 1}/{len(tasks)} {key}: {found['log_ppl']:.4f} ({found['seconds']:.0f} s)",
                file=sys.stderr,
                flush=True,
            )
            write(self.out, done)

    def _next(self) -> Any:
        while True:
            try:
                return self.outbox.get(timeout=60)
            except queue.Empty:
                if not all(process.is_alive() for process in self.processes):
                    raise SystemExit("a process has died; start again to go on") from None

    def stop(self) -> None:
        for _ in self.processes:
            self.inbox.put(None)
        for process in self.processes:
            process.join()


def interval(values: Sequence[float]) -> float:
    """Half of the 95 % t-interval of a mean."""
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
