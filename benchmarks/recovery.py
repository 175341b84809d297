"""Does chosen data heal a pruned model better than random data of as many supervised tokens?

SmolLM2-135M is pruned four ways (benchmarks/prunings.py). For each, scorers choose rows of the mixture for one budget
in supervised tokens, LoRA trains the pruned model on them, and the loss on held-out rows is read by capability.
Batches hold about as many supervised tokens, so that equal tokens are equal steps.

    python benchmarks/recovery.py                            # two cores: few arms, three seeds; hours
    python benchmarks/recovery.py --tier full --processes 8  # a GPU: every arm and ablation
    python benchmarks/recovery.py --report                   # the table of what was measured
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import MIXTURE, RESULTS, machine, versions, write
from finetune import (
    ALPHA,
    MODULES,
    RANK,
    Data,
    Run,
    Workers,
    by_capability,
    device_name,
    fine_tune,
    interval,
    load,
    mean_losses,
    rendered,
)

PRUNINGS = ("magnitude", "wanda24", "width", "depth")
BASELINES = ("random", "ifd", "el2n", "prototypes", "perplexity", "length")
BATCH_TOKENS = 256
"""Supervised tokens a step."""

SIGNALS = (
    "jsd",
    "log_ppl",
    "pruned_log_ppl",
    "num_tokens",
    "num_supervised_tokens",
    "el2n",
    "response_log_ppl",
)

# What is taken away from, or put in place of, a part of the method.
ABLATION: dict[str, dict[str, Any]] = {
    "paser": {},
    "paser no concept graph": {"concepts": 0},
    "paser no cost term": {"efficiency": "jsd"},
    "paser uniform budget": {"budget": "uniform"},
    "paser budget by size": {"budget": "size"},
    "paser degradation times size": {"budget": "degradation_size"},
    "paser by damage a token": {"budget": "token_degradation"},
    "paser at rates by damage a token": {"budget": "token_degradation_size"},
    "random inside, by tokens": {"efficiency": "random", "concepts": 0, "budget": "token_size"},
    "paser by loss": {"degradation": "loss", "efficiency": "loss_per_cost"},
    "paser random inside": {"efficiency": "random", "concepts": 0},
    "paser typical inside": {"efficiency": "typical", "concepts": 0},
    "random inside, uniform": {"efficiency": "random", "concepts": 0, "budget": "uniform"},
    "random inside, by size": {"efficiency": "random", "concepts": 0, "budget": "size"},
    "paser damage by loss": {"degradation": "loss"},
    "paser in each capability": {"per_group": "capability"},
}
FEW = ("random", "paser")


@dataclass(frozen=True)
class Task:
    pruning: str
    arm: str
    seed: int
    rows: tuple[int, ...]
    epochs: int
    rate: float
    batch_tokens: int = BATCH_TOKENS

    @property
    def key(self) -> str:
        return f"{self.pruning}/{self.arm}/{self.seed}/{self.epochs}/{self.rate}/{self.batch_tokens}"


# Choosing ---------------------------------------------------------------------------------------------------------


def measured(arguments: Any, pruning: str) -> Any:
    """Everything that any arm reads, in one pass of the two models; or what an earlier run kept of it."""
    from datapruner.measuring.arguments import requested
    from datapruner.measuring.measure import measure
    from datapruner.scorers.base import Ranking, Scorer

    @dataclass(frozen=True)
    class Everything(Scorer):
        name: ClassVar[str] = "everything"
        needs: ClassVar[frozenset[str]] = frozenset({"embedding", "neighbours", "text", *SIGNALS})

        def _score(self, signals: Any) -> Ranking:
            return Ranking(np.zeros(signals.num_rows))

    @dataclass(frozen=True)
    class Vectors(Everything):
        needs: ClassVar[frozenset[str]] = frozenset({"embedding", "neighbours", "text"})

    kept = None if arguments.selections is None else arguments.selections / f"signals-{pruning}.npz"
    again = kept is not None and kept.exists()
    options = {} if again else {"model": arguments.model, "pruned_model": str(arguments.prunings / pruning)}
    held = measure(
        requested(
            str(arguments.source),
            scorers=Vectors() if again else Everything(),
            embeddings=None if arguments.embeddings is None else str(arguments.embeddings),
            **options,
        )
    )
    if kept is None:
        return held
    if not again:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(kept, **{name: np.asarray(held.signals[name]) for name in SIGNALS})
        return held
    with np.load(kept) as archive:
        signals = {name: archive[name] for name in SIGNALS}
    tokens = {name: signals[name] for name in ("num_tokens", "num_supervised_tokens")}
    measured = {**held.signals.measured, **signals}
    return held._replace(signals=replace(held.signals, measured=measured), tokens=tokens)


def select(held: Any, arm: str, budget: int, seed: int, clusters: Any) -> list[int]:
    """The rows that an arm keeps for a budget in supervised tokens; clusters are found once for all arms."""
    from datapruner.running import rank
    from datapruner.scorers import make_scorer

    signals = replace(
        held.signals, seed=seed, measured={**held.signals.measured, "column:spectral": clusters}
    )
    held = held._replace(signals=signals, recipe=held.recipe.model_copy(update={"seed": seed}))
    options = {"within": "spectral", **ABLATION[arm]} if arm in ABLATION else {}
    per_group = options.pop("per_group", None)
    scorer = make_scorer("paser" if arm in ABLATION else arm, options)
    scores = rank(held, [scorer])
    return scores.select(scorer.name, keep_tokens=budget, per_group=per_group).indices.tolist()


# Training ---------------------------------------------------------------------------------------------------------


def steps(data: Data, order: Any, wanted: int) -> Iterator[list[int]]:
    """Batches of about as many supervised tokens each."""
    batch: list[int] = []
    tokens = 0
    for place in order:
        batch.append(int(place))
        tokens += int(data[place].supervised.sum())
        if tokens >= wanted:
            yield batch
            batch, tokens = [], 0
    if batch:
        yield batch


def heal(model: Any, data: Data, task: Task, device: str) -> Any:
    rng = np.random.default_rng(task.seed)
    plan = [
        batch
        for _ in range(task.epochs)
        for batch in steps(data, rng.permutation(len(data)), task.batch_tokens)
    ]
    return fine_tune(model, data, plan, seed=task.seed, rate=task.rate, device=device)


def healer(arguments: Any, device: str) -> Run:
    """What trains and evaluates a task; each pruned model is loaded once."""
    from datapruner.models import load_causal_lm, load_tokenizer
    from datapruner.models.twins import load_pruned_lm

    tokenizer = load_tokenizer(arguments.model)
    places, names = held_out_rows(arguments.test, arguments.held_out, arguments.longest)
    held_out = rendered(arguments.test, tokenizer, places)
    models: dict[str, Any] = {}

    def run(task: Task) -> dict[str, Any]:
        if task.pruning not in models:
            models[task.pruning] = (
                load_causal_lm(arguments.model, device=device)[0]
                if task.pruning == "dense"
                else load_pruned_lm(str(arguments.prunings / task.pruning), device=device)[0]
            )
        model = models[task.pruning]
        data = rendered(arguments.source, tokenizer, task.rows)
        if data:
            model = heal(model, data, task, device)
        losses = mean_losses(model, held_out, device)
        if data:
            models[task.pruning] = model.unload()
        return {
            "pruning": task.pruning,
            "arm": task.arm,
            "seed": task.seed,
            "rows": len(task.rows),
            "epochs": task.epochs,
            "rate": task.rate,
            **by_capability(losses, names),
        }

    return run


def held_out_rows(test: Path, each: int, longest: int | None) -> tuple[list[int], list[str]]:
    """The first rows of each capability in the test set, of those that are not too long; ascending."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, line in enumerate(test.open(encoding="utf-8")):
        row = json.loads(line)
        length = sum(len(message["content"]) for message in row["messages"])
        if len(found[row["capability"]]) < each and (longest is None or length <= longest):
            found[row["capability"]].append(number)
    names = sorted(found)
    rows = sorted((row, name) for name in names for row in found[name])
    return [row for row, _ in rows], [name for _, name in rows]


