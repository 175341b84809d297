"""Are rows that are chosen for a target worth more, on that target, than a random draw?

    python benchmarks/messy.py FOLDER ; python benchmarks/worth.py FOLDER --prepare --sets clean single
    python benchmarks/aimed.py FOLDER --prepare      # the harder case's held-out rows, and their states
    python benchmarks/aimed.py FOLDER --choose       # what each arm keeps, for every target
    python benchmarks/aimed.py FOLDER                # trainings; stopped and started again, it goes on
    python benchmarks/aimed.py FOLDER --report       # --save writes results/aimed.json, and runs and choices beside it
    python benchmarks/aimed.py FOLDER --restore      # where FOLDER is new: go on from results/

The pool is the clean set of `messy.py`, seven capabilities in equal rows. A target is 32 of the 100 held-out rows of
one capability, and the other 68 judge; 5 % of the supervised tokens are kept. Trainings, samples and intervals are
those of `worth.py`; the oracle is a random draw of the target's own capability. With what `warm_up.py` makes
in FOLDER, LESS is an arm.

The harder case, `long math`, in which no capability's name gives the target away: the pool is math alone, the target
32 of the test rows with the longest third of answers, the others of that third judge, and the oracle is a random draw
of the pool's longest third.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from aimed_report import BUDGET, report, restore, saved
from common import RESULTS, machine, versions, write
from finetune import Workers, load
from messy import Row, apart, read_shared, write_set
from top_layers import MODEL, States, counted, judged, train, within_budget
from worth import DEPTH, HELD, RATE, STEP_TOKENS, Bench, Chunk, equal_tokens, sampled, truths
from worth_arms import scorer

POOL, HELD_OUT = "clean", "held_out"
HARD, HARD_POOL, HARD_HELD_OUT = "long math", "single", "long"
TOLD = 32
SEEDS, SAMPLES = 3, 1
OWN = ("random", "stratified", "oracle")
ARMS: dict[str, dict[str, Any]] = {
    "feature_mapping": scorer("feature_mapping"),
    "nearest_target, embedding": scorer("nearest_target", representation="embedding"),
    "nearest_target, state": scorer("nearest_target", reads=True),
    "nearest_target, sketch": scorer("nearest_target", reads=True, representation="sketch"),
    # In float32: products in bfloat16 are many times slower on a processor that has none of its own.
    "nearest_target, gradient": scorer("nearest_target", representation="gradient") | {"model": MODEL},
}
LESS, WARM_UP = "nearest_target, LESS", "warm-up"
ARMS[LESS] = ARMS["nearest_target, gradient"]
"""With the last checkpoint of `warm_up.py`, where there is one: each is another pass over the pool."""


class Aim(NamedTuple):
    """One arm for one target on one sample with one seed of training."""

    target: str
    arm: str
    sample: int
    seed: int

    @property
    def key(self) -> str:
        return f"{self.target}/{self.arm}/{BUDGET:g}/sample{self.sample}/seed{self.seed}"


class Case(NamedTuple):
    """A target: the sets of its pool and its held-out rows, which of these are told and which judge.

    ``groups`` names for every row of the pool what it is of, ``own`` the group that the target is of.
    """

    pool: str
    held_out: str
    told: list[int]
    judges: list[int]
    groups: list[str]
    own: str


def _split(name: str, rows: Sequence[int]) -> tuple[list[int], list[int]]:
    order = np.random.default_rng(zlib.crc32(name.encode())).permutation(np.asarray(rows))
    return sorted(order[:TOLD].tolist()), sorted(order[TOLD:].tolist())


@cache
def cases(folder: Path) -> dict[str, Case]:
    """All targets by their names; the harder one where its rows were prepared."""
    groups = [of["capability"] for of in truths(folder, POOL)]
    held_out = [of["capability"] for of in truths(folder, HELD_OUT)]
    found = {}
    for name in sorted(set(groups)):
        told, judges = _split(name, [row for row, of in enumerate(held_out) if of == name])
        found[name] = Case(POOL, HELD_OUT, told, judges, groups, name)
    if (folder / f"{HARD_HELD_OUT}.jsonl").exists():
        told, judges = _split(HARD, range(len(_answers(folder, HARD_HELD_OUT))))
        words = [len(answer.split()) for answer in _answers(folder, HARD_POOL)]
        least = np.quantile(words, 2 / 3)
        groups = ["long" if count >= least else "short" for count in words]
        found[HARD] = Case(HARD_POOL, HARD_HELD_OUT, told, judges, groups, "long")
    return found


def stored(folder: Path) -> tuple[str, ...]:
    """Sets whose states are stored: the harder case's come last, so that the files of the others stay as they are."""
    return (*HELD, HARD_HELD_OUT) if HARD in cases(folder) else HELD


def _answers(folder: Path, name: str) -> list[str]:
    with (folder / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line)["messages"][-1]["content"] for line in file]


def longest_third(rows: Sequence[Row]) -> list[Row]:
    """The rows with the longest third of answers, in words."""
    words = [len(row.response.split()) for row in rows]
    return [row for row, count in zip(rows, words, strict=True) if count >= np.quantile(words, 2 / 3)]


