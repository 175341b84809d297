"""The blocks of the quality benchmark; see :mod:`report_blocks`. Its tables are those of :mod:`quality_report`."""

from __future__ import annotations

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
    """docs/benchmarks.md: the loss after training on what each arm keeps, one column a set and budget."""
    return "\n\n".join(summary(name) for name in measured()) or NOT_YET


def measured() -> list[str]:
    return [name for name in FILES if (RESULTS / f"{name}.json").exists()]


def summary(name: str) -> str:
    """One table of all arms: what scoring takes, and what the kept rows are worth against random ones."""
    from quality_report import apart, difference

    found = result(name)
    columns = losses_by_column(found)
    first = next(iter(columns.values()))[0]
    sets = found["sets"]
    costs = {
        arm: cost for of in reversed(list(sets.values())) for arm, cost in of["costs"].items()
    }  # of the first

    def cell(arm: str, kinds: list[dict[str, list[float]]]) -> str:
        return " / ".join(one(arm, losses) for losses in kinds if arm in losses)

    def one(arm: str, losses: dict[str, list[float]]) -> str:
        if arm == "random":
            return f"{fmean(losses[arm]):.3f}"
        gap = difference(losses[arm], losses["random"])[0]
        mark = ("**" if gap < 0 else "*") * apart(losses[arm], losses["random"])
        return f"{mark}{gap:+.3f}{mark}"

    def place(arm: str) -> tuple[bool, float]:
        return arm not in first, fmean(first.get(arm, [0.0]))

    arms = sorted({arm for kinds in columns.values() for losses in kinds for arm in losses}, key=place)
    held = " or ".join(dict.fromkeys(f"{sum(of['held_out'].values()):,}" for of in sets.values()))
    rows = ", ".join(f"{of} {sets[of]['rows']:,}" for of in dict.fromkeys(of for of, _ in columns))
    return "\n\n".join(
        [
            f"**What training on the kept rows is worth, and what choosing them costs.** {found['settings']['model']}, "
            f"LoRA, {FILES[name]} ({rows}), budgets in supervised tokens, equal optimiser steps where rows suffice. "
            f"Loss on {held} clean held-out rows in nats: capabilities weighted by their tokens / equally; under "
            "`random` its own, else the difference from it. The 95 % intervals over seeds lie apart where it is "
            "**lower** or *higher* in this type; they are of seeds, not of other rows. Scoring: all rows, models "
            "loaded, one thread. "
            "[Which scorer, when](docs/choose.md).",
            table(
                ["", "scoring, s", "peak, MiB", *(f"{of}, {percent(share)}" for of, share in columns)],
                (
                    [
                        arm,
                        *(
                            f"{costs[arm][key]:,.0f}" if arm in costs else ""
                            for key in ("seconds", "peak_mib")
                        ),
                        *(cell(arm, kinds) for kinds in columns.values()),
                    ]
                    for arm in arms
                ),
            ),
        ]
    )


Column = tuple[str, float]


def losses_by_column(found: dict[str, Any]) -> dict[Column, list[dict[str, list[float]]]]:
    """By set and budget: by tokens, and as the mean over capabilities where there are several; arm -> a loss a seed."""
    from quality_report import token_loss

    columns: dict[Column, list[dict[str, list[float]]]] = {}
    for of in found["sets"]:
        runs = [run for run in found["runs"].values() if run["set"] == of and run["budget"]]
        tokens = found["sets"][of]["held_out_tokens"]
        for share in sorted({run["budget"] for run in runs}, reverse=True):
            kinds: list[dict[str, list[float]]] = [{} for _ in range(1 + (len(tokens) > 1))]
            for run in runs:
                if run["budget"] != share:
                    continue
                for losses, loss in zip(kinds, (token_loss(run, tokens), run["log_ppl"]), strict=False):
                    losses.setdefault(run["arm"], []).append(loss)
            columns[of, share] = kinds
    return columns
