"""Do engines change a byte, what does a block cost, and what do two workers bring?

One process, two processes, two Ray actors and four ``--shard`` tasks (in the order 3, 1, 4, 2) prune the same rows
with caches of their own, each worker on one thread; every file of every result is compared. Then the time that a
worker takes for a block of rows that are all stored, and the rows a second of two workers of one thread and of one
process of two threads, in turns: the slope between two numbers of rows, so that starting counts for neither.

    python benchmarks/engines.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before anything reads it

from common import MIXTURE, RESULTS, machine, versions, write

LENGTH = 96
OF_MODEL = {"max_length": LENGTH}
GROUPS: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any]]] = {
    "the default recipe": ({"auto": {}}, {}),
    "the embedder": ({"concept_complexity": {}}, {}),
    "the language model": (
        {"donod": {}, "qtuning": {}, "nearest_target": {"target": "target.jsonl"}},
        OF_MODEL,
    ),
    "two models": ({"paser": {}}, {**OF_MODEL, "pruned_model": "pruned"}),
}
"""Scorers that are measured in one go, each with its own options, and their options; then each of them selects."""
BY_EMBEDDER = ("auto", "concept_complexity")
ENGINES = {
    "one process": {},
    "two processes": {"workers": 2},
    "two Ray actors": {"engine": "ray", "workers": 2},
    "four shards": {},
}
SHARDS = (3, 1, 4, 2)


def run(folder: Path, words: list[str], threads: int = 1) -> float:
    """Run a command line in a folder; how long it took."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "datapruner", *words],
        cwd=folder,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return time.perf_counter() - start


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def save_pruned(model_name: str, folder: Path) -> None:
    """Save the model with the smallest 30 % of each linear layer's weights at zero."""
    import torch

    from datapruner.models import load_causal_lm

    model, tokenizer = load_causal_lm(model_name, device="cpu")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name and "lm_head" not in name:
                rank = int(0.3 * weight.numel())
                weight[weight.abs() <= weight.abs().flatten().kthvalue(rank).values] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def same_bytes(rows: dict[str, str], models: dict[str, str], keep: Callable[[dict[str, Any]], None]) -> None:
    """Compare every result's files with those of one process; all in the working folder."""
    import datapruner as dp

    found: dict[str, dict[str, dict[str, str]]] = {}
    seconds: dict[str, dict[str, float]] = {}
    for group, (scorers, own_options) in GROUPS.items():
        source = rows[next(iter(scorers))]
        named = None if "auto" in scorers else list(scorers)
        options = {**own_options, "embedder": models["embedder"]}
        if "max_length" in options:
            options["model"] = models["model"]
        every = {**options, **{name: value for own in scorers.values() for name, value in own.items()}}
        for engine, by in ENGINES.items():
            how: dict[str, Any] = {"cache": f"cache-{engine.replace(' ', '-')}", "progress": False}
            start = time.perf_counter()
            if engine == "four shards":
                for part in SHARDS:
                    dp.measure_part(source, f"{part}/4", scorers=named, **every, **how)
            else:
                dp.score(source, scorers=named, **every, **how, **by)
            for name, own in scorers.items():
                scorer = None if name == "auto" else name
                chosen = dp.prune(source, scorer=scorer, keep=0.3, **options, **own, **how, **by)
                shutil.rmtree("out", ignore_errors=True)
                chosen.save(Path("out") / name)
                found.setdefault(name, {})[engine] = digests(Path("out") / name)
            seconds.setdefault(group, {})[engine] = round(time.perf_counter() - start, 1)
            print(group, engine, f"{seconds[group][engine]} s", flush=True)
        same = {
            f"{name}, {engine}": held == of["one process"]
            for name, of in found.items()
            for engine, held in of.items()
            if engine != "one process"
        }
        keep({"same bytes as one process": same, "seconds": seconds})


