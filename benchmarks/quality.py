"""What is a model worth that was trained on what each scorer keeps?

SmolLM2-135M is fine-tuned (LoRA) on the rows that an arm keeps for 10 or 30 % of the supervised tokens. Every arm gets
as many supervised tokens, "full" and "clean full" too, which draw them from the whole set, and from the whole set as it
was before noise and copies were planted. In one epoch "full" is therefore one more draw of random. Every arm gets as
many optimiser steps, but no more than it has rows: where the rows are long, as gsm8k's are, a step is a row, and arms
of longer rows take fewer.

Read is the loss on clean held-out rows: by capability, the mean of these weighted by their supervised tokens, which
comes near to what training lowers, and their plain mean, in which answers of three tokens count as much as those of a
hundred. Of gsm8k also the share of final numbers that are right, generated greedily; on two cores before training and
for "full".

Sets: the mixture, gsm8k, and the mixture with planted noise (30 % of the rows: responses of other rows, or words
shuffled) and copies (10 %: as they are, or with one word changed).

A scorer that does not draw lots chooses the same rows for every seed, which then moves LoRA's start and the order only
(and the clustering, where there is one). An interval is of these seeds, not of another sample of rows.

    OMP_NUM_THREADS=1 python benchmarks/quality.py --sets noisy --processes 2   # two cores: a sample of short rows
    python benchmarks/quality.py --tier full --processes 8                      # a GPU: all rows
    python benchmarks/quality.py --report                                       # the tables of what was measured
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import RESULTS, machine, versions, write
from finetune import (
    ALPHA,
    MODULES,
    RANK,
    Row,
    Run,
    Workers,
    by_capability,
    device_name,
    fine_tune,
    load,
    mean_losses,
    part_of,
    rendered,
    with_states,
)
from noise import FINAL_NUMBER
from numpy.typing import NDArray
from quality_choice import ARMS, PRESETS, WHOLE, choose, seeds_of
from quality_report import report
from quality_sets import COPIES, KINDS, NOISE, SEED, SETS, make_set

TIERS: dict[str, dict[str, Any]] = {
    "small": {
        "rows": 280,
        "longest": 500,
        "held_out": 70,
        "epochs": 1,
        "batch_tokens": 64,
        "layers": 15,
        "generate": 70,
    },
    "full": {
        "rows": None,
        "longest": None,
        "held_out": 700,
        "epochs": 3,
        "batch_tokens": 1024,
        "layers": None,
        "generate": 700,
    },
}


@dataclass(frozen=True)
class Task:
    set: str
    arm: str
    budget: float
    seed: int
    source: str = ""
    rows: tuple[int, ...] = ()
    wanted: int = 0
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.set}/{self.arm}/{self.budget}/{self.seed}"


def tasks_of(arguments: Any, name: str, rows: list[dict[str, Any]], arms: Sequence[str]) -> list[Task]:
    """Everything to train on one set: the first budget first, arm by arm."""
    held = choose(arguments, name, arms)
    tokens, tasks = np.array(held["tokens"]), [Task(name, "not trained", 0, 0)]
    for share in arguments.budgets:
        wanted = round(share * int(tokens.sum())) * arguments.epochs
        for arm in arms:
            if arm == "clean full" and name != "noisy":
                continue
            for seed in range(seeds_of(arguments, arm)):
                if arm == "clean full":
                    every = tuple(range(len({row["origin"] for row in rows})))
                    tasks.append(Task(name, arm, share, seed, f"{name}.clean", every, wanted))
                else:
                    kept = range(len(rows)) if arm == "full" else held["kept"][arm][str(share)][seed]
                    told = share_of_noise(rows, tokens, kept)
                    tasks.append(Task(name, arm, share, seed, name, tuple(kept), wanted, told))
    return tasks


def share_of_noise(
    rows: list[dict[str, Any]], tokens: NDArray[np.int64], kept: Sequence[int]
) -> dict[str, float]:
    """How much of what is kept is planted noise, in rows and in supervised tokens, and how much repeats a row."""
    noisy, costs = np.array([bool(rows[place]["kind"]) for place in kept]), tokens[list(kept)]
    return {
        "noise": round(float(noisy.mean()), 4),
        "noise_of_tokens": round(float(costs[noisy].sum() / costs.sum()), 4),
        "copies": round(1 - len({rows[place]["origin"] for place in kept}) / len(kept), 4),
    }


# Training ---------------------------------------------------------------------------------------------------------


def batches(
    tokens: NDArray[np.int64], wanted: int, count: int, epochs: int, rng: np.random.Generator
) -> list[list[int]]:
    """Shuffled rows up to so many supervised tokens, in so many steps of about as many tokens each."""
    order = np.concatenate([rng.permutation(len(tokens)) for _ in range(epochs)])
    spent = np.cumsum(tokens[order])
    order, spent = order[spent <= wanted], spent[spent <= wanted]
    count = min(count, len(order))
    number = np.arange(1, count)
    ends = np.searchsorted(spent, number * spent[-1] / count)
    ends = np.maximum.accumulate(ends - number) + number  # no step is empty
    ends = np.clip(ends, number, len(order) - count + number)
    return [part.tolist() for part in np.split(order, ends)]


class Trainee:
    """The layers that learn; what those below make of a row, which never changes, is computed once."""

    def __init__(self, arguments: Any, device: str) -> None:
        from datapruner.models import load_causal_lm

        self.whole, self.tokenizer = load_causal_lm(arguments.model, device=device)
        self.folder, self.device = arguments.folder, device
        depth, layers = self.whole.config.num_hidden_layers, arguments.layers
        below = None if layers is None else depth - layers
        self.lower = None if below is None else part_of(self.whole, slice(below))
        self.upper = self.whole if below is None else part_of(self.whole, slice(below, depth))
        self.held: dict[str, dict[int, Row]] = defaultdict(dict)

    def rows(self, stem: str, numbers: Sequence[int]) -> list[Row]:
        held = self.held[stem]
        missing = [number for number in numbers if number not in held]
        if missing:
            data = rendered(self.folder / f"{stem}.jsonl", self.tokenizer, missing)
            if self.lower is not None:
                data = with_states(self.lower, data, self.device)
            held.update(zip(missing, data, strict=True))
        return [held[number] for number in numbers]


def trainer(arguments: Any, device: str) -> Run:
    """What trains and evaluates a task."""
    trainee = Trainee(arguments, device)

    def run(task: Task) -> dict[str, Any]:
        start = time.process_time()
        test = arguments.folder / f"{task.set}.test.jsonl"
        held_out = [json.loads(line) for line in test.open(encoding="utf-8")]
        model, plan, seen = trainee.upper, [], [0, 0]
        if task.rows:
            data = trainee.rows(task.source, task.rows)
            tokens = np.array([(row.supervised.sum(), len(row.ids)) for row in data])
            count = round(task.wanted / arguments.batch_tokens)
            plan = batches(
                tokens[:, 0], task.wanted, count, arguments.epochs, np.random.default_rng(task.seed)
            )
            seen = tokens[[place for batch in plan for place in batch]].sum(axis=0).tolist()
            model = fine_tune(model, data, plan, seed=task.seed, rate=arguments.rate, device=device)
        found = by_capability(
            mean_losses(model, trainee.rows(f"{task.set}.test", range(len(held_out))), device),
            [row["capability"] for row in held_out],
        )
        asked = arguments.tier == "full" or task.arm in ("not trained", "full")
        if task.set == "gsm8k" and asked:  # of the whole model: the layers that learnt are its own
            found |= exact_match(trainee.whole, trainee.tokenizer, test, arguments.generate, device)
        if task.rows:
            model.unload()
        return {
            "set": task.set,
            "arm": task.arm,
            "budget": task.budget,
            "seed": task.seed,
            "rows": len(task.rows),
            **task.about,
            "steps": len(plan),
            "supervised_tokens": seen[0],
            "tokens": seen[1],
            **found,
            "cpu_seconds": round(time.process_time() - start, 1),
        }

    return run


def exact_match(model: Any, tokenizer: Any, test: Path, count: int, device: str) -> dict[str, float]:
    """Share of questions whose final number is generated, greedily; and of the answer that is right most often."""
    import torch

    held_out = [json.loads(line)["messages"] for line in test.open(encoding="utf-8")][:count]
    data = rendered(test, tokenizer, range(len(held_out)))
    right = [final_number(turns[1]["content"]) for turns in held_out]
    prompts = [row.ids[: int(np.argmax(row.supervised))] for row in data]
    limit = min(256, 2 * max(int(row.supervised.sum()) for row in data))
    hits = 0
    for start in range(0, len(prompts), 128):
        part = prompts[start : start + 128]
        longest = max(map(len, part))
        ids, mask = (torch.zeros(len(part), longest, dtype=torch.long) for _ in range(2))
        for number, prompt in enumerate(part):
            ids[number, longest - len(prompt) :] = torch.from_numpy(np.asarray(prompt).astype(np.int64))
            mask[number, longest - len(prompt) :] = 1
        with torch.no_grad():
            made = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=limit,
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id,
            )
        texts = tokenizer.batch_decode(made[:, longest:], skip_special_tokens=True)
        answers = right[start : start + 128]
        hits += sum(final_number(text) == answer for text, answer in zip(texts, answers, strict=True))
    chance = max(right.count(answer) for answer in right) / len(right)
    return {"exact_match": round(hits / len(right), 5), "chance": round(chance, 5)}


def final_number(text: str) -> str | None:
    match = FINAL_NUMBER.search(text.strip())
    return match and match[1].replace(",", "").rstrip(".")


# Running ----------------------------------------------------------------------------------------------------------


def described(arguments: Any, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a set is made of, and what scoring it took."""
    from datapruner.models import load_tokenizer

    test = arguments.folder / f"{name}.test.jsonl"
    held_out = [json.loads(line)["capability"] for line in test.open(encoding="utf-8")]
    tokens: dict[str, int] = defaultdict(int)
    data = rendered(test, load_tokenizer(arguments.model), range(len(held_out)))
    for capability, row in zip(held_out, data, strict=True):
        tokens[capability] += int(row.supervised.sum())
    held = json.loads((arguments.folder / f"{name}.selections.json").read_text("utf-8"))
    counted = {key: [row[key] for row in rows] for key in ("capability", "kind")}
    return {
        "rows": len(rows),
        **{key: {one: values.count(one) for one in sorted(set(values))} for key, values in counted.items()},
        "copies": len(rows) - len({row["origin"] for row in rows}),
        "supervised_tokens": sum(held["tokens"]),
        "held_out": {one: held_out.count(one) for one in sorted(tokens)},
        "held_out_tokens": dict(sorted(tokens.items())),
        "parts": held["parts"],
        "costs": held["costs"],
    }


