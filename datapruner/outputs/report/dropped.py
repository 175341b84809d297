"""What was dropped before any score was looked at, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datapruner.cleaning.steps.no_supervised_tokens import NO_TOKENS
from datapruner.outputs.wording import be, counted, listed, upper
from datapruner.reasons import NO_TOKENS_LEFT

if TYPE_CHECKING:
    from datapruner.results.scored import Scored
    from datapruner.results.selected import Selected


def cleaning_words(scores: Scored) -> str:
    """Say what was dropped before any score was looked at, step by step."""
    reasons, found = scores.reasons_by_code, scores.summary.causes
    total = sum(len(vetoes) for vetoes in scores.vetoes)
    words = [
        counted(found[code], reason.one, reason.many) for code, reason in reasons.items() if found.get(code)
    ]
    if len(words) == 1:
        return f"Before that, {words[0]} {be(total)} dropped."
    if total:
        return f"Before that, {counted(total, 'row')} {be(total)} dropped: {listed(words)}."
    sought = [reason.many for reason in reasons.values()]
    return f"Cleaning looked for {listed(sought)} and found none." if sought else ""


def counted_words(scores: Scored) -> list[str]:
    """Say what was counted and not dropped."""
    found = [f"{words} ({count:,})" for words, count in scores.counted.items()]
    return [f"Counted, and not dropped: {listed(found)}."] if found else []


def tokenless_words(selection: Selected) -> list[str]:
    """Say how many rows a budget in tokens dropped for having none, and a selector for having lost them all."""
    found = [(reason, selection.counts().get(reason.code, 0)) for reason in (NO_TOKENS, NO_TOKENS_LEFT)]
    return [
        f"{upper(counted(count, reason.one, reason.many))} {be(count)} dropped: nothing in them is trained on."
        for reason, count in found
        if count
    ]


def forced_words(scores: Scored) -> list[str]:
    """Say how many rows had to be kept."""
    forced = int(scores.forced.sum())
    return [f"{counted(forced, 'row')} {be(forced)} on the always-keep list."] if forced else []
