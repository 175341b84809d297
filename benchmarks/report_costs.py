"""The blocks of docs/scaling.md: what a stage costs, how well that was predicted, and what a plan comes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from report_blocks import GIB, MIB, block, result, table

ROWS, TOKENS = 100_000_000, 150
"""The plan's rows, and what a model reads of one."""
GPUS, FLOPS = 8, 100e12
"""An assumption, since nothing was measured on a GPU: what one of them sustains, operations a second."""
PARAMETERS = {"embedding": ("MiniLM, 22M", 22e6), "losses": ("a model of 7B", 7e9)}
HOUR = 3600


def _stages() -> Mapping[str, Any]:
    stages: Mapping[str, Any] = result("costs")["stages"]
    return stages


@block
def costs() -> str:
    """Each stage's model, and the size that it was held against."""
    rows = []
    for name, of in _stages().items():
        time, memory = of["cpu_seconds"], of["peak_mib"]
        largest = of["runs"][-1]
        rows.append(
            (
                f"{name} (`{of['command'].split()[0]}`)",
                f"{time['fixed']:.1f} s + {1e6 * time['each']:,.0f} s a million {of['unit']}s",
                f"{memory['fixed'] / 1024:.2f} GiB + {memory['each'] * 1e6 / 1024:.2f} GiB a million {of['unit']}s",
                f"{largest['rows']:,} rows",
                f"{time['predicted']:.0f} / {time['measured']:.0f} s ({time['error']:+.0%})",
                f"{memory['predicted'] / 1024:.2f} / {memory['measured'] / 1024:.2f} GiB ({memory['error']:+.0%})",
            )
        )
    return table(
        (
            "stage",
            "CPU seconds",
            "peak memory",
            "held against",
            "seconds told / taken",
            "memory told / taken",
        ),
        rows,
    )


ASKED = {"text": 10_000_000, "vectors": 50_000_000}
"""Rows that runs are drawn on to."""
KINDS = {
    "text": "near duplicates of texts, clusters of given vectors, a report",
    "vectors": "clusters of given vectors",
}


@block
def flat() -> str:
    """Runs of growing size in one process each, and what the two largest of a kind come to at more rows."""
    runs = result("flat")["runs"]
    rows = [
        (
            KINDS[run["kind"]],
            f"{run['rows']:,}",
            f"{run['source_gib'] * GIB / run['rows']:,.0f} + {run['dim']} × {run['dtype']}",
            f"{run['cpu_seconds']:,.0f} s ({1e6 * run['cpu_seconds'] / run['rows']:,.0f} s)",
            f"{run['peak_gib']:.2f} GiB ({run['peak_own_gib']:.2f}, {run['peak_mapped_gib']:.2f})",
            f"{run['found']:,} / {run['planted']:,}" if "found" in run else "-",
        )
        for run in runs
    ]
    head = (
        "run",
        "rows",
        "bytes and vector a row",
        "CPU seconds (a million rows)",
        "peak memory (own, mapped)",
        "copies",
    )
    told = table(head, rows)
    drawn = []
    for kind, rows_asked in ASKED.items():
        *_, first, last = [run for run in runs if run["kind"] == kind]
        if last["rows"] < rows_asked:
            left = (rows_asked - last["rows"]) / (last["rows"] - first["rows"])
            memory, time = (
                last[name] + left * (last[name] - first[name]) for name in ("peak_gib", "cpu_seconds")
            )
            what = "with texts" if kind == "text" else "of vectors alone"
            drawn.append(
                f"Drawn on from the two largest {what}, {rows_asked:,} rows take {memory:.1f} GiB and "
                f"{time / 60:.0f} minutes of one core; that was not measured."
            )
    return "\n\n".join([told, " ".join(drawn)] if drawn else [told])


def _drawn_on(of: Mapping[str, Any], name: str, units: float) -> float:
    """What so many units take, by a line through all sizes; those that the table's was held against count, too."""
    each = np.polyfit([run["units"] for run in of["runs"]], [run[name] for run in of["runs"]], 1)[0]
    return float(max(each, 0) * units)


@block
def scaling_plan() -> str:
    """100M rows: what each stage takes, and what a GPU would make of those with a model."""
    rows = []
    for name, of in _stages().items():
        units = ROWS * (1 if of["unit"] == "row" else TOKENS)
        hours = _drawn_on(of, "cpu_seconds", units) / HOUR
        memory = f"{_drawn_on(of, 'peak_mib', units) * MIB / GIB:,.0f} GiB"
        told = f"{hours:,.1f} core hours"
        if name in PARAMETERS:
            model, parameters = PARAMETERS[name]
            operations = 2 * parameters * ROWS * TOKENS
            on_gpus = operations / FLOPS / GPUS / HOUR
            memory = "the model's, and a batch's"
            told += f"; {model} on {GPUS} GPUs: {on_gpus:,.1f} hours"
        rows.append((name, told, memory))
    return table(("stage", "time", "memory of the process"), rows)
