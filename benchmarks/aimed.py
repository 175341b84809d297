"""Are rows that are chosen for a target worth more, on that target, than a random draw?

    python benchmarks/messy.py FOLDER ; python benchmarks/worth.py FOLDER --prepare --sets clean
    python benchmarks/aimed.py FOLDER --choose       # what each arm keeps, for every target
    python benchmarks/aimed.py FOLDER                # trainings; stopped and started again, it goes on
    python benchmarks/aimed.py FOLDER --report       # --save writes results/aimed.json

The pool is the clean set of `messy.py`, seven capabilities in equal rows. A target is 32 of the 100 held-out rows of
one capability, and the other 68 judge; 5 % of the supervised tokens are kept. Trainings, samples and intervals are
those of `worth.py`; the oracle is a random draw of the target's own capability.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import RESULTS, machine, versions, write
from finetune import Workers, load
from top_layers import MODEL, States, counted, judged, train, within_budget
from worth import DEPTH, HELD, RATE, STEP_TOKENS, Bench, equal_tokens, sampled, truths
from worth_report import Results, holm

POOL, HELD_OUT = "clean", "held_out"
TOLD, BUDGET = 32, 0.05
SEEDS, SAMPLES = 3, 1
READ = {"model": MODEL, "dtype": "bfloat16"}
OWN = ("random", "stratified", "oracle")
ARMS: dict[str, dict[str, Any]] = {
    "feature_mapping": {"scorer": "feature_mapping"},
    "nearest_target, embedding": {"scorer": "nearest_target", "parameters": {"representation": "embedding"}},
    "nearest_target, state": {"scorer": "nearest_target", **READ},
}


class Aim(NamedTuple):
    """One arm for one target on one sample with one seed of training."""

    target: str
    arm: str
    sample: int
    seed: int

    @property
    def key(self) -> str:
        return f"{self.target}/{self.arm}/{BUDGET:g}/sample{self.sample}/seed{self.seed}"


def split(folder: Path, target: str) -> tuple[list[int], list[int]]:
    """The held-out rows of a capability that are the target, and those that judge."""
    rows = [row for row, of in enumerate(truths(folder, HELD_OUT)) if of["capability"] == target]
    order = np.random.default_rng(zlib.crc32(target.encode())).permutation(rows)
    return sorted(order[:TOLD].tolist()), sorted(order[TOLD:].tolist())


def targets(folder: Path) -> list[str]:
    return sorted({of["capability"] for of in truths(folder, POOL)})


def _chosen(folder: Path, aim: Aim) -> Path:
    return folder / "aimed" / f"{aim.target}.{aim.arm}.sample{aim.sample}.json"


def choose(folder: Path, aims: list[Aim], states: States) -> None:
    """Let the library choose, once for every target and sample."""
    import datapruner as dp
    from datapruner.scorers import make_scorer

    tokens = counted([states.rows[place] for place in states.places[POOL]])
    lines = {
        name: (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines() for name in (POOL, HELD_OUT)
    }
    for aim in aims:
        out = _chosen(folder, aim)
        if aim.arm in OWN or out.exists():
            continue
        rows = sampled(len(tokens), aim.sample)
        given = dict(ARMS[aim.arm])
        target = folder / "aimed" / f"{aim.target}.jsonl"
        pool = folder / "aimed" / f"{POOL}.{aim.sample}.jsonl"
        target.parent.mkdir(exist_ok=True)
        target.write_text(
            "".join(f"{lines[HELD_OUT][row]}\n" for row in split(folder, aim.target)[0]), "utf-8"
        )
        if not pool.exists():
            pool.write_text("".join(f"{lines[POOL][row]}\n" for row in rows.tolist()), encoding="utf-8")
        start = time.process_time()
        selection = dp.prune(
            str(pool),
            scorer=make_scorer(given.pop("scorer"), given.pop("parameters", {})),
            target=str(target),
            keep_tokens=int(BUDGET * tokens[rows].sum()),
            tokenizer=MODEL,
            max_length=1024,
            cache=folder.parent / "cache",
            seed=aim.sample,
            progress=False,
            **given,
        )
        write(
            out,
            {
                "rows": rows[selection.indices].tolist(),
                "cpu_seconds": round(time.process_time() - start, 1),
            },
        )
        print(f"{aim.key}: {len(selection)} rows", file=sys.stderr, flush=True)


def drawn(folder: Path, aim: Aim, tokens: Any) -> list[int]:
    """The rows that an arm keeps of a sample."""
    rows = sampled(len(tokens), aim.sample)
    budget = int(BUDGET * tokens[rows].sum())
    rng = np.random.default_rng([aim.sample, aim.seed, zlib.crc32(aim.arm.encode())])
    if aim.arm not in OWN:
        return [row for row in json.loads(_chosen(folder, aim).read_text("utf-8"))["rows"] if tokens[row]]
    capabilities = [of["capability"] for of in truths(folder, POOL)]
    if aim.arm == "stratified":
        return equal_tokens(rows.tolist(), capabilities, tokens, budget, rng)
    if aim.arm == "oracle":
        rows = rows[[capabilities[row] == aim.target for row in rows]]
    return within_budget(rng.permutation(rows).tolist(), tokens, budget)


class Aimed(Bench):
    """The trainings of `worth.py`, judged by the rest of a target."""

    def __call__(self, task: Any) -> dict[str, Any]:
        data, held_out = self.rows(POOL), self.rows(HELD_OUT)
        tokens = counted(data)
        kept = drawn(self.asked.folder, task, tokens)
        steps = max(4, round(BUDGET * int(tokens[sampled(len(tokens), task.sample)].sum()) / STEP_TOKENS))
        head = self.head(POOL)
        top = train(
            self.model,
            head,
            data,
            kept,
            steps=steps,
            seed=task.seed,
            depth=DEPTH,
            rate=RATE,
            device=self.device,
        )
        judges = [held_out[row] for row in split(self.asked.folder, task.target)[1]]
        losses = judged(top, head, judges, self.device)
        own = [truths(self.asked.folder, POOL)[row]["capability"] == task.target for row in kept]
        return {
            "rows": len(kept),
            "tokens": int(tokens[kept].sum()),
            "steps": steps,
            "of_the_target": round(float(np.mean(own)), 3),
            "log_ppl": float(losses.sum() / counted(judges).sum()),
            "losses": [round(float(loss), 3) for loss in losses],
        }


def tables(done: dict[str, Any]) -> list[dict[str, Any]]:
    """For every target random's loss, and each arm's difference from it and from the oracle."""
    out = []
    for target, tokens in done["tokens"].items():
        runs = {key: run for key, run in done["runs"].items() if key.startswith(f"{target}/")}
        if not runs:
            continue
        results = Results(
            {
                "held_out": {"tokens": tokens, "capability": [target] * len(tokens)},
                "sets": {target: [target]},
                "runs": runs,
            }
        )
        arms = sorted({key.split("/")[1] for key in runs} - {"random"})
        found = {arm: results.difference(target, arm, "random", BUDGET) for arm in arms}
        found = {arm: one["token"] for arm, one in found.items() if one is not None}
        for arm, value in zip(found, holm([one["p"] for one in found.values()]), strict=True):
            found[arm]["holm"] = value
            beside = results.difference(target, arm, "oracle", BUDGET)
            found[arm]["against_oracle"] = (
                None if beside is None else {name: beside["token"][name] for name in ("difference", "half")}
            )
            of = [run["of_the_target"] for key, run in runs.items() if key.split("/")[1] == arm]
            found[arm]["of_the_target"] = float(np.mean(of))
        level = float(results.level(target, "random", BUDGET)[0])
        out.append({"target": target, "random": level, "arms": found})
    return out


def report(done: dict[str, Any]) -> str:
    lines = []
    for of in tables(done):
        lines.append(f"\n{of['target']}: random {of['random']:.4f} nats a token")
        for arm, one in sorted(of["arms"].items(), key=lambda item: item[1]["difference"]):
            lines.append(
                f"  {arm:28s} {one['difference']:+.4f} ± {one['half']:.4f}  Holm {one['holm']:.4f}  "
                f"{one['of_the_target']:.0%} of its rows are of the target's capability"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--save", action="store_true", help="write results/, of which the pages are made")
    parser.add_argument("--arms", nargs="+", default=[*OWN, *ARMS])
    parser.add_argument("--targets", nargs="+")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    asked.out, asked.whole = asked.folder / "aimed.json", False
    if asked.report or asked.save:
        done = load(asked.out)
        print(report(done))
        if asked.save:
            kept = {name: done[name] for name in ("machine", "versions")}
            write(RESULTS / "aimed.json", {"tables": tables(done), **kept})
        return
    from datapruner.models import load_tokenizer

    states = States(asked.folder, HELD, load_tokenizer(MODEL))
    named = asked.targets or targets(asked.folder)
    aims = [
        Aim(target, arm, sample, seed)
        for seed in range(asked.seeds)
        for sample in range(asked.samples)
        for target in named
        for arm in asked.arms
    ]
    if asked.choose:
        choose(asked.folder, aims, states)
        return
    done = load(asked.out)
    held_out = counted([states.rows[place] for place in states.places[HELD_OUT]])
    done["tokens"] = {
        target: held_out[split(asked.folder, target)[1]].tolist() for target in targets(asked.folder)
    }
    done["machine"] = machine(torch_threads=1)
    done["versions"] = versions("torch", "transformers", "datapruner")
    write(asked.out, done)
    workers = Workers(Aimed, asked)
    workers.run(aims)
    workers.stop()


if __name__ == "__main__":
    main()
