"""The blocks of `worth.py`: what the kept rows are worth against a random draw; see :mod:`report_blocks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from report_blocks import RESULTS, block, percent, result, table
from worth_arms import ARMS

FILES = {"worth": "Two cores, the last layer learns", "worth-whole": "One GPU, the whole model learns"}
FIRST = ("oracle", "stratified", "clean part", "full")


@block
def worth_default() -> str:
    """README: what the default recipe's rows are worth against as many random tokens."""
    rows = []
    for of in with_arms("worth"):
        one = of["arms"].get("auto")
        if one is None:
            continue
        kinds = kinds_of(of)
        needs = [one[kind]["random_needs"] for kind in kinds]
        rows.append(
            [
                of["set"],
                percent(of["budget"]),
                *(
                    f"{marked(one[kind])} ± {one[kind]['half']:.3f}" if kind in kinds else ""
                    for kind in ("token", "capability")
                ),
                " / ".join(
                    f"{one[kind]['gap_closed']:.0%}" for kind in kinds if one[kind]["gap_closed"] is not None
                ),
                " / ".join("more" if share is None else f"{share:.0%}" for share in needs)
                if any(needs)
                else "",
            ]
        )
    head = [
        "set",
        "budget",
        "loss against random, nats a token",
        "as the mean over capabilities",
        "of the way to the oracle",
        "random needs",
    ]
    return "\n\n".join([table(head, rows), _of_all_rows()])


def _of_all_rows() -> str:
    """Say what the whole set is worth beside the larger budget."""
    by = {(of["set"], of["budget"]): of for of in result("worth")["tables"]}
    said = []
    for name in dict.fromkeys(name for name, budget in by if budget == 1):
        part, whole = by[name, 0.3]["random"]["token"], by[name, 1]["random"]["token"]
        default = part + by[name, 0.3]["arms"]["auto"]["token"]["difference"]
        said.append(
            f"{name} {whole:.3f} nats a token (30 % by the default {default:.3f}, at random {part:.3f})"
        )
    return (
        "Training on every row, as it is, takes more than three times the steps of 30 % and loses less still: "
        f"{', '.join(said)}. A budget saves training; it did not beat having none."
    )


@block
def worth() -> str:
    """docs/benchmarks.md: one line an arm, one column a set and budget, by tokens and by capability."""
    tables = [
        {**of, "arms": {arm: one for arm, one in of["arms"].items() if not is_alternative(arm)}}
        for of in with_arms("worth")
    ]
    costs = result("worth")["costs"]["messy"]
    return table(
        ["", "CPU s", "MiB", *(f"{of['set']}, {percent(of['budget'])}" for of in tables)],
        [
            [
                "random, its loss",
                "",
                "",
                *(" / ".join(f"{loss:.3f}" for loss in levels(of)) for of in tables),
            ],
            *([arm, *cost(costs.get(arm)), *(cell(of, arm) for of in tables)] for arm in ordered(tables)),
        ],
    )


@block
def worth_commands() -> str:
    """docs/benchmarks.md: what `datapruner prune` is given for each arm that the library chooses."""
    tables = with_arms("worth")
    return table(
        ["arm", "`datapruner prune messy.jsonl --keep-tokens N -o pruned`, and"],
        [
            [arm, f"`{words(ARMS[arm])}`" if ARMS[arm] else "nothing more"]
            for arm in ordered(tables)
            if arm in ARMS
        ],
    )


def words(given: Mapping[str, Any]) -> str:
    """Write on the command line what Python's `prune` is given, but for the precision."""
    said = [f"--scorer {given['scorer']}"] if "scorer" in given else []
    said += [f"--set {name}={str(value).lower()}" for name, value in given.get("parameters", {}).items()]
    said += [f"--without {part}" for part in given.get("without", ())]
    said += [
        f"--{name.replace('_', '-')} {given[name]}" for name in ("model", "pruned_model") if name in given
    ]
    return " ".join(said)


@block
def worth_tables() -> str:
    """docs/benchmarks.md: all arms with intervals, and how small a difference is seen."""
    parts = [
        f"**{title}**\n\n{long(name)}" for name, title in FILES.items() if (RESULTS / f"{name}.json").exists()
    ]
    return "\n\n".join(parts)


