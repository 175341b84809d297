"""The tables of `aimed.py`, and what it leaves in results/ so that others can go on from there."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import write, write_missing
from finetune import load
from worth_report import Results, holm

BUDGET = 0.05
"""Of the supervised tokens, what every arm keeps."""


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


def tables(done: dict[str, Any], earlier: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """For every target random's loss, and each arm's difference from it and from the oracle.

    What an earlier day found of other arms and targets stays: each arm was held against the random rows of its day.
    """
    before = {of["target"]: of for of in earlier}
    out = []
    for target in {**before, **done["tokens"]}:
        runs = {key: run for key, run in done["runs"].items() if key.startswith(f"{target}/")}
        if runs:
            tokens = done["tokens"][target]
            results = Results(
                {
                    "held_out": {"tokens": tokens, "capability": [target] * len(tokens)},
                    "sets": {target: [target]},
                    "runs": runs,
                }
            )
            known = before.get(target, {}).get("arms", {})
            found = known | differences(results, target, runs)
            for arm, value in zip(found, holm([one["p"] for one in found.values()]), strict=True):
                found[arm]["holm"] = value
            level = float(results.level(target, "random", BUDGET)[0])
            out.append({"target": target, "random": level, "arms": found})
        elif target in before:
            out.append(before[target])
    return out


def differences(results: Results, target: str, runs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Arm -> how much higher its loss is than random's and than the oracle's."""
    found = {}
    for arm in sorted({key.split("/")[1] for key in runs} - {"random"}):
        beside_random, beside_oracle = (
            results.difference(target, arm, other, BUDGET) for other in ("random", "oracle")
        )
        if beside_random is None:
            continue
        found[arm] = beside_random["token"]
        found[arm]["against_oracle"] = (
            None
            if beside_oracle is None
            else {name: beside_oracle["token"][name] for name in ("difference", "half")}
        )
        of = [run["of_the_target"] for key, run in runs.items() if key.split("/")[1] == arm]
        found[arm]["of_the_target"] = float(np.mean(of))
    return found


def saved(folder: Path, done: dict[str, Any], out: Path) -> None:
    """Write what the pages are made of, and beside it every run and every choice, so that others can go on."""
    earlier = load(out).get("tables", [])
    write(out, {"tables": tables(done, earlier), **{name: done[name] for name in ("machine", "versions")}})
    choices = {file.name: json.loads(file.read_text("utf-8")) for file in folder.glob("aimed/*.sample*.json")}
    runs = json.dumps({"runs": done.get("runs", {}), "choices": choices}, sort_keys=True)
    # Without the time, so that the same runs make the same bytes.
    beside(out).write_bytes(gzip.compress(runs.encode(), mtime=0))


def restore(folder: Path, found: Path) -> None:
    """Put runs and choices where `saved` found them; what is there stays."""
    held = json.loads(gzip.decompress(beside(found).read_bytes()))
    write_missing({folder / "aimed" / name: one for name, one in held["choices"].items()})
    write_missing({folder / "aimed.json": {"runs": held["runs"]}})


def beside(out: Path) -> Path:
    """Where the runs lie."""
    return out.with_name(f"{out.stem}-runs.json.gz")
