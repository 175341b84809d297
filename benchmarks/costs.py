"""What does a stage take, and does a cost model that was fitted to small sizes tell what a larger one takes?

Each stage of a run is a command of its own, in a process of its own, at several sizes; `seconds = fixed + each * units`
is fitted to all sizes but the largest, which is then predicted. Units are what the stage's time goes with: rows, or
tokens where a model reads them. Seconds are those of the processor, summed over cores, so that what else the machine
does counts little; the peak of memory is fitted alike. docs/scaling.md plans with what comes out.

    python benchmarks/costs.py                # half an hour of two cores
    python benchmarks/costs.py --only near    # one stage anew, into the same JSON
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import MIXTURE, RESULTS, command, machine, versions, write

MODEL, EMBEDDER = "smollm2-135m-q4", "minilm"
DIMENSIONS, CLUSTERS = 384, 256
CHARACTERS = 600
"""Of a made row, about."""


class Stage(NamedTuple):
    """A command, the sizes that it is measured at (rows; the largest is predicted), and what its time goes with.

    What holds a bounded number of rows at a time is measured beyond that, or its memory would seem to grow for ever.
    """

    words: tuple[str, ...]
    sizes: tuple[int, ...]
    unit: str
    made: bool


NO_CLEANING = ("--no-dedup", "--keep", "0.5")
STAGES = {
    "read and write": Stage(
        ("prune", "{rows}", "--scorer", "random", *NO_CLEANING),
        (300_000, 1_000_000, 3_000_000),
        "row",
        made=True,
    ),
    "exact and near duplicates": Stage(("clean", "{rows}"), (200_000, 600_000, 1_800_000), "row", made=True),
    "clusters of given vectors": Stage(
        ("prune", "{rows}", "--scorer", "stratified", "--embeddings", "{vectors}", *NO_CLEANING),
        (200_000, 600_000, 1_800_000),
        "row",
        made=True,
    ),
    "embedding": Stage(
        ("prune", "{rows}", "--scorer", "stratified", "--embedder", EMBEDDER, *NO_CLEANING),
        (400, 800, 2400),
        "token",
        made=False,
    ),
    "losses": Stage(
        ("prune", "{rows}", "--scorer", "perplexity", "--model", MODEL, "--dtype", "bfloat16", *NO_CLEANING),
        (60, 120, 360),
        "token",
        made=False,
    ),
}


def make_rows(path: Path, rows: int, short: bool) -> None:
    """Rows of made-up words, in blocks; one in twenty is an earlier one with one word changed."""
    rng = np.random.default_rng(rows)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, rng.integers(2, 11))) for _ in range(20_000)]
    count = 4 if short else CHARACTERS // 8
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, rows, 10_000):
            block = rng.integers(0, len(words), (min(10_000, rows - start), count))
            for place in np.flatnonzero(rng.random(len(block)) < 0.05):
                block[place] = block[rng.integers(0, len(block))]
                block[place, rng.integers(0, count)] = rng.integers(0, len(words))
            for row in block:
                told = [words[word] for word in row]
                half = count // 4
                line = {"prompt": " ".join(told[:half]), "completion": " ".join(told[half:])}
                file.write(json.dumps(line) + "\n")


def make_vectors(path: Path, rows: int) -> None:
    """Clustered unit vectors of half floats, in blocks."""
    rng = np.random.default_rng(rows)
    means = rng.standard_normal((5 * CLUSTERS, DIMENSIONS), dtype=np.float32)
    held = np.lib.format.open_memmap(path, "w+", np.float16, (rows, DIMENSIONS))
    for start in range(0, rows, 20_000):
        block = means[rng.integers(0, len(means), min(20_000, rows - start))]
        block = block + 1.5 * rng.standard_normal(block.shape, dtype=np.float32)
        held[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    held.flush()


def sample(path: Path, rows: int) -> None:
    lines = MIXTURE.read_text("utf-8").splitlines(keepends=True)
    chosen = np.sort(np.random.default_rng(0).permutation(len(lines))[:rows])
    path.write_text("".join(lines[place] for place in chosen), "utf-8")


def tokens(path: Path, name: str) -> int:
    """What a model reads of the rows."""
    from datapruner.models import load_tokenizer
    from datapruner.samples import load_samples

    tokenizer = load_tokenizer(name)
    texts = load_samples(str(path)).texts()
    return sum(len(ids) for ids in tokenizer(texts, truncation=False)["input_ids"])


def measure(stage: Stage, rows: int, repeats: int) -> dict[str, float]:
    """The medians over some runs, each with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source, vectors = work / "rows.jsonl", work / "vectors.npy"
        if stage.made:
            make_rows(source, rows, short="{vectors}" in stage.words)
        else:
            sample(source, rows)
        if "{vectors}" in stage.words:
            make_vectors(vectors, rows)
        words = [word.format(rows=source, vectors=vectors) for word in stage.words]
        runs = [
            command([*words, "-o", str(work / f"out{number}")], work / f"cache{number}")
            for number in range(repeats)
        ]
        units = (
            rows if stage.unit == "row" else tokens(source, MODEL if "losses" in stage.words else EMBEDDER)
        )
    return {
        "rows": rows,
        "units": units,
        **{name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]},
    }


def fitted(units: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """What is fixed and what each unit adds, neither below zero; each size weighs alike."""
    from scipy.optimize import nnls

    matrix = np.column_stack([np.ones(len(units)), units]) / np.asarray(values)[:, None]
    scale = np.abs(matrix).max(axis=0)
    found, _ = nnls(matrix / scale, np.ones(len(units)))
    fixed, each = found / scale
    return float(fixed), float(each)


def modelled(runs: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The model of all sizes but the largest, and what it says of that."""
    *known, largest = sorted(runs, key=lambda run: run["units"])
    out: dict[str, Any] = {}
    for name in ("cpu_seconds", "peak_mib"):
        fixed, each = fitted([run["units"] for run in known], [run[name] for run in known])
        told = fixed + each * largest["units"]
        out[name] = {
            "fixed": fixed,
            "each": each,
            "predicted": round(told, 2),
            "measured": largest[name],
            "error": round(told / largest[name] - 1, 4),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--out", type=Path, default=RESULTS / "costs.json")
    asked = parser.parse_args()
    found: dict[str, Any] = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else {"stages": {}}
    for name in asked.only:
        stage = STAGES[name]
        runs = []
        for size in stage.sizes:
            # The largest is read once: it is the longest, and a single number is what a user will see.
            repeats = 1 if size == stage.sizes[-1] else asked.repeats
            runs.append(measure(stage, round(asked.scale * size), repeats))
            print(f"{name}: {runs[-1]}", file=sys.stderr, flush=True)
        found["stages"][name] = {
            "unit": stage.unit,
            "command": " ".join(stage.words),
            "runs": runs,
        } | modelled(runs)
        found["machine"], found["versions"] = machine(), versions("datapruner", "torch", "numpy", "faiss-cpu")
        write(asked.out, found)


if __name__ == "__main__":
    main()
