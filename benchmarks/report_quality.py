"""The blocks of the quality benchmark; see :mod:`report_blocks`. Its tables are those of :mod:`quality_report`."""

from __future__ import annotations

from math import isnan
from statistics import fmean
from typing import Any

from report_blocks import RESULTS, block, percent, result, table

FILES = {"quality": "two cores, a sample of short rows", "quality-full": "one GPU, all rows"}
NOT_YET = (
    "*Not measured yet.* No claim is made here about how a model trained on the kept rows does: that table needs "
    "training runs, and comes with them."
)


@block
def quality() -> str:
    """README: the loss after training on what each arm keeps, one column a set and budget."""
    return "\n\n".join(summary(name) for name in measured()) or NOT_YET


@block
def quality_tables() -> str:
    """docs/benchmarks.md: everything, with intervals, by capability."""
    from quality_report import report

    parts = [f"**{FILES[name].capitalize()}**\n\n{report(RESULTS / f'{name}.json')}" for name in measured()]
    return "\n\n".join(parts) or NOT_YET


def measured() -> list[str]:
    return [name for name in FILES if (RESULTS / f"{name}.json").exists()]


def summary(name: str) -> str:
    """Mean loss ± half of its 95 % interval by arm, and whether it is apart from random's."""
    from finetune import interval

    held: dict[str, dict[tuple[str, float], list[float]]] = {}
    for run in result(name)["runs"].values():
        if run["budget"]:
            held.setdefault(run["arm"], {}).setdefault((run["set"], run["budget"]), []).append(run["log_ppl"])
    columns = list(dict.fromkeys(key for by in held.values() for key in by))
    halves = {arm: {key: interval(values) for key, values in by.items()} for arm, by in held.items()}

    def cell(arm: str, key: tuple[str, float]) -> str:
        values = held[arm].get(key)
        if values is None:
            return ""
        half = halves[arm][key]
        told = f"{fmean(values):.3f}" + ("" if isnan(half) else f" ± {half:.3f}")
        base = held.get("random", {}).get(key)
        if base is None or arm == "random":
            return told
        apart = abs(fmean(values) - fmean(base)) > half + halves["random"][key]  # False where one is NaN
        return f"**{told}**" if apart and fmean(values) < fmean(base) else told

    def place(arm: str) -> tuple[bool, float]:
        mean = held[arm].get(columns[0])
        return mean is None, fmean(mean) if mean else 0.0

    settings: dict[str, Any] = result(name)["settings"]
    return "\n\n".join(
        [
            f"{settings['model']}, LoRA, {FILES[name]}; loss on clean held-out rows in nats a token, mean over "
            "capabilities, ± half of the 95 % interval over seeds. All arms have as many supervised tokens and "
            "optimiser steps. **Bold**: below random, and the intervals lie apart ([all](docs/benchmarks.md)).",
            table(
                ["", *(f"{kind}, {percent(budget)}" for kind, budget in columns)],
                ([arm, *(cell(arm, key) for key in columns)] for arm in sorted(held, key=place)),
            ),
        ]
    )