@block
def worth_choices() -> str:
    """docs/methods.md: the default beside what it was chosen from, on runs that all of them share where there are."""
    tables = {(of["set"], of["budget"]): of for of in result("worth")["tables"]}
    shown = [("messy", 0.1), ("messy", 0.3), ("clean", 0.1), ("clean", 0.3)]
    arms = [arm for arm in ordered(list(tables.values())) if arm == "auto" or is_alternative(arm)]
    return table(
        ["groups, power", *(f"{name}, {percent(budget)}" for name, budget in shown)],
        [
            [
                "**prompts, power 0**" if arm == "auto" else arm,
                *(cell(tables[of], arm) + runs_of(tables[of], arm) for of in shown),
            ]
            for arm in arms
        ],
    )


def cost(of: Mapping[str, float] | None) -> list[str]:
    return ["", ""] if of is None else [f"{of['cpu_seconds']:.1f}", f"{of['peak_mib']:.0f}"]


def is_alternative(arm: str) -> bool:
    return "power" in arm and not arm.startswith("shares")


def runs_of(of: Mapping[str, Any], arm: str) -> str:
    return f" ({of['arms'][arm]['token']['runs']} runs)" if arm in of["arms"] else ""


def ordered(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """The yardsticks, then the others from the best to the worst on the first set."""
    arms = dict.fromkeys(arm for of in tables for arm in of["arms"])
    first = tables[0]["arms"]

    def place(arm: str) -> tuple[bool, int, float]:
        fixed = FIRST.index(arm) if arm in FIRST else len(FIRST)
        return arm not in first, fixed, first[arm]["token"]["difference"] if arm in first else 0.0

    return sorted(arms, key=place)


def cell(of: Mapping[str, Any], arm: str) -> str:
    """Differences from random by tokens and by capability: **lower**, *higher* than random beyond the interval."""
    if arm not in of["arms"]:
        return ""
    return " / ".join(marked(of["arms"][arm][kind]) for kind in kinds_of(of))


def marked(one: Mapping[str, Any]) -> str:
    mark = ("**" if one["difference"] < 0 else "*") * (one["half"] < abs(one["difference"]))
    return f"{mark}{one['difference']:+.3f}{mark}"


def kinds_of(of: Mapping[str, Any]) -> list[str]:
    """By tokens, and as the mean over capabilities where there are several."""
    return ["token", "capability"] if of["capabilities"] > 1 else ["token"]


def levels(of: Mapping[str, Any]) -> list[float]:
    return [of["random"][kind] for kind in kinds_of(of)]


def with_arms(name: str) -> list[Mapping[str, Any]]:
    """The tables of sets and budgets at which more than random was run, in the pages' order."""
    sets = ["messy", "clean", "single"]
    tables = [of for of in result(name)["tables"] if of["arms"]]
    return sorted(tables, key=lambda of: (sets.index(of["set"]), of["budget"]))


def long(name: str) -> str:
    parts = []
    for of in with_arms(name):
        for kind, loss in zip(kinds_of(of), levels(of), strict=True):
            arms = sorted(of["arms"], key=lambda arm: of["arms"][arm][kind]["difference"])
            parts.append(
                f"*{of['set']}, {percent(of['budget'])} of the supervised tokens, by {kind}*: random {loss:.4f}, "
                f"{of['runs']} runs\n\n"
                + table(
                    ["arm", "against random", "runs", "Holm", "of the gap", "random needs", "seen from"],
                    [line_of(arm, of["arms"][arm][kind]) for arm in arms],
                )
            )
    return "\n\n".join(parts)


def line_of(arm: str, one: Mapping[str, Any]) -> list[str]:
    return [
        arm,
        f"{one['difference']:+.4f} ± {one['half']:.4f}",
        str(one["runs"]),
        f"{one['holm']:.3f}",
        "" if one["gap_closed"] is None else f"{one['gap_closed']:.0%}",
        "" if one["random_needs"] is None else f"{one['random_needs']:.0%}",
        f"{one['seen_from']:.4f}",
    ]