def best_rate(workers: Workers, out: Path, tasks: list[Task], rates: Sequence[float]) -> float:
    """The learning rate that is best for random data, which nobody else gets a say in."""
    if len(rates) == 1:
        return rates[0]
    workers.run([replace(task, arm="random, rate tried", rate=rate) for task in tasks for rate in rates])
    sums: dict[float, float] = defaultdict(float)
    for one in load(out)["runs"].values():
        if one["arm"] == "random, rate tried":
            sums[one["rate"]] += one["log_ppl"]
    return min(sums, key=lambda rate: sums[rate])


# Reporting --------------------------------------------------------------------------------------------------------


def report(out: Path) -> str:
    """Held-out log-perplexity by pruning and arm, the mean over capabilities, and its difference from random."""
    runs = load(out)["runs"].values()
    lines = []
    for pruning in dict.fromkeys(one["pruning"] for one in runs):
        arms: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in runs:
            if one["pruning"] == pruning:
                arms[one["arm"]].append(one)
        base = [one["log_ppl"] for one in arms.get("random", [])]
        capabilities = sorted(next(iter(arms.values()))[0]["by_capability"])
        lines += [
            "",
            f"### {pruning}",
            "",
            f"| arm | rows | mean | against random | {' | '.join(capabilities)} |",
            f"|---|---|---|---|{'---|' * len(capabilities)}",
        ]
        for arm, held in sorted(arms.items(), key=lambda item: np.mean([one["log_ppl"] for one in item[1]])):
            values = [one["log_ppl"] for one in held]
            half = interval(values)
            mean = f"{np.mean(values):.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")
            apart = ""
            if base and arm != "random" and len(values) > 1:
                gap, other = np.mean(values) - np.mean(base), interval(base)
                clear = abs(gap) > half + other
                apart = f"{gap:+.3f}{' *' if clear else ''}"
            by = [np.mean([one["by_capability"][name] for one in held]) for name in capabilities]
            rows = f"{np.mean([one['rows'] for one in held]):.0f}"
            lines.append(f"| {arm} | {rows} | {mean} | {apart} | {' | '.join(f'{one:.2f}' for one in by)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tier", choices=["small", "full"], default="small")
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--source", type=Path, default=MIXTURE)
    parser.add_argument("--test", type=Path, default=None, help="held-out rows; default: test beside train")
    parser.add_argument(
        "--prunings", type=Path, default=Path("prunings"), help="made where they are not there"
    )
    parser.add_argument("--only", nargs="*", default=list(PRUNINGS))
    parser.add_argument("--arms", nargs="*", default=None)
    parser.add_argument("--other", default="ifd", help="the other scorer of the small tier")
    parser.add_argument("--share", type=float, default=0.05, help="of the supervised tokens")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS, help="supervised tokens a step")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3], help="the best for random is taken")
    parser.add_argument(
        "--held-out", type=int, default=None, help="rows a capability; 30, or 100 in the full tier"
    )
    parser.add_argument("--longest", type=int, default=None, help="characters of a held-out row, at most")
    parser.add_argument("--embeddings", type=Path, default=None)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="all data once too")
    parser.add_argument("--out", type=Path, default=RESULTS / "recovery.json")
    parser.add_argument(
        "--selections", type=Path, default=None, help="folder of selections, written and read"
    )
    parser.add_argument("--select-only", action="store_true")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if arguments.report:
        print(report(arguments.out))
        return
    arguments.test = arguments.test or arguments.source.with_name(
        arguments.source.name.replace("train", "test")
    )
    arguments.held_out = arguments.held_out or (30 if arguments.tier == "small" else 100)
    default = (*FEW, arguments.other) if arguments.tier == "small" else (*BASELINES, *ABLATION)
    arms = list(arguments.arms or default)
    prepare(arguments)
    chosen = selections(arguments, arms)
    if arguments.select_only:
        return
    done = load(arguments.out)
    write(
        arguments.out,
        {
            **machine(device=device_name()),
            "versions": versions("torch", "transformers", "peft", "datapruner"),
            "share": arguments.share,
            "batch_tokens": arguments.batch_tokens,
            "lora": {"r": RANK, "alpha": ALPHA, "modules": MODULES},
            "held_out_a_capability": arguments.held_out,
            "longest_held_out": arguments.longest,
            "runs": done["runs"],
        },
    )
    workers = Workers(healer, arguments)
    first = [
        Task(p, "random", 0, tuple(chosen[p]["random"][0]), arguments.epochs, 0, arguments.batch_tokens)
        for p in arguments.only
    ]
    tokens = arguments.batch_tokens
    rate = best_rate(workers, arguments.out, first, arguments.rates)
    tasks = [Task("dense", "not pruned", 0, (), 0, 0.0)]
    tasks += [Task(pruning, "not healed", 0, (), 0, 0.0) for pruning in arguments.only]
    if arguments.whole:
        every = tuple(range(sum(1 for _ in arguments.source.open(encoding="utf-8"))))
        tasks += [Task(pruning, "all data once", 0, every, 1, rate, tokens) for pruning in arguments.only]
    # Seed by seed, so that a run that is stopped has whole rounds.
    tasks += [
        Task(pruning, arm, seed, tuple(chosen[pruning][arm][seed]), arguments.epochs, rate, tokens)
        for seed in range(arguments.seeds)
        for pruning in arguments.only
        for arm in arms
    ]
    workers.run(tasks)
    workers.stop()
    print(report(arguments.out))


