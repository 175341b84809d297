"""The blocks of `aimed.py`: rows chosen for a target against a random draw; see :mod:`report_blocks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report_blocks import block, result, table
from report_worth import marked

CALLED = {
    "oracle": "oracle",
    "stratified": "stratified",
    "feature_mapping": "feature_mapping",
    "nearest_target, embedding": "embedding",
    "nearest_target, state": "state (RDS+)",
    "nearest_target, sketch": "sketch",
    "nearest_target, gradient": "gradient",
    "nearest_target, LESS": "LESS",
}
"""Arm -> heading, in the order of the columns."""


@block
def aimed() -> str:
    """docs/benchmarks.md: one line a target, one column an arm."""
    tables = result("aimed")["tables"]
    arms = [arm for arm in CALLED if any(arm in of["arms"] for of in tables)]
    return table(
        ["target", "random", *(CALLED[arm] for arm in arms)],
        [
            [of["target"], f"{of['random']:.3f}", *(cell(arm, of["arms"].get(arm)) for arm in arms)]
            for of in tables
        ],
    )


@block
def aimed_counts() -> str:
    """docs/choose.md: on how many targets each way is better than random, and the oracle's equal."""
    tables = [of for of in result("aimed")["tables"] if of["target"] != "long math"]
    rows = []
    for arm, called in CALLED.items():
        found = [of["arms"][arm] for of in tables if arm in of["arms"]]
        if not found or arm == "oracle":
            continue
        beside = [one for one in found if one["against_oracle"] is not None]
        rows.append(
            [
                called,
                f"{sum(one['difference'] < 0 for one in found)} of {len(found)}",
                f"{sum(-one['difference'] > one['half'] for one in found)}",
                f"{sum(as_good(one) for one in beside)} of {len(beside)}",
            ]
        )
    return table(["by", "better than random", "outside the interval", "not told apart from the oracle"], rows)


@block
def layers() -> str:
    """docs/benchmarks.md: which sketch ranks better."""
    targets = result("layers")["targets"]
    arms = list(dict.fromkeys(arm for of in targets.values() for arm in of["arms"]))
    pairs = list(dict.fromkeys(pair for of in targets.values() for pair in of["against each other"]))
    return table(
        ["target", *arms, *(pair.replace(" - ", " against ") for pair in pairs)],
        [
            [
                name,
                *(gap(of["arms"].get(arm)) for arm in arms),
                *(gap(of["against each other"].get(pair)) for pair in pairs),
            ]
            for name, of in targets.items()
        ],
    )


def gap(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    seen = "**" if abs(one["mean"]) > one["half"] else ""
    return f"{seen}{one['mean']:+.4f}{seen} ± {one['half']:.4f}"


@block
def excess() -> str:
    """docs/token_pruning.md: what tokens of high excess loss are worth."""
    found = result("excess_loss")
    return table(
        ["trained on", "supervised tokens", "loss", "each"],
        [
            [
                arm,
                f"{found['tokens_in_the_loss'][arm]:,}" if arm in found["tokens_in_the_loss"] else "",
                f"{one['loss']:.4f}",
                ", ".join(f"{value:.4f}" for value in one["seeds"]) if len(one["seeds"]) > 1 else "",
            ]
            for arm, one in found["arms"].items()
        ],
    )


def cell(arm: str, one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ""
    equal = " =" if arm != "oracle" and as_good(one) else ""
    return f"{marked(one)} ± {one['half']:.3f} ({one['of_the_target']:.0%}){equal}"


def as_good(one: Mapping[str, Any]) -> bool:
    """Whether it is not told apart from the oracle, or better."""
    beside = one["against_oracle"]
    return beside is not None and bool(beside["difference"] <= beside["half"])