def parsed() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tier", choices=list(TIERS), default="small")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--arms", nargs="+", default=["main"], help=f"arms, or {', '.join(PRESETS)}")
    parser.add_argument("--budgets", nargs="+", type=float, default=[0.3, 0.1])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random-seeds", type=int, default=5)
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--rate", type=float, default=1e-3)
    for name, about in TIERS["small"].items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"{about} in the small tier")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="of the rows, the signals and the selections")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--select-only", action="store_true")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    for name, value in TIERS[arguments.tier].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    small = arguments.tier == "small"
    arguments.out = arguments.out or RESULTS / ("quality.json" if small else "quality-full.json")
    arguments.folder = arguments.folder or Path(f"quality-{arguments.tier}")
    arguments.arms = list(
        dict.fromkeys(arm for given in arguments.arms for arm in PRESETS.get(given, [given]))
    )
    if unknown := set(arguments.arms) - ARMS.keys() - set(WHOLE):
        parser.error(f"no arm is called {', '.join(sorted(unknown))}; there are {', '.join([*ARMS, *WHOLE])}")
    names = ("model", "rate", *TIERS["small"])
    planting = {"noise": NOISE, "kinds": list(KINDS), "copies": COPIES, "seed": SEED}
    arguments.settings = {name: getattr(arguments, name) for name in names} | planting
    return arguments


def main() -> None:
    arguments = parsed()
    if arguments.report:
        print(report(arguments.out))
        return
    done = load(arguments.out)
    if done.get("settings", arguments.settings) != arguments.settings:
        raise SystemExit(f"{arguments.out} was made with other settings; name another --out")
    tasks: list[Task] = []
    sets = done.get("sets", {})
    for name in arguments.sets:
        rows = make_set(arguments, name)
        tasks += tasks_of(arguments, name, rows, arguments.arms)
        sets[name] = described(arguments, name, rows)
    if arguments.select_only:
        return
    result = {
        **machine(device=device_name()),
        "versions": versions("torch", "transformers", "peft", "datapruner"),
        "settings": arguments.settings,
        "lora": {"r": RANK, "alpha": ALPHA, "modules": MODULES},
        "sets": sets,
        "runs": done["runs"],
    }
    write(arguments.out, result)
    workers = Workers(trainer, arguments)
    workers.run(tasks)
    workers.stop()
    print(report(arguments.out))


if __name__ == "__main__":
    main()
