"""The blocks of docs/workers.md: kills of engines, their bytes, and what a block costs."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

from report_blocks import block, result, table

KILLED = {"worker": "a worker", "run": "the run itself", "head": "the head of a Ray cluster"}
PHASES = ("cleaning", "embedding", "language model", "clustering", "writing")


@block
def engine_kills() -> str:
    """What was killed, in which phase, and what it cost."""
    found = result("engine_kills")
    kills: list[dict[str, Any]] = found["kills"]

    def counted(what: str) -> list[str]:
        mine = [kill for kill in kills if kill["what"] == what]
        by = Counter(kill["phase"] for kill in mine)
        twice = [kill["rows_twice"] for kill in mine]
        return [
            KILLED[what],
            *(str(by[phase]) if by[phase] else "" for phase in PHASES),
            f"{max(twice)}, median {median(twice):.0f}",
            str(max(kill["leases"] for kill in mine)),
        ]

    differ, left = len(found["different_files"]), len(found["left_behind"])
    return "\n\n".join(
        [
            f"{len(kills)} kills (SIGKILL) of a run over {found['rows']} rows with {found['workers']} workers, in "
            f"blocks of at most {found['rows_in_a_block']} rows, each at a named point of its phase; workers live "
            "in three of the phases.",
            table(
                ["killed", *PHASES, "rows computed twice, at most", "leases left, at most"],
                [counted(what) for what in KILLED if any(kill["what"] == what for kill in kills)],
            ),
            f"Of {found['completions']} results that came of it, "
            + (f"files differ: {differ}" if differ else "every file has the bytes of an undisturbed run")
            + f"; files, leases or processes left behind at the end: {left or 'none'} "
            "([`benchmarks/engine_kills.py`](benchmarks/engine_kills.py)).",
        ]
    )


@block
def engines() -> str:
    """The same bytes, the overhead of a block, and two workers beside one process."""
    found = result("engines")
    same = found["same bytes as one process"]
    block_of = found["seconds a block of 32 stored rows"]
    speed = found["throughput"]
    few, many = (int(size) for size in next(iter(speed.values()))["seconds"])
    rows = sorted(set(found["rows"].values()))

    def pace(arm: str) -> str:
        each = speed[arm]["rows a second"]
        return f"{median(each):.2f} rows/s ({min(each):.2f} to {max(each):.2f})"

    return "\n".join(
        [
            f"- {len({name.rpartition(', ')[0] for name in same})} scorers over "
            f"{' and '.join(map(str, rows))} mixture rows by two processes, two Ray actors and four shards: "
            f"{sum(same.values())} of {len(same)} results have the bytes of one process.",
            "- A block of 32 rows that are all stored, message and look-up included: "
            + "; ".join(
                f"{1000 * block_of[f'{engine}, losses']:.0f} ms ({engine})" for engine in ("local", "ray")
            )
            + ". Starting a worker and reading the rows: "
            + "; ".join(
                f"{block_of[f'{engine}, start and read']:.1f} s ({engine})" for engine in ("local", "ray")
            )
            + ".",
            f"- SmolLM2-135M, from {few} to {many} rows: two workers of one thread "
            f"{pace('two workers of one thread')}, one process of two threads "
            f"{pace('one process of two threads')} ([`benchmarks/engines.py`](benchmarks/engines.py)).",
        ]
    )
