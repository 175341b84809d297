"""Is what a scorer keeps worth more than a random draw? Arms at equal tokens and equal steps, on sets as people have.

    python benchmarks/messy.py FOLDER                # the sets, with the truth beside them
    python benchmarks/worth.py FOLDER --prepare      # states below the top layers, once
    python benchmarks/prunings.py --out FOLDER/prunings --only depth        # the second model of `paser`'s arms
    python benchmarks/worth.py FOLDER --choose       # what each arm keeps
    python benchmarks/worth.py FOLDER --arms random placebo "clean part"    # how small a difference is seen?
    python benchmarks/worth.py FOLDER                # all arms; stopped and started again, it goes on
    python benchmarks/worth.py FOLDER --report       # --save writes results/worth.json
    python benchmarks/worth.py FOLDER --restore      # where FOLDER/worth.json is gone: go on from results/
    python benchmarks/worth.py FOLDER --whole        # with a GPU: all layers learn; needs no states

Every run draws a sample of the set (80 % of its rows, so that an arm without chance varies too), an arm spends the
budget on it, the top of SmolLM2-135M learns from that in as many steps as every other arm does, and the losses of all
held-out rows are written down: any weighting can be computed later.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import RESULTS, machine, versions, write
from finetune import Row, Workers, load
from numpy.typing import NDArray
from top_layers import (
    MODEL,
    Head,
    States,
    counted,
    judged,
    supervised_states,
    targets_of,
    train,
    within_budget,
)
from worth_arms import ARMS
from worth_report import report, restored, saved

SETS = ("messy", "clean", "single")
HELD = ("clean", "held_out", "single", "messy")
"""Sets whose states are stored, in the order that the files of states go by: what several hold lies with the first, so
that one of the small ones is prepared without the messy one."""
BUDGETS = (0.1, 0.3)
SEEDS, SAMPLES = 3, 2
SAMPLE = 0.8
DEPTH, RATE, STEP_TOKENS = 1, 2e-3, 512
WHOLE_RATE = 2e-4
"""With all layers; not tuned."""
OWN = ("random", "placebo", "full", "stratified", "oracle", "clean part")
"""Arms that are drawn here: two random draws, everything, equal tokens of each capability, the planted truth (clean
rows of the messy set, equal tokens of each capability), and its clean rows as they come."""


QTUNING_RATIO = 0.3
INSIDE: dict[str, dict[str, Any]] = {
    "qtuning, in training": {"sample_ratio": QTUNING_RATIO},
    "qtuning, in training, token condition": {"sample_ratio": QTUNING_RATIO, "condition": "both"},
}
"""Arms that choose while they train. With 0.3 the larger budget is what is kept of one pass over the sample."""


class Run(NamedTuple):
    """One arm on one sample with one seed of training."""

    of: str
    arm: str
    budget: float
    sample: int
    seed: int

    @property
    def key(self) -> str:
        return f"{self.of}/{self.arm}/{self.budget:g}/sample{self.sample}/seed{self.seed}"


@cache
def truths(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.truth.jsonl").open(encoding="utf-8")]


def sampled(count: int, sample: int) -> NDArray[np.int64]:
    """The rows of a sample, ascending."""
    rng = np.random.default_rng([sample, 81])
    return np.sort(rng.permutation(count)[: round(SAMPLE * count)])


def equal_tokens(
    rows: Sequence[int],
    capabilities: Sequence[str],
    tokens: NDArray[np.int64],
    budget: int,
    rng: np.random.Generator,
) -> list[int]:
    """Equal tokens of each capability, rows of each at random; what one has not goes to the others."""
    left: dict[str, list[int]] = {}
    for place in rng.permutation(np.asarray(rows)).tolist():
        left.setdefault(capabilities[place], []).append(place)
    out: list[int] = []
    while left:
        share = (budget - int(tokens[out].sum())) // len(left)
        short = {name: held for name, held in left.items() if int(tokens[held].sum()) <= share}
        if not short:
            for _, held in sorted(left.items()):
                out += within_budget(held, tokens, share)
            break
        for name, held in sorted(short.items()):
            out += [place for place in held if tokens[place]]
            del left[name]
    return out


def drawn(folder: Path, run: Run, rows: NDArray[np.int64], tokens: NDArray[np.int64]) -> list[int]:
    """The rows that an arm keeps of a sample."""
    budget = int(run.budget * tokens[rows].sum())
    rng = np.random.default_rng([run.sample, run.seed, zlib.crc32(run.arm.encode())])
    if run.arm in ("random", "placebo"):
        return within_budget(rng.permutation(rows).tolist(), tokens, budget)
    if run.arm == "full":
        return [row for row in rows.tolist() if tokens[row]]
    if run.arm in INSIDE:
        # Random rows, of which the model keeps a share while it learns, so that the budget is what it learns from.
        seen = min(1.0, run.budget / QTUNING_RATIO)
        return within_budget(rng.permutation(rows).tolist(), tokens, int(seen * tokens[rows].sum()))
    if run.arm not in OWN:
        return [row for row in read_chosen(folder, run)["rows"] if tokens[row]]
    truth = truths(folder, run.of)
    capabilities = [of["capability"] for of in truth]
    good = [row for row in rows.tolist() if not truth[row]["planted"]]
    if run.arm == "stratified":
        return equal_tokens(rows.tolist(), capabilities, tokens, budget, rng)
    if run.arm == "oracle":
        return equal_tokens(good, capabilities, tokens, budget, rng)
    return within_budget(rng.permutation(np.asarray(good)).tolist(), tokens, budget)


def _chosen(folder: Path, run: Run) -> Path:
    return folder / "chosen" / run.of / f"{run.arm}.{run.budget:g}.sample{run.sample}.json"


def read_chosen(folder: Path, run: Run) -> dict[str, Any]:
    """The rows that an arm of the library keeps, and of those that lose tokens the supervised ones that stay."""
    found: dict[str, Any] = json.loads(_chosen(folder, run).read_text("utf-8"))
    return found


def pruned(data: list[Row], tokens: Mapping[str, Sequence[int]]) -> list[Row]:
    """The rows with those supervised tokens alone that stay in the loss."""
    out = list(data)
    for row, stay in tokens.items():
        held = out[int(row)]
        # The first token of a row has nothing before it, and is in no loss.
        places = np.flatnonzero(held.supervised[1:]) + 1
        supervised = np.zeros_like(held.supervised)
        supervised[places[np.asarray(stay, dtype=np.int64)]] = True
        out[int(row)] = held._replace(supervised=supervised)
    return out


def choose(folder: Path, runs: Sequence[Run], states: States, arms: dict[str, dict[str, Any]]) -> None:
    """Let the library choose, once for every sample and budget; keep the rows, and beside them what it took.

    Each choice is made in a process of its own, so that its peak is its own. Signals come from the cache: what
    measuring them took is told by the language-model and embedding benchmarks.
    """
    tasks = []
    for run in runs:
        if run.arm in (*OWN, *INSIDE) or _chosen(folder, run).exists():
            continue
        tokens = counted([states.rows[place] for place in states.places[run.of]])
        rows = sampled(len(tokens), run.sample)
        part = folder / "samples" / f"{run.of}.{run.sample}.jsonl"
        if not part.exists():
            part.parent.mkdir(exist_ok=True)
            lines = (folder / f"{run.of}.jsonl").read_text(encoding="utf-8").splitlines()
            part.write_text("".join(f"{lines[row]}\n" for row in rows.tolist()), encoding="utf-8")
        tasks.append((folder, run, rows, int(run.budget * tokens[rows].sum()), arms[run.arm]))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as processes:
        for done in as_completed([processes.submit(chosen, *task) for task in tasks]):
            print(done.result(), file=sys.stderr, flush=True)


def chosen(folder: Path, run: Run, rows: NDArray[np.int64], budget: int, given: dict[str, Any]) -> str:
    """One choice, written; what it took, in a line."""
    import datapruner as dp
    from datapruner.scorers import make_scorer

    before = resource.getrusage(resource.RUSAGE_SELF)
    if "pruned_model" in given:
        given = {**given, "pruned_model": str(folder / given["pruned_model"])}
    if "scorer" in given:
        given = {**given, "scorer": make_scorer(given["scorer"], given.get("parameters", {}))}
        given.pop("parameters", None)
    selection = dp.prune(
        str(folder / "samples" / f"{run.of}.{run.sample}.jsonl"),
        keep_tokens=budget,
        cache=folder.parent / "cache",
        seed=run.sample,
        progress=False,
        tokenizer=MODEL,
        max_length=1024,
        **given,
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mib": round(after.ru_maxrss / 1024),
    }
    write(_chosen(folder, run).with_suffix(".cost.json"), cost)
    masks = selection.token_masks
    stay = (
        {} if masks is None else {int(rows[at]): masks[at] for at in selection.indices if masks.lengths[at]}
    )
    write(
        _chosen(folder, run),
        {
            "rows": rows[selection.indices].tolist(),
            "tokens": {row: np.flatnonzero(mask).tolist() for row, mask in stay.items()},
        },
    )
    return f"{run.of}/{run.arm}/{run.budget:g}/{run.sample}: {cost}"


def costs(folder: Path, earlier: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Set -> arm -> the median over samples and budgets of what a choice took; what is not here, as it was."""
    held: dict[str, dict[str, list[dict[str, float]]]] = {}
    for path in sorted((folder / "chosen").glob("*/*.cost.json")):
        arm = path.name.split(".0.")[0]
        held.setdefault(path.parent.name, {}).setdefault(arm, []).append(json.loads(path.read_text("utf-8")))
    medians = {
        of: {
            arm: {name: round(float(np.median([one[name] for one in found])), 1) for name in found[0]}
            for arm, found in arms.items()
        }
        for of, arms in held.items()
    }
    return {of: earlier.get(of, {}) | medians.get(of, {}) for of in sorted({*earlier, *medians})}


