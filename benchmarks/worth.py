"""Is what a scorer keeps worth more than a random draw? Arms at equal tokens and equal steps, on sets as people have.

    python benchmarks/messy.py FOLDER
    python benchmarks/worth.py FOLDER --prepare          # states of the lower layers, once (SmolLM2: 500 tokens/s)
    python benchmarks/worth.py FOLDER --calibrate        # spread between random arms, a placebo, a known effect
    python benchmarks/worth.py FOLDER                    # the arms; stopped and started again, it goes on
    python benchmarks/worth.py FOLDER --report

Every run draws a sample of the set (80 % of its rows, so that an arm that is not random varies too), an arm spends the
budget on it, the top layers of SmolLM2-135M learn from that for as many steps as every other arm, and the losses of
all held-out rows are written down. `FOLDER/worth.json` has them row by row: any weighting can be computed later.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import machine, versions, write
from numpy.typing import NDArray
from top_layers import (
    DEPTH,
    MODEL,
    RATE,
    STEP_TOKENS,
    Head,
    Held,
    hold,
    judged,
    targets_of,
    timed_arm,
    train,
    within_budget,
)
from worth_report import report

SETS = ("messy", "clean", "single")
BUDGETS = (0.1, 0.3)
SEEDS, SAMPLES = 3, 2
SAMPLE = 0.8
PLAIN = {"progress": False}
ARMS: dict[str, dict[str, Any]] = {
    "concept_complexity": {"scorer": "concept_complexity"},
    "prototypes": {"scorer": "prototypes"},
    "topoprune": {"scorer": "topoprune"},
    "perplexity": {"scorer": "perplexity", "model": MODEL},
    "ifd": {"scorer": "ifd", "model": MODEL},
    "donod": {"scorer": "donod", "model": MODEL},
    "qtuning": {"scorer": "qtuning", "model": MODEL},
    "response_noise": {"scorer": "response_noise", "model": MODEL},
    "dedup + random": {"scorer": "random", "dedup": True},
    "length": {"scorer": "length"},
}
OWN = ("random", "placebo", "full", "stratified", "oracle", "clean part")
"""Arms that this script draws itself: two random draws, everything, equal parts of each capability, the planted truth
(clean rows of the messy set, in equal parts of each capability), and its clean rows as they come."""


@dataclass(frozen=True)
class Run:
    """One arm on one sample with one seed of training."""

    of: str
    arm: str
    budget: float
    sample: int
    seed: int

    @property
    def key(self) -> str:
        return f"{self.of}/{self.arm}/{self.budget:g}/sample{self.sample}/seed{self.seed}"


def truths(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.truth.jsonl").open(encoding="utf-8")]


def sampled(count: int, sample: int) -> NDArray[np.int64]:
    """The rows of a sample, ascending."""
    rng = np.random.default_rng([sample, 81])
    return np.sort(rng.permutation(count)[: round(SAMPLE * count)])


def balanced(rows: Sequence[int], capabilities: Sequence[str], rng: np.random.Generator) -> list[int]:
    """An order in which the capabilities take turns, rows of each at random."""
    by: dict[str, list[int]] = {}
    for place in rng.permutation(np.asarray(rows)).tolist():
        by.setdefault(capabilities[place], []).append(place)
    rounds = max(map(len, by.values()))
    return [held[at] for at in range(rounds) for _, held in sorted(by.items()) if at < len(held)]


def balanced_tokens(
    rows: Sequence[int],
    capabilities: Sequence[str],
    tokens: NDArray[np.int64],
    budget: int,
    rng: np.random.Generator,
) -> list[int]:
    """Equal tokens of each capability, rows of each at random; what one has not goes to the others."""
    order = rng.permutation(np.asarray(rows)).tolist()
    left = {
        name: [place for place in order if capabilities[place] == name]
        for name in {capabilities[r] for r in rows}
    }
    out: list[int] = []
    while left:
        share = (budget - int(tokens[out].sum())) // len(left)
        short = {n: held for n, held in left.items() if int(tokens[held].sum()) <= share}
        if not short:
            for _, held in sorted(left.items()):
                out += within_budget(held, tokens, share)
            break
        for name, held in sorted(short.items()):
            out += [place for place in held if tokens[place]]
            del left[name]
    return out


def chosen(
    folder: Path, run: Run, rows: NDArray[np.int64], tokens: NDArray[np.int64], cache: Path
) -> list[int]:
    """The rows that an arm keeps of a sample."""
    budget = int(run.budget * tokens[rows].sum())
    rng = np.random.default_rng([run.sample, run.seed, sum(map(ord, run.arm))])
    truth = truths(folder, run.of)
    capabilities = [of["capability"] for of in truth]
    good = [row for row in rows.tolist() if not truth[row]["planted"]]
    if run.arm in ("random", "placebo"):
        return within_budget(rng.permutation(rows).tolist(), tokens, budget)
    if run.arm == "full":
        return [row for row in rows.tolist() if tokens[row]]
    if run.arm == "stratified":
        return balanced_tokens(rows.tolist(), capabilities, tokens, budget, rng)
    if run.arm == "oracle":
        return balanced_tokens(good, capabilities, tokens, budget, rng)
    if run.arm == "clean part":
        return within_budget(rng.permutation(np.asarray(good)).tolist(), tokens, budget)
    import datapruner as dp

    source = folder / f"{run.of}.jsonl"
    lines = source.read_text(encoding="utf-8").splitlines()
    part = folder / "samples" / f"{run.of}.{run.sample}.jsonl"
    if not part.exists():
        part.parent.mkdir(exist_ok=True)
        part.write_text("".join(f"{lines[row]}\n" for row in rows.tolist()), encoding="utf-8")
    selection = dp.prune(
        str(part), keep_tokens=budget, cache=cache, seed=run.sample, **PLAIN, **ARMS[run.arm]
    )
    return [row for row in rows[selection.indices].tolist() if tokens[row]]


class Bench:
    """The model, the states of all sets, and the file of results."""

    def __init__(self, asked: Any) -> None:
        import torch

        from datapruner.models import load_causal_lm

        self.asked = asked
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.tokenizer = load_causal_lm(MODEL, device=self.device)
        self.model = self.model.float().eval()
        self.held: dict[str, Held] = {}
        for name in (*asked.sets, "held_out"):
            self.held[name], seconds = timed_arm(lambda name=name: self._hold(name))
            print(f"{name}: {len(self.held[name].ids):,} tokens, {seconds} s", file=sys.stderr, flush=True)
        vocabulary = None if asked.whole_head else targets_of(list(self.held.values()))
        self.head = Head(self.model, vocabulary, self.device)

    def _hold(self, name: str) -> Held:
        source = self.asked.folder / f"{name}.jsonl"
        return hold(
            source, self.asked.folder / "states", self.model, self.tokenizer, self.asked.depth, self.device
        )

    def steps(self, of: str, budget: float) -> int:
        """The same for every arm of a set and budget."""
        return max(4, round(budget * SAMPLE * int(self.held[of].tokens.sum()) / self.asked.step_tokens))

    def carry_out(self, run: Run) -> dict[str, Any]:
        held = self.held[run.of]
        rows = sampled(len(held.offsets) - 1, run.sample)
        tokens = held.tokens
        kept, choosing = timed_arm(
            lambda: chosen(self.asked.folder, run, rows, tokens, self.asked.folder / "cache")
        )
        settings = {
            "steps": self.steps(run.of, run.budget),
            "depth": self.asked.depth,
            "rate": self.asked.rate,
        }
        top, training = timed_arm(
            lambda: train(self.model, self.head, held, kept, seed=run.seed, device=self.device, **settings)
        )
        losses, judging = timed_arm(lambda: judged(top, self.head, self.held["held_out"], self.device))
        return {
            **settings,
            "rows": len(kept),
            "tokens": int(tokens[kept].sum()),
            "budget": int(run.budget * tokens[rows].sum()),
            "seconds": {"choosing": choosing, "training": training, "judging": judging},
            "losses": [round(float(loss), 4) for loss in losses],
        }


def wanted(asked: Any) -> list[Run]:
    """All runs, those of one seed and sample before the next: a table after each round."""
    arms = asked.arms or ([*OWN[:2], "clean part"] if asked.calibrate else [*OWN, *ARMS])
    return [
        Run(of, arm, budget, sample, seed)
        for seed in range(asked.seeds)
        for sample in range(asked.samples)
        for of in (asked.sets[:1] if asked.calibrate else asked.sets)
        for budget in asked.budgets
        for arm in arms
        if not (arm == "full" and budget != asked.budgets[0])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--arms", nargs="+")
    parser.add_argument("--budgets", nargs="+", type=float, default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--depth", type=int, default=DEPTH, help="layers that learn")
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--step-tokens", type=int, default=STEP_TOKENS)
    parser.add_argument("--whole-head", action="store_true", help="the softmax over the whole vocabulary")
    parser.add_argument("--out", type=Path, help="default: FOLDER/worth.json")
    asked = parser.parse_args()
    out = asked.out or asked.folder / "worth.json"
    done: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {"runs": {}}
    if asked.report:
        print(report(done, asked.folder))
        return
    bench = Bench(asked)
    if asked.prepare:
        return
    import torch

    done["held_out"] = {
        "tokens": bench.held["held_out"].tokens.tolist(),
        "capability": [of["capability"] for of in truths(asked.folder, "held_out")],
    }
    done["machine"], done["versions"] = (
        machine(torch_threads=torch.get_num_threads()),
        versions("torch", "transformers", "datapruner"),
    )
    runs = [run for run in wanted(asked) if run.key not in done["runs"]]
    for number, run in enumerate(runs, 1):
        found = bench.carry_out(run)
        done["runs"][run.key] = found
        write(out, done)
        mean = sum(found["losses"]) / sum(done["held_out"]["tokens"])
        print(
            f"{number}/{len(runs)} {run.key}: {mean:.4f} nats a token {found['seconds']}",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    main()
