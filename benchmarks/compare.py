"""How long does comparing all scorers take, against pruning with one after the other?

On a seeded sample of the mixture, every command in a process of its own, models loaded anew, nothing held before:

- together: ``datapruner compare --scorer all``: every scorer that needs neither a target nor a pruned model.
- one by one: ``datapruner prune --scorer NAME`` for each scorer that the comparison ran, each with an empty cache.
- one by one, one cache: the same with a cache that they share, so that what one has measured the next reads.

    python benchmarks/compare.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import MIXTURE, RESULTS, command, machine, versions, write

SEED = 0
KEEP = "0.3"


def sample(out: Path, rows: int) -> int:
    """Write some rows of the mixture, and return how many characters they have."""
    lines = MIXTURE.read_text("utf-8").splitlines(keepends=True)
    chosen = np.sort(np.random.default_rng(SEED).choice(len(lines), rows, replace=False))
    return out.write_text("".join(lines[place] for place in chosen), "utf-8")


def run(words: list[str], cache: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory of one command."""
    took = command(words, cache)
    found = {
        "seconds": round(took["seconds"], 1),
        "cpu_seconds": round(took["cpu_seconds"], 1),
        "peak_mib": round(took["peak_mib"]),
    }
    print(f"{' '.join(words[:1] + words[2:4])}: {found}", file=sys.stderr, flush=True)
    return found


def together(
    source: Path, work: Path, model: list[str], only: list[str]
) -> tuple[dict[str, float], list[str], dict[str, str]]:
    """What the comparison took, the scorers that it ran, and those that it left out."""
    out = work / "compared"
    named = [word for name in only for word in ("--scorer", name)]
    found = run(
        ["compare", str(source), *named, *model, "--keep", KEEP, "--no-report", "-o", str(out)], work / "c"
    )
    held = json.loads((out / "comparison.json").read_text("utf-8"))
    return found, [one["name"] for one in held["scorers"]], held["left_out"]


def one_by_one(
    source: Path, work: Path, model: list[str], names: list[str], shared: bool
) -> dict[str, dict[str, float]]:
    return {
        name: run(
            ["prune", str(source), "--scorer", name, *model, "--keep", KEEP, "-o", str(work / name)],
            work / ("shared" if shared else f"c-{name}"),
        )
        for name in names
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=1, help="of everything, in turns")
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--scorers", nargs="+", default=["all"])
    parser.add_argument("--out", type=Path, default=RESULTS / "compare.json")
    arguments = parser.parse_args()
    model = ["--model", arguments.model]
    runs: dict[str, list[Any]] = {"together": [], "one_by_one": [], "one_by_one_one_cache": []}
    for repeat in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            source = work / "rows.jsonl"
            characters = sample(source, arguments.rows)
            took, names, left_out = together(source, work, model, arguments.scorers)
            runs["together"].append(took)
            arms = [("one_by_one", False), ("one_by_one_one_cache", True)]
            for name, shared in arms[:: -1 if repeat % 2 else 1]:
                (work / name).mkdir()
                runs[name].append(one_by_one(source, work / name, model, names, shared))
    seconds = {
        "together": [one["seconds"] for one in runs["together"]],
        **{
            name: [round(sum(one["seconds"] for one in each.values()), 1) for each in runs[name]]
            for name in ("one_by_one", "one_by_one_one_cache")
        },
    }
    result = {
        "question": "wall time of a comparison of all scorers against one after the other",
        "rows": arguments.rows,
        "characters": characters,
        "model": arguments.model,
        "embedder": "minilm",
        "scorers": names,
        "left_out": left_out,
        "seconds": seconds,
        "medians": {name: statistics.median(held) for name, held in seconds.items()},
        "runs": runs,
        **machine(load_average=round(os.getloadavg()[0], 1)),
        "versions": versions("torch", "transformers", "sentence-transformers", "umap-learn", "datapruner"),
    }
    write(arguments.out, result)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