def inside(head: Head, device: str, settings: Any) -> Callable[[Any, Sequence[Row]], list[Row]]:
    """Q-Tuning as published: what of a batch is learnt, by the model that is trained."""
    import torch

    from datapruner.ragged import Ragged, offsets_of

    def chosen(top: Any, rows: Sequence[Row]) -> list[Row]:
        with torch.inference_mode():
            states, wanted, counts = supervised_states(top, rows, device)
            losses, entropies = (of.double().cpu().numpy() for of in head.uncertain(states, wanted))
        lengths = counts.cpu().numpy()
        token_nll = Ragged(losses, offsets_of(lengths))
        mean = np.bincount(token_nll.rows(), entropies, len(rows)) / np.maximum(lengths, 1)
        kept, masks = settings.choose(token_nll, mean)
        stay = {str(row): np.flatnonzero(mask).tolist() for row, mask in zip(kept, masks, strict=True)}
        learnt = pruned(list(rows), stay)
        return [learnt[row] for row in kept]

    return chosen


class Bench:
    """The model and the states of all sets, in one process."""

    def __init__(self, asked: Any, device: str) -> None:
        from datapruner.models import load_causal_lm

        self.asked, self.device = asked, device
        self.model, tokenizer = load_causal_lm(MODEL, device=device)
        self.model = self.model.float().eval()
        self.states = States(asked.folder, self.stored(), tokenizer)
        self.heads: dict[tuple[str, str], Head] = {}

    def stored(self) -> tuple[str, ...]:
        return HELD

    def rows(self, of: str) -> list[Row]:
        if self.asked.whole:
            return [self.states.rows[place] for place in self.states.places[of]]
        return self.states.of(of)

    def head(self, of: str, held_out: str = "held_out") -> Head:
        """The softmax over the tokens that occur as targets in a set or among the held-out rows."""
        if (of, held_out) not in self.heads:
            places = [place for name in (of, held_out) for place in self.states.places[name]]
            targets = targets_of([self.states.rows[place] for place in places])
            self.heads[of, held_out] = Head(self.model, None if self.asked.whole else targets, self.device)
        return self.heads[of, held_out]

    def __call__(self, task: Any) -> dict[str, Any]:
        if isinstance(task, Run):
            return self.carry_out(task)
        self.states.fill(self.model, task.rows, self.device)
        return {"log_ppl": 0.0}

    def carry_out(self, run: Run) -> dict[str, Any]:
        asked = self.asked
        data, held_out = self.rows(run.of), self.rows("held_out")
        tokens = counted(data)
        rows = sampled(len(tokens), run.sample)
        kept = drawn(asked.folder, run, rows, tokens)
        if run.arm not in (*OWN, *INSIDE):
            data = pruned(data, read_chosen(asked.folder, run)["tokens"])
        budget = run.budget * int(tokens[rows].sum())
        steps = max(4, round(budget / asked.step_tokens))
        start = time.perf_counter()
        depth = self.model.config.num_hidden_layers if asked.whole else asked.depth
        settings = {"steps": steps, "seed": run.seed, "depth": depth, "rate": asked.rate}
        head = self.head(run.of)
        choose_inside = None
        if run.arm in INSIDE:
            from datapruner.integrations.qtuning import QTuningSettings

            choose_inside = inside(head, self.device, QTuningSettings(**INSIDE[run.arm]))
        top = train(self.model, head, data, kept, device=self.device, chosen=choose_inside, **settings)
        trained = time.perf_counter()
        losses = judged(top, head, held_out, self.device)
        return {
            "rows": len(kept),
            "tokens": int(counted(data)[kept].sum()),
            "budget": int(budget),
            **settings,
            "training": round(trained - start, 1),
            "judging": round(time.perf_counter() - trained, 1),
            "log_ppl": float(losses.sum() / counted(held_out).sum()),
            "losses": [round(float(loss), 3) for loss in losses],
        }


