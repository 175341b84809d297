"""Four runs into one folder at once, in rounds: `python -m tests.faults.races FOLDER ROUNDS`.

The runs differ in their seed. Without `--overwrite` one of them wins, whole, and the others are refused in a sentence;
with it the folder holds a whole result of one of them afterwards; a file that somebody else puts there meanwhile stays.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.faults.fork import Forks, command, tree

RUNS = 4


def at(barrier: Barrier, action: Callable[[], None]) -> Callable[[], None]:
    """Let an action wait for the others."""

    def together() -> None:
        barrier.wait(60)
        action()

    return together


def prune(rows: Path, out: Path, seed: int, *more: str) -> Callable[[], None]:
    return command(
        "prune", rows, "--scorer", "random", "--seed", seed, "--keep", "5", "-o", out, "--quiet", *more
    )


def main() -> None:
    # What the children need is loaded once, here.
    import datasets  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import datapruner.api
    import datapruner.cli
    import datapruner.outputs.dataset  # noqa: F401

    work, rounds = Path(sys.argv[1]), int(sys.argv[2])
    forks, context = Forks(), get_context("fork")
    rows = work / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "row {number}"}}\n' for number in range(40)))
    whole = []
    for seed in range(RUNS):
        alone = work / f"alone{seed}"
        ran = forks.run(prune(rows, alone, seed), work)
        if ran.code:
            raise SystemExit(f"undisturbed: {ran}")
        whole.append(tree(alone))
        shutil.rmtree(alone)
    violations = []
    for turn in range(rounds):
        out = work / "out"
        for more, foreign in ((), False), (("--overwrite",), False), ((), True):
            shutil.rmtree(out, ignore_errors=True)
            barrier = context.Barrier(RUNS + foreign)
            actions = [at(barrier, prune(rows, out, seed, *more)) for seed in range(RUNS)]
            if foreign:
                actions.append(at(barrier, lambda out=out: put(out / "mine.txt")))
            running = [forks.start(action, work) for action in actions]
            ended = {}
            while len(ended) < len(running):
                for place, child in enumerate(running):
                    if place not in ended and (ran := child.ended()) is not None:
                        ended[place] = ran
                time.sleep(0.002)
            won = [place for place in range(RUNS) if ended[place].code == 0]
            found = tree(out)
            said = [ran.said[-200:] for ran in ended.values() if ran.rude]
            put_there = foreign and ended[RUNS].code == 0
            if put_there:
                right = found is not None and found.pop("mine.txt", None) is not None
                # The file came before all of them, and all are refused, or after one of them had won.
                right = right and (found == whole[won[0]] if won else not found) and len(won) <= 1
            elif more:
                right = found in [whole[place] for place in won]
            else:
                right = len(won) == 1 and found == whole[won[0]]
            left = sorted(path.name for path in work.iterdir() if path.name not in ("out", "rows.jsonl"))
            if said or left or not right:
                violations.append(
                    f"round {turn}, {more}, {foreign}: won {won}, {said}, {left}, {sorted(found or ())}"
                )
    print(json.dumps({"rounds": rounds, "violations": violations}))


def put(file: Path) -> None:
    """Put a file of somebody else's where the runs will write."""
    for _ in range(2000):
        file.parent.mkdir(exist_ok=True)
        try:
            file.write_text("mine")
        except OSError:
            continue
        return
    raise SystemExit(3)


if __name__ == "__main__":
    main()
