"""Which sketch of a gradient ranks better for a target, the last layer's or that of all layers: by leaving rows out.

    python benchmarks/messy.py FOLDER
    python benchmarks/layers.py FOLDER                      # scores and trainings; stopped and started, it goes on
    python benchmarks/layers.py FOLDER --report             # --save writes results/layers.json, and all losses
    python benchmarks/layers.py FOLDER --restore            # where FOLDER is new: go on from results/

Targets and pools are those of `aimed.py`: 32 held-out rows of a capability are told, the others judge, and the pool is
a random part of the clean set. Every arm ranks the pool for the target; as `datapruner validate` does it, an adapter of
all layers is trained without the best of the drawn rows and without the worst, all arms on the same rows from the same
starts; and the losses of the judging rows are compared: how much higher they are without the best than without the
worst, and whether that is more for one arm than for another. `--checkpoints` adds LESS with those of a warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import RESULTS, machine, versions, write, write_missing

MODEL = "smollm2-135m-q4"
TARGETS = ("math", "code")
ARMS = {"last layer": "sketch", "all layers": "gradient", "states": "state"}
LESS = "LESS"
WITHOUT = ("without_best", "without_worst")
"""Of what `datapruner validate` trains. Without any rows all arms train the same, and it says nothing of them."""


def score(pool: Path, told: Path, arm: str, asked: Any) -> tuple[Any, float]:
    """Rank the pool for a target, and tell the CPU seconds."""
    import datapruner as dp
    from datapruner.scorers import NearestTarget

    more = {"sketch_checkpoints": asked.checkpoints} if arm == LESS else {}
    start = time.process_time()
    scores = dp.score(
        str(pool),
        scorers=NearestTarget(representation=ARMS.get(arm, "gradient")),
        model=asked.model,
        target=str(told),
        max_length=1024,
        cache=asked.cache,
        progress=False,
        **more,
    )
    return scores, time.process_time() - start


def study(folder: Path, name: str, pool: Path, told: Path, judge: Path, asked: Any) -> None:
    """Rank and train for one target, an arm after the other; what is there is left."""
    from datapruner.validation.study import study as planned
    from datapruner.validation.training import Training

    for arm in arms(asked):
        out = folder / "layers" / f"{name}.{arm}.json"
        if out.exists():
            continue
        scores, seconds = score(pool, told, arm, asked)
        plan = planned(
            scores,
            str(judge),
            model=asked.model,
            leave_out=asked.leave_out,
            rows=asked.rows,
            runs=asked.runs,
            how=Training(step_tokens=asked.step_tokens),
        )
        runs = [{part: run[part] for part in WITHOUT} for run in plan.arms.runs]
        found = replace(plan, arms=replace(plan.arms, runs=runs)).carry_out(progress=False)
        write(out, {"cpu_seconds": round(seconds, 1), "steps": plan.steps, **held(found)})
        print(f"{name}, {arm}: {found.gap()}", file=sys.stderr, flush=True)


def held(found: Any) -> dict[str, Any]:
    """Give what a validation is made of."""
    return {
        **{name: getattr(found, name) for name in ("of", "target", "rows", "seed", "leave_out")},
        **{name: getattr(found, name).tolist() for name in ("tokens", "before")},
        "losses": {part: found.losses[:, place].tolist() for place, part in enumerate(WITHOUT)},
    }


def arms(asked: Any) -> list[str]:
    return [*asked.arms, *([LESS] if asked.checkpoints else [])]


def validation(held: dict[str, Any]) -> Any:
    """Give what was found, as it was written."""
    from datapruner.validation.result import ScoreValidation

    losses = np.array([held["losses"][part] for part in WITHOUT]).transpose(1, 0, 2)
    told = (held["of"], held["target"], held["rows"], np.array(held["tokens"]), np.array(held["before"]))
    return ScoreValidation(*told, losses, held["seed"], held["leave_out"])


def beside(one: Any, other: Any) -> Any:
    """How much more one arm's best rows are missed than another's, both over their worst; paired, with an interval."""
    # The difference of two differences, as that of two sums: (best + other's worst) - (worst + other's best).
    return replace(one, losses=one.losses + other.losses[:, ::-1]).gap()


def report(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The gaps of all arms, and of each two against each other, of every target."""
    out: dict[str, Any] = {}
    for name, of in runs.items():
        found = {arm: validation(one) for arm, one in of.items()}
        out[name] = {
            "arms": {
                arm: {**one.gap()._asdict(), "verdict": one.verdict, "cpu_seconds": of[arm]["cpu_seconds"]}
                for arm, one in found.items()
            },
            "against each other": {
                f"{a} - {b}": beside(found[a], found[b])._asdict() for a, b in combinations(found, 2)
            },
        }
    return out


def done(folder: Path, targets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Target -> arm -> what was written of it."""
    found: dict[str, dict[str, Any]] = {}
    for name in targets:
        for arm in (*ARMS, LESS):
            if (file := folder / "layers" / f"{name}.{arm}.json").exists():
                found.setdefault(name, {})[arm] = json.loads(file.read_text("utf-8"))
    return found


def restore(folder: Path, found: Path) -> None:
    """Put arms where `--save` found them; what is there stays."""
    runs = json.loads(found.read_text("utf-8"))["runs"]
    write_missing(
        {
            folder / "layers" / f"{name}.{arm}.json": one
            for name, of in runs.items()
            for arm, one in of.items()
        }
    )


def told_and_judging(folder: Path, name: str, count: int) -> tuple[Path, Path, Path]:
    """Write a target of `aimed.py`: its pool, the rows that are told, and those that judge."""
    from aimed import _write_part, cases

    case = cases(folder)[name]
    pool = folder / "layers" / f"{case.pool}.{count}.jsonl"
    drawn = np.random.default_rng(0).permutation(len(case.groups))[:count]
    _write_part(folder, case.pool, np.sort(drawn).tolist(), pool)
    parts = [folder / "layers" / f"{name}.{part}.jsonl" for part in ("told", "judge")]
    for part, rows in zip(parts, (case.told, case.judges), strict=True):
        _write_part(folder, case.held_out, rows, part)
    return pool, *parts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--checkpoints", nargs="+", help="a warm-up of --model (`warm_up.py`), for LESS")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--pool", type=int, default=1000, help="rows that are ranked")
    parser.add_argument("--rows", type=int, default=500, help="of these, drawn for a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--leave-out", type=float, default=0.2)
    parser.add_argument("--step-tokens", type=int, default=512)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--restore", action="store_true", help="begin with the arms that results/ has")
    asked = parser.parse_args()
    if asked.restore:
        restore(asked.folder, RESULTS / "layers.json")
        return
    if not asked.report:
        for name in asked.targets:
            study(asked.folder, name, *told_and_judging(asked.folder, name, asked.pool), asked)
    runs = done(asked.folder, asked.targets)
    result = {
        "model": asked.model,
        **{name: getattr(asked, name) for name in ("pool", "rows", "runs", "leave_out", "step_tokens")},
        **machine(**versions("torch", "transformers", "peft")),
        "targets": report(runs),
    }
    print(json.dumps(result, indent=1))
    result["runs"] = runs
    if asked.save:
        write(RESULTS / "layers.json", result)


if __name__ == "__main__":
    main()
