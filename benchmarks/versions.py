"""Did anything get slower or larger than in an earlier version? Whole commands, the two versions in turns.

    git worktree add ../before REVISION
    python benchmarks/versions.py --before ../before

Both versions run in this interpreter with this environment's libraries; only the tree differs. Each command starts
with an empty cache. Times and peak memory (of the largest process) are the operating system's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import machine, write

HERE = Path(__file__).resolve().parents[1]
WORDS = [f"word{i}" for i in range(5000)]


def rows(path: Path, count: int, copies: float = 0.1) -> None:
    """Write question and answer rows; a tenth of them are copies, half of these with one word changed."""
    rng = random.Random(0)
    written: list[list[str]] = []
    with path.open("w") as file:
        for _ in range(count):
            if written and rng.random() < copies:
                words = list(rng.choice(written))
                if rng.random() < 0.5:
                    words[rng.randrange(len(words))] = rng.choice(WORDS)
            else:
                words = rng.choices(WORDS, k=rng.randint(20, 60))
                if len(written) < 50_000:
                    written.append(words)
            half = len(words) // 2
            row = {"instruction": " ".join(words[:half]), "output": " ".join(words[half:])}
            file.write(json.dumps({**row, "source": f"s{rng.randrange(8)}"}) + "\n")


def wide(path: Path, count: int, columns: int) -> None:
    """Write rows of many columns beside the text."""
    rng = random.Random(1)
    with path.open("w") as file:
        for i in range(count):
            row = {"instruction": f"question {i}", "output": f"answer {rng.random()}"}
            file.write(json.dumps({**row, **{f"c{j}": rng.randrange(100) for j in range(columns)}}) + "\n")


def commands(folder: Path, small: bool) -> dict[str, list[str]]:
    """Make the inputs, and name what is timed; `OUT` stands for a new folder."""
    many, vectors = (2_000, 10_000) if small else (200_000, 1_000_000)
    rows(folder / "many.jsonl", many)
    with (folder / "short.jsonl").open("w") as file:
        file.writelines(f'{{"text": "row {i}"}}\n' for i in range(vectors))
    rng = np.random.default_rng(0)
    np.save(folder / "vectors.npy", rng.standard_normal((vectors, 64), dtype=np.float32))
    wide(folder / "wide.jsonl", 200, 100 if small else 2_000)
    prune = [sys.executable, "-m", "datapruner", "prune"]
    return {
        "an empty interpreter": [sys.executable, "-c", "pass"],
        "import datapruner": [sys.executable, "-c", "import datapruner"],
        "datapruner --help": [sys.executable, "-m", "datapruner", "--help"],
        "datapruner prune --help": [*prune, "--help"],
        f"{many:,} rows, random, --dedup, --report": [
            *prune, str(folder / "many.jsonl"), "--scorer", "random", "--dedup", "--report",
            "--keep", "0.3", "-o", "OUT",
        ],
        f"{vectors:,} vectors of 64, prototypes": [
            *prune, str(folder / "short.jsonl"), "--scorer", "prototypes", "--embeddings", str(folder / "vectors.npy"),
            "--set", "n_clusters=100", "--keep", "0.3", "-o", "OUT",
        ],
        "200 rows of 2,000 columns, --report": [
            *prune, str(folder / "wide.jsonl"), "--scorer", "random", "--report", "--keep", "0.3", "-o", "OUT",
        ],
    }  # fmt: skip


class Run(NamedTuple):
    """One run of a command: wall seconds, seconds of the processors, peak MB of the largest process."""

    seconds: float
    cpu: float
    peak_mb: float


def timed(command: list[str], tree: Path, folder: Path, log: Path) -> Run:
    """Run a command with the code of `tree`."""
    for place in ("out", "cache"):
        shutil.rmtree(folder / place, ignore_errors=True)
    command = [str(folder / "out") if word == "OUT" else word for word in command]
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "DATAPRUNER_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("ab") as told:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=tree, env=environment, stdout=told, stderr=told)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} with {tree} ended with {process.returncode}; {log} says why")
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--before", type=Path, required=True, help="a work tree of the version to compare with"
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each command and version")
    parser.add_argument("--only", default="", help="commands whose name holds this text")
    parser.add_argument("--small", action="store_true", help="small inputs, to try this script")
    parser.add_argument("--out", type=Path, default=HERE / "benchmarks/results/versions.json")
    given = parser.parse_args()
    trees = {"before": given.before.resolve(), "now": HERE}
    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, command in commands(folder, given.small).items():
            if given.only not in what:
                continue
            measured: dict[str, list[Run]] = {"before": [], "now": []}
            for run in range(given.runs + 1):  # the first warms the files' pages and is not counted
                for which in ("before", "now") if run % 2 else ("now", "before"):
                    one = timed(command, trees[which], folder, given.out.with_suffix(".log"))
                    if run:
                        measured[which].append(one)
            found[what] = {
                which: {part: [round(getattr(run, part), 3) for run in runs] for part in Run._fields}
                for which, runs in measured.items()
            }
            told = [f"{what:42s}"]
            for part in Run._fields:
                before, now = ([getattr(run, part) for run in measured[which]] for which in measured)
                ratios = [second / first for first, second in zip(before, now, strict=True)]
                told.append(
                    f"{part} {statistics.median(before):.2f} -> {statistics.median(now):.2f}, "
                    f"x {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                )
            print("; ".join(told), flush=True)
            revisions = {
                which: subprocess.run(
                    ["git", "rev-parse", "--short", "HEAD"],
                    cwd=tree,
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.strip()
                for which, tree in trees.items()
            }
            write(given.out, {"machine": machine(), "revisions": revisions, "commands": found})


if __name__ == "__main__":
    main()
