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
from pathlib import Path
from typing import Any

from common import MIXTURE, RESULTS, machine, versions, write

MODEL = "smollm2-135m-q4"
LENGTH = 96
SCORERS = {
    "auto": [],
    "concept_complexity": ["--scorer", "concept_complexity"],
    "donod": ["--scorer", "donod"],
    "qtuning": ["--scorer", "qtuning"],
    "paser": ["--scorer", "paser", "--pruned-model", "pruned"],
    "nearest_target": ["--scorer", "nearest_target", "--target", "target.jsonl"],
}
BY_EMBEDDER = ("auto", "concept_complexity")
ENGINES = {
    "one process": [],
    "two processes": ["--workers", "2"],
    "two Ray actors": ["--engine", "ray", "--workers", "2"],
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


def save_pruned(folder: Path) -> None:
    """Save the model with the smallest 30 % of each linear layer's weights at zero."""
    import torch

    from datapruner.models import load_causal_lm

    model, tokenizer = load_causal_lm(MODEL, device="cpu")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name and "lm_head" not in name:
                rank = int(0.3 * weight.numel())
                weight[weight.abs() <= weight.abs().flatten().kthvalue(rank).values] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def same_bytes(work: Path, rows: dict[str, str], seconds: dict[str, dict[str, float]]) -> dict[str, bool]:
    """Compare every result's files with those of one process."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for name, options in SCORERS.items():
        line = [
            "prune",
            rows[name],
            *options,
            "--keep",
            "0.3",
            "--model",
            MODEL,
            "--max-length",
            str(LENGTH),
            "-q",
        ]
        if name in BY_EMBEDDER:
            del line[line.index("--model") : line.index("--model") + 4]
        for engine, words in {**ENGINES, "four shards": []}.items():
            cache, out = f"cache-{engine.replace(' ', '-')}", f"out/{name}"
            shutil.rmtree(work / "out", ignore_errors=True)
            here = [*line, "--cache", cache, "--out", out]
            took = 0.0
            if engine == "four shards":
                took = sum(run(work, [*here, "--shard", f"{part}/4"]) for part in SHARDS)
            took += run(work, [*here, *words])
            found.setdefault(name, {})[engine] = digests(work / out)
            seconds.setdefault(name, {})[engine] = round(took, 1)
            print(name, engine, f"{took:.1f} s", flush=True)
    return {
        f"{name}, {engine}": held == of["one process"]
        for name, of in found.items()
        for engine, held in of.items()
        if engine != "one process"
    }


def block_overhead(work: Path, rows: str) -> dict[str, float]:
    """Time blocks of 32 rows that are all stored: message, keys, looking up, reading."""
    from datapruner.engines.base import make_engine
    from datapruner.measuring.arguments import requested
    from datapruner.measuring.measure import begin
    from datapruner.measuring.pool import Block, job_of, of_rows_alone

    os.chdir(work)
    asked = requested(
        rows, scorers="donod", model=MODEL, max_length=LENGTH, cache="cache-one-process", progress=False
    )
    begun = begin(asked)
    job = json.dumps({"job": job_of(asked, begun.run, of_rows_alone(begun.plan))})
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
            for first in range(0, len(begun.run.rows) - 32, 32):
                for called, step in (("tokens", None), ("losses", "losses")):
                    message = Block(step, begun.run.rows[first : first + 32]).message
                    start = time.perf_counter()
                    answer = json.loads(worker.ask(message))
                    if repeat:
                        assert answer == {"computed": 0}, answer
                        took[called].append(time.perf_counter() - start)
        worker.end()
        engine.close()
        found |= {f"{name}, {called}": statistics.median(of) for called, of in took.items()}
    return {name: round(value, 4) for name, value in found.items()}


def throughput(work: Path, sizes: tuple[int, int], repeats: int) -> dict[str, Any]:
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
                    MODEL,
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
    parser.add_argument("--model-rows", type=int, default=100, help="for those that run the language model")
    parser.add_argument("--sizes", type=int, nargs=2, default=[64, 256], help="rows, for the throughput")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "engines.json")
    given = parser.parse_args()
    lines = MIXTURE.read_text().splitlines(keepends=True)
    work = Path(tempfile.mkdtemp(prefix="engines-"))
    try:
        for size in {given.rows, given.model_rows, *given.sizes}:
            (work / f"first-{size}.jsonl").write_text("".join(lines[:size]))
        (work / "target.jsonl").write_text("".join(lines[-20:]))
        save_pruned(work / "pruned")
        rows = {
            name: f"first-{given.rows if name in BY_EMBEDDER else given.model_rows}.jsonl" for name in SCORERS
        }
        seconds: dict[str, dict[str, float]] = {}
        result: dict[str, Any] = {
            **machine(),
            "versions": versions("torch", "transformers", "ray"),
            "rows": {name: int(of[6:-6]) for name, of in rows.items()},
            "max_length": LENGTH,
            "same bytes as one process": same_bytes(work, rows, seconds),
            "seconds": seconds,
        }
        write(given.out, result)
        result["seconds a block of 32 stored rows"] = block_overhead(work, rows["donod"])
        write(given.out, result)
        result["throughput"] = throughput(work, tuple(given.sizes), given.repeats)
        write(given.out, result)
    finally:
        os.chdir("/")
        shutil.rmtree(work, ignore_errors=True)
    if not all(result["same bytes as one process"].values()):
        raise SystemExit("bytes differ")


if __name__ == "__main__":
    main()
