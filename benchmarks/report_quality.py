"""The blocks of the quality benchmark; see :mod:`report_blocks`. Its tables are those of :mod:`quality_report`."""

from __future__ import annotations

from statistics import fmean

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
    """A table a set: losses ± half of their 95 % interval by arm and budget, bold where random's are above."""
    found = result(name)
    sets: dict[str, dict[str, dict[str, list[float]]]] = {}
    for run in found["runs"].values():
        if not run["budget"]:
            continue
        tokens = found["sets"][run["set"]]["held_out_tokens"]
        by_token = sum(tokens[key] * loss for key, loss in run["by_capability"].items()) / sum(
            tokens.values()
        )
        kinds = {"a token": by_token} | (
            {"mean over capabilities": run["log_ppl"]} if len(tokens) > 1 else {}
        )
        for kind, loss in kinds.items():
            column = f"{percent(run['budget'])}: {kind}"
            sets.setdefault(run["set"], {}).setdefault(column, {}).setdefault(run["arm"], []).append(loss)
    return "\n\n".join(
        [
            f"{found['settings']['model']}, LoRA, {FILES[name]}: loss on clean held-out rows, nats, ± half of the 95 % "
            "interval over seeds, for budgets in supervised tokens. All arms have as many tokens and optimiser steps. "
            "**Bold**: below random, and the intervals lie apart ([all](docs/benchmarks.md)).",
            *(set_table(of, columns) for of, columns in sets.items()),
        ]
    )


def set_table(of: str, columns: dict[str, dict[str, list[float]]]) -> str:
    from quality_report import compared

    def cell(arm: str, losses: dict[str, list[float]]) -> str:
        if arm not in losses:
            return ""
        shown, against = compared(arm, losses)
        shown = shown.removesuffix(" =")
        return f"**{shown}**" if against.startswith("-") and against.endswith("*") else shown

    def place(arm: str) -> tuple[bool, float]:
        first = next(iter(columns.values())).get(arm)
        return first is None, fmean(first or [0.0])

    arms = sorted({arm for losses in columns.values() for arm in losses}, key=place)
    return table([of, *columns], ([arm, *(cell(arm, losses) for losses in columns.values())] for arm in arms))
