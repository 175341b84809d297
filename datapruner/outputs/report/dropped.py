"""What was dropped before any score was looked at, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datapruner.outputs.wording import be, counted, listed, short_name, upper

if TYPE_CHECKING:
    from datapruner.results.scored import Scored
    from datapruner.results.selected import Selected

STEPS = {
    "exact_duplicate": ("exact duplicate", "exact duplicates"),
    "near_duplicate": ("near duplicate", "near duplicates"),
    "semantic_duplicate": ("semantic duplicate", "semantic duplicates"),
    "contaminated": ("row that leaks from the test set", "rows that leak from the test set"),
    "no_answer": ("row without an answer", "rows without an answer"),
    "no_supervised_tokens": ("row without supervised tokens", "rows without supervised tokens"),
    "never_keep": ("row on the never-keep list", "rows on the never-keep list"),
}


def cleaning_words(scores: Scored) -> str:
    """Say what was dropped before any score was looked at, step by step."""
    found: dict[str, int] = {}
    for vetoes in scores.vetoes:
        found[vetoes.kind] = found.get(vetoes.kind, 0) + len(vetoes)
    total = sum(found.values())
    words = [
        counted(count, *STEPS.get(kind, (short_name(kind), short_name(kind))))
        for kind, count in found.items()
        if count
    ]
    if len(words) == 1:
        return f"Before that, {words[0]} {be(total)} dropped."
    if total:
        return f"Before that, {counted(total, 'row')} {be(total)} dropped: {listed(words)}."
    sought = [STEPS[kind][1] for kind in found if kind in STEPS]
    return f"Cleaning looked for {listed(sought)} and found none." if sought else ""


def tokenless_words(selection: Selected) -> list[str]:
    """Say how many rows a budget in tokens dropped for having none."""
    count = selection.counts().get("no_supervised_tokens", 0)
    words = counted(count, *STEPS["no_supervised_tokens"])
    return [f"{upper(words)} {be(count)} dropped: nothing in them is trained on."] if count else []


def forced_words(scores: Scored) -> list[str]:
    """Say how many rows had to be kept."""
    forced = int(scores.forced.sum())
    return [f"{counted(forced, 'row')} {be(forced)} on the always-keep list."] if forced else []