def prepare(folder: Path, asked: Any) -> None:
    """Write the harder case's held-out rows, apart from its pool, and their states."""
    from datapruner.models import load_tokenizer

    pool = [
        Row("math", *(turn["content"] for turn in json.loads(line)["messages"]))
        for line in (folder / f"{HARD_POOL}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    write_set(
        folder, HARD_HELD_OUT, apart(longest_third(read_shared("test")["math"]), iter(pool)), truth=True
    )
    states = States(folder, stored(folder), load_tokenizer(MODEL))
    needed = {place for name in (HARD_POOL, HARD_HELD_OUT) for place in states.places[name]}
    chunks = [Chunk(rows) for rows in states.chunks() if needed.intersection(rows)]
    asked.out = folder / "states" / "done-long.json"
    asked.out.unlink(missing_ok=True)
    workers = Workers(Aimed, asked)
    workers.run([chunk for chunk in chunks if not states.path(chunk.rows).exists()])
    workers.stop()


def _chosen(folder: Path, aim: Aim) -> Path:
    return folder / "aimed" / f"{aim.target}.{aim.arm}.sample{aim.sample}.json"


def choose(folder: Path, aims: list[Aim], states: States) -> None:
    """Let the library choose, once for every target and sample."""
    import datapruner as dp
    from datapruner.scorers import make_scorer

    for aim in aims:
        out, case = _chosen(folder, aim), cases(folder)[aim.target]
        if aim.arm in OWN or out.exists():
            continue
        tokens = counted([states.rows[place] for place in states.places[case.pool]])
        rows = sampled(len(tokens), aim.sample)
        given = dict(ARMS[aim.arm])
        if aim.arm == LESS:
            given["sketch_checkpoints"] = [str(last_checkpoint(folder / WARM_UP / case.pool))]
        target, pool = (
            folder / "aimed" / f"{name}.jsonl" for name in (aim.target, f"{case.pool}.{aim.sample}")
        )
        _write_part(folder, case.held_out, case.told, target)
        _write_part(folder, case.pool, rows.tolist(), pool)
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


def last_checkpoint(folder: Path) -> Path:
    """The one after the most steps."""
    return max(folder.glob("checkpoint-*"), key=lambda one: int(one.name.rpartition("-")[2]))


def _write_part(folder: Path, name: str, rows: list[int], out: Path) -> None:
    out.parent.mkdir(exist_ok=True)
    if not out.exists():
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        out.write_text("".join(f"{lines[row]}\n" for row in rows), encoding="utf-8")


def drawn(folder: Path, aim: Aim, tokens: Any) -> list[int]:
    """The rows that an arm keeps of a sample."""
    rows, case = sampled(len(tokens), aim.sample), cases(folder)[aim.target]
    budget = int(BUDGET * tokens[rows].sum())
    rng = np.random.default_rng([aim.sample, aim.seed, zlib.crc32(aim.arm.encode())])
    if aim.arm not in OWN:
        return [row for row in json.loads(_chosen(folder, aim).read_text("utf-8"))["rows"] if tokens[row]]
    if aim.arm == "stratified":
        return equal_tokens(rows.tolist(), case.groups, tokens, budget, rng)
    if aim.arm == "oracle":
        rows = rows[[case.groups[row] == case.own for row in rows]]
    return within_budget(rng.permutation(rows).tolist(), tokens, budget)


class Aimed(Bench):
    """The trainings of `worth.py`, judged by the rest of a target."""

    def stored(self) -> tuple[str, ...]:
        return stored(self.asked.folder)

    def __call__(self, task: Any) -> dict[str, Any]:
        if not isinstance(task, Aim):
            return super().__call__(task)
        case = cases(self.asked.folder)[task.target]
        data, held_out = self.rows(case.pool), self.rows(case.held_out)
        tokens = counted(data)
        kept = drawn(self.asked.folder, task, tokens)
        steps = max(4, round(BUDGET * int(tokens[sampled(len(tokens), task.sample)].sum()) / STEP_TOKENS))
        head = self.head(case.pool, case.held_out)
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
        judges = [held_out[row] for row in case.judges]
        losses = judged(top, head, judges, self.device)
        return {
            "rows": len(kept),
            "tokens": int(tokens[kept].sum()),
            "steps": steps,
            "of_the_target": round(float(np.mean([case.groups[row] == case.own for row in kept])), 3),
            "log_ppl": float(losses.sum() / counted(judges).sum()),
            "losses": [round(float(loss), 3) for loss in losses],
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--save", action="store_true", help="write results/, of which the pages are made")
    parser.add_argument(
        "--restore", action="store_true", help="begin with the runs and choices that results/ has"
    )
    parser.add_argument("--arms", nargs="+", help=f"default: all; {LESS} where there is a {WARM_UP}")
    parser.add_argument("--targets", nargs="+")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if asked.arms is None:
        warm = (asked.folder / WARM_UP).is_dir()
        asked.arms = [*OWN, *(arm for arm in ARMS if arm != LESS or warm)]
    asked.out, asked.whole = asked.folder / "aimed.json", False
    if asked.report or asked.save:
        done = load(asked.out)
        print(report(done))
        if asked.save:
            saved(asked.folder, done, RESULTS / "aimed.json")
        return
    if asked.restore:
        restore(asked.folder, RESULTS / "aimed.json")
        return
    if asked.prepare:
        prepare(asked.folder, asked)
        return
    from datapruner.models import load_tokenizer

    states = States(asked.folder, stored(asked.folder), load_tokenizer(MODEL))
    named = asked.targets or list(cases(asked.folder))
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
    held_out = {
        name: counted([states.rows[place] for place in states.places[name]]) for name in states.places
    }
    done["tokens"] = {
        target: held_out[case.held_out][case.judges].tolist() for target, case in cases(asked.folder).items()
    }
    done["machine"] = machine(torch_threads=1)
    done["versions"] = versions("torch", "transformers", "datapruner")
    write(asked.out, done)
    workers = Workers(Aimed, asked)
    workers.run(aims)
    workers.stop()


if __name__ == "__main__":
    main()