def prepare(arguments: Any) -> None:
    """Prune the model in the ways that are not there yet."""
    if all((arguments.prunings / name / "config.json").exists() for name in arguments.only):
        return
    import torch
    from prunings import read_rows, write_prunings

    from datapruner.models import load_causal_lm

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, tokenizer = load_causal_lm(arguments.model, device=device)
    write_prunings(arguments.prunings, model, tokenizer, read_rows(arguments.source, 64), device)


def selections(arguments: Any, arms: list[str]) -> dict[str, dict[str, list[list[int]]]]:
    """What every arm keeps, by pruning, arm and seed."""
    from datapruner.geometry.diffusion import spectral_clusters

    chosen: dict[str, dict[str, list[list[int]]]] = {}
    clusters: dict[int, Any] = {}
    for pruning in arguments.only:
        file = None if arguments.selections is None else arguments.selections / f"{pruning}.json"
        have = json.loads(file.read_text("utf-8")) if file is not None and file.exists() else {}
        chosen[pruning] = have
        missing = [arm for arm in arms if len(have.get(arm, [])) < arguments.seeds]
        if not missing:
            continue
        start = time.perf_counter()
        held = measured(arguments, pruning)
        budget = round(arguments.share * int(held.signals["num_supervised_tokens"].sum()))
        print(f"{pruning}: measured in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        for seed in range(arguments.seeds):
            if seed not in clusters:
                found = spectral_clusters(held.signals["embedding"], held.signals["neighbours"], seed=seed)
                clusters[seed] = found.assignment
        for arm in missing:
            have[arm] = [select(held, arm, budget, seed, clusters[seed]) for seed in range(arguments.seeds)]
        if file is not None:
            file.write_text(json.dumps(have), "utf-8")
        print(f"{pruning}: selected in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return chosen


if __name__ == "__main__":
    main()
