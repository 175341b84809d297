"""What does `datapruner validate` say of selections of which it is known what they are worth?

The default on the messy set, which beats a random draw in the large table (docs/choose.md), with all layers trained,
and with the last five as in all that follow; the default on the clean set, where there is little to find; a random
draw under another name, which must not be told apart; and rows chosen for math, read by other rows of math. Each is
pruned to a tenth of the rows and validated as a user would.

    python benchmarks/messy.py FOLDER
    python benchmarks/validated.py FOLDER        # stopped and started again, it goes on
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from common import RESULTS, machine, versions, write

import datapruner as dp
from datapruner.scorers import NearestTarget

MODEL, EMBEDDER = "smollm2-135m-q4", "minilm"
KEEP = 0.1
EACH, FOR_TARGET = 12, 32
"""Target rows of each capability; and those of math that the selection is told of, which are not read."""
FEW = 8
"""Target rows of each capability where all layers are trained, and each row runs through all of them every time."""
LAST = 5


class Case(NamedTuple):
    """A set, how it is pruned, whether by rows of math for rows of math, and which layers are trained how fast."""

    rows: str
    options: dict[str, Any]
    math: bool = False
    last_layers: int | None = LAST
    rate: float = 5e-4


CASES = {
    "auto, messy set": Case("messy", {}, last_layers=None),
    "auto, messy set, last layers": Case("messy", {}),
    "auto, messy set, last layers, faster": Case("messy", {}, rate=2e-3),
    "auto, clean set": Case("clean", {}),
    "a random draw, messy set": Case("messy", {"scorer": "random"}),
    "nearest_target for math, messy set": Case(
        "messy", {"scorer": NearestTarget(representation="embedding")}, math=True
    ),
}


def held_out(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Clean rows of each capability."""
    found: dict[str, list[dict[str, Any]]] = {}
    rows, truths = ((folder / f"held_out{end}").read_text("utf-8") for end in (".jsonl", ".truth.jsonl"))
    for row, truth in zip(rows.splitlines(), truths.splitlines(), strict=True):
        capability = json.loads(truth)["capability"]
        found.setdefault(capability, []).append(json.loads(row) | {"capability": capability})
    return found


def validated(folder: Path, case: Case, rows: int, runs: int, seed: int) -> dict[str, Any]:
    there, options = held_out(folder), dict(case.options)
    each = FEW if case.last_layers is None else EACH
    read = [row for held in there.values() for row in held[:each]]
    if case.math:
        options["target"] = there["math"][:FOR_TARGET]
        read = there["math"][FOR_TARGET:]
    start = time.perf_counter()
    chosen = dp.prune(
        str(folder / f"{case.rows}.jsonl"),
        keep=KEEP,
        embedder=EMBEDDER,
        cache=folder / "cache",
        seed=seed,
        progress=False,
        **options,
    )
    pruned, used = time.perf_counter(), time.process_time()
    by = None if case.math else "capability"
    found = dp.validate(
        chosen,
        read,
        model=MODEL,
        rows=rows,
        runs=runs,
        rate=case.rate,
        seed=seed,
        by=by,
        last_layers=case.last_layers,
    )
    print(found.describe(), flush=True)
    gap = found.gap()
    return {
        "kept": len(chosen.indices),
        "rows": found.rows,
        "runs": runs,
        "last_layers": found.last_layers,
        "rate": case.rate,
        "target_rows": len(read),
        "target_tokens": int(found.tokens.sum()),
        "before": float(found.before.sum() / found.tokens.sum()),
        "loss": {arm: found.loss(arm) for arm in found.arms},
        "gap": gap._asdict(),
        "verdict": found.verdict,
        "mean_gap": None if by is None else found.mean_gap()._asdict(),
        "mean_verdict": found.mean_verdict,
        "told": found.describe(),
        "seconds": {"prune": round(pruned - start, 1), "validate": round(time.perf_counter() - pruned, 1)},
        "cpu_seconds": round(time.process_time() - used, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=150)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--output", type=Path, default=RESULTS / "validated.json")
    given = parser.parse_args()
    held = json.loads(given.output.read_text()) if given.output.exists() else {}
    result: dict[str, Any] = {
        **machine(),
        "versions": versions("torch", "transformers", "peft"),
        "cases": held.get("cases", {}),
    }
    for name in given.cases:
        if name not in result["cases"]:
            print(name, flush=True)
            result["cases"][name] = validated(given.folder, CASES[name], given.rows, given.runs, given.seed)
            write(given.output, result)


if __name__ == "__main__":
    main()