def block_overhead(rows: str, model: str) -> dict[str, float]:
    """Time blocks of 32 rows that are all stored: message, keys, looking up, reading."""
    from datapruner.engines.base import make_engine
    from datapruner.measuring.arguments import requested
    from datapruner.measuring.measure import begin
    from datapruner.measuring.pool import Block, job_of, of_rows_alone
    from datapruner.signals.losses import feed

    asked = requested(
        rows, scorers="donod", model=model, max_length=LENGTH, cache="cache-one-process", progress=False
    )
    begun = begin(asked)
    job = json.dumps({"job": job_of(asked, begun.run, of_rows_alone(begun.plan, begun.run.recipe))})
    answers = feed(begun.run).counts.supervised[begun.run.rows] > 0  # the others have no losses to be read
    answered = begun.run.rows[answers]
    found = {}
    for name in ("local", "ray"):
        engine = make_engine(name, workers=2)
        engine.open("cache-one-process")
        worker = engine.start(0, None)
        took: dict[str, list[float]] = {"tokens": [], "losses": []}
        start = time.perf_counter()
        answer = json.loads(worker.ask(job))
        assert "error" not in answer, answer
        found[f"{name}, start and read"] = time.perf_counter() - start
        for repeat in range(4):
            for first in range(0, len(answered) - 31, 32):
                for called, step in (("tokens", None), ("losses", "losses")):
                    message = Block(step, answered[first : first + 32]).message
                    start = time.perf_counter()
                    answer = json.loads(worker.ask(message))
                    if repeat:
                        assert answer == {"computed": 0}, answer
                        took[called].append(time.perf_counter() - start)
        worker.end()
        engine.close()
        found |= {f"{name}, {called}": statistics.median(of) for called, of in took.items()}
    return {name: round(value, 4) for name, value in found.items()}


def throughput(work: Path, model: str, sizes: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Rows a second of the language model's pass, in turns."""
    arms = {"two workers of one thread": (["--workers", "2"], 1), "one process of two threads": ([], 2)}
    took: dict[str, dict[int, list[float]]] = {arm: {size: [] for size in sizes} for arm in arms}
    for repeat in range(repeats):
        for size in sizes:
            for arm in sorted(arms, reverse=bool(repeat % 2)):
                words, threads = arms[arm]
                shutil.rmtree(work / "cache-speed", ignore_errors=True)
                line = [
                    "prune",
                    f"first-{size}.jsonl",
                    "--scorer",
                    "donod",
                    "--keep",
                    "0.3",
                    "--model",
                    model,
                ]
                line += [
                    "--max-length",
                    str(LENGTH),
                    "-q",
                    "--overwrite",
                    "--cache",
                    "cache-speed",
                    "--out",
                    "speed",
                ]
                took[arm][size].append(run(work, [*line, *words], threads))
                print(repeat, size, arm, f"{took[arm][size][-1]:.1f} s", flush=True)
    few, many = sizes
    return {
        arm: {
            "seconds": {str(size): [round(one, 1) for one in of] for size, of in held.items()},
            "rows a second": [
                round((many - few) / (b - a), 2) for a, b in zip(held[few], held[many], strict=True)
            ],
        }
        for arm, held in took.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, default=400, help="for the scorers that read the embedder's vectors"
    )
    parser.add_argument("--model-rows", type=int, default=400, help="for the others")
    parser.add_argument("--sizes", type=int, nargs=2, default=[64, 256], help="rows, for the throughput")
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--embedder", default="minilm")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "engines.json")
    given = parser.parse_args()
    given.out = given.out.resolve()
    lines = MIXTURE.read_text().splitlines(keepends=True)
    work = Path(tempfile.mkdtemp(prefix="engines-"))
    try:
        for size in {given.rows, given.model_rows, *given.sizes}:
            (work / f"first-{size}.jsonl").write_text("".join(lines[:size]))
        # Short ones: a target's answers must lie within the length at which rows are cut.
        (work / "target.jsonl").write_text("".join(sorted(lines[-200:], key=len)[:20]))
        os.chdir(work)
        save_pruned(given.model, Path("pruned"))
        rows = {
            name: f"first-{given.rows if name in BY_EMBEDDER else given.model_rows}.jsonl"
            for scorers, _ in GROUPS.values()
            for name in scorers
        }
        result: dict[str, Any] = {
            **machine(),
            "versions": versions("torch", "transformers", "ray"),
            "rows": {name: int(of[6:-6]) for name, of in rows.items()},
            "models": [Path(given.model).name, Path(given.embedder).name],
            "max_length": LENGTH,
        }

        def keep(more: dict[str, Any]) -> None:
            result.update(more)
            write(given.out, result)

        same_bytes(rows, {"model": given.model, "embedder": given.embedder}, keep)
        keep({"seconds a block of 32 stored rows": block_overhead(rows["donod"], given.model)})
        if not given.repeats:
            return
        keep({"throughput": throughput(work, given.model, tuple(given.sizes), given.repeats)})
    finally:
        os.chdir("/")
        shutil.rmtree(work, ignore_errors=True)
    if not all(result["same bytes as one process"].values()):
        raise SystemExit("bytes differ")


if __name__ == "__main__":
    main()