class Chunk(NamedTuple):
    """Rows whose states are computed."""

    rows: range

    @property
    def key(self) -> str:
        return f"states/{self.rows.start}"


def wanted(asked: Any) -> list[Run]:
    """All runs, those of one seed and sample before the next: a table after each round."""
    return [
        Run(of, arm, budget, sample, seed)
        for seed in range(asked.seeds)
        for sample in range(asked.samples)
        for of in asked.sets
        for budget in asked.budgets
        for arm in asked.arms
        if (arm == "full") == (budget == 1) or arm == "random"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--restore", action="store_true", help="begin with the runs that results/ has")
    parser.add_argument("--save", action="store_true", help="write results/, of which the pages are made")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--arms", nargs="+", default=[*OWN, *INSIDE, *ARMS])
    parser.add_argument("--more-arms", type=Path, help="JSON: name -> what `datapruner.prune` is given")
    parser.add_argument("--budgets", nargs="+", type=float, default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--depth", type=int, default=DEPTH, help="layers that learn, from the top")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--step-tokens", type=int, default=STEP_TOKENS)
    parser.add_argument("--whole", action="store_true", help="all layers learn, over the whole vocabulary")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="default: FOLDER/worth.json")
    asked = parser.parse_args()
    asked.out = asked.out or asked.folder / ("worth-whole.json" if asked.whole else "worth.json")
    asked.rate = asked.rate or (WHOLE_RATE if asked.whole else RATE)
    kept = RESULTS / f"{'worth-whole' if asked.whole else 'worth'}.json"
    if asked.restore:
        if asked.out.exists():
            raise SystemExit(f"{asked.out} is there already")
        write(asked.out, restored(kept))
        return
    if asked.report or asked.save:
        done = load(asked.out)
        print(report(done))
        if asked.save:
            saved({**done, "costs": costs(asked.folder, done.get("costs", {}))}, kept)
        return
    from datapruner.models import load_tokenizer

    states = States(asked.folder, HELD, load_tokenizer(MODEL))
    if asked.choose:
        arms = {**ARMS, **(json.loads(asked.more_arms.read_text("utf-8")) if asked.more_arms else {})}
        # A choice is of a sample, whatever the seed of training.
        choose(asked.folder, [run for run in wanted(asked) if not run.seed], states, arms)
        return
    if asked.prepare:
        needed = sorted({place for name in (*asked.sets, "held_out") for place in states.places[name]})
        chunks = [Chunk(rows) for rows in states.chunks() if any(place in rows for place in needed)]
        asked.out = asked.folder / "states" / "done.json"
        asked.out.unlink(missing_ok=True)
        workers = Workers(Bench, asked)
        workers.run([chunk for chunk in chunks if not states.path(chunk.rows).exists()])
        workers.stop()
        return
    done = load(asked.out)
    held_out = [states.rows[place] for place in states.places["held_out"]]
    done["held_out"] = {
        "tokens": counted(held_out).tolist(),
        "capability": [of["capability"] for of in truths(asked.folder, "held_out")],
    }
    done["sets"] = {of: sorted({row["capability"] for row in truths(asked.folder, of)}) for of in SETS}
    done["machine"], done["versions"] = (
        machine(torch_threads=1),
        versions("torch", "transformers", "datapruner"),
    )
    write(asked.out, done)
    workers = Workers(Bench, asked)
    workers.run(wanted(asked))
    workers.stop()


if __name__ == "__main__":
    main()
