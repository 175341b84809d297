"""What the rules share: a step that looks at one row after the other, and knows what is usual in the set."""

from __future__ import annotations

import logging
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.errors import in_words
from datapruner.reasons import Reason
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.arrays import Ints
    from datapruner.samples.sample import Sample

logger = logging.getLogger(__name__)

LOOKED_AT = 5000
"""Rows that are looked at for what is usual in the set."""
LONGEST = 20_000
"""Characters of an answer that are looked at, half of them at either end: what is wrong shows there."""
FENCE = re.compile(r"^[ \t]*(```|~~~)", re.MULTILINE)
CODE = re.compile(
    r"""^#!|[;{}][ \t]*$|^[ \t]*(?:def|class|import|from|return|function|const|let|var|\#include|SELECT|<\w+|\$\ )\b"""
    r"""|^[ \t]*(?:end|fi|done|else:?|//.*|\#\ .*)$|^[ \t]*\w+\s?=\s?["'\[({$\w]|^[ \t]*[\w.]+\([^()\n]*\)$""",
    re.MULTILINE,
)
"""Lines of programs; two of them make one."""

Hit = tuple[Reason, float]


@dataclass(frozen=True)
class Rule(CleaningStep):
    """A step that judges every row by its own texts, without a model."""

    @abstractmethod
    def hit(self, sample: Sample, usual: Any) -> Hit | None:
        """Say why a row is to be dropped and how strong the sign of it is; None where it is not.

        Parameters
        ----------
        sample : Sample
        usual : object
            What :meth:`usual` found.
        """

    def usual(self, samples: Sequence[Sample]) -> Any:
        """Find what is usual in the set.

        Parameters
        ----------
        samples : sequence of Sample
            Rows at random.
        """
        return None

    @property
    def reads_the_set(self) -> bool:
        """Whether it asks what is usual."""
        return type(self).usual is not Rule.usual

    def clean(self, left: Remaining) -> list[Vetoes]:
        """Drop the rows that the rule hits."""
        return apply([self], left)

    def tell(self, left: Remaining, found: Vetoes) -> None:
        """Say how many, with one to look at."""
        shown = left.samples.texts("response", found.rows[:1])[0]
        logger.warning(
            "%s of %s rows were %s, row %s first: %s%s",
            f"{len(found):,}",
            f"{len(left.rows):,}",
            found.reason.label,
            found.rows[0],
            safe_text(shown, 100),
            f"; {in_words(found.reason.way_out)}" if found.reason.way_out else "",
        )


def apply(rules: Sequence[Rule], left: Remaining) -> list[Vetoes]:
    """Let rules judge the rows, each row by the first that hits it; the rows are read once, and some twice."""
    if not left.samples.layout.has_text or not rules:
        return []
    usual: dict[str, Any] = {}
    if any(rule.reads_the_set for rule in rules):
        rows = some(left.rows, left.seed)
        read = list(left.samples.iter_samples(rows, identity=False))
        usual = {rule.name: rule.usual(read) for rule in rules}
    found: dict[str, tuple[Reason, list[int], list[float]]] = {}
    for row, sample in zip(
        left.free.tolist(), left.samples.iter_samples(left.free, identity=False), strict=True
    ):
        for rule in rules:
            hit = rule.hit(sample, usual.get(rule.name))
            if hit is not None:
                reason, measure = hit
                _, rows_of, measures = found.setdefault(reason.code, (reason, [], []))
                rows_of.append(row)
                measures.append(measure)
                break
    return [drops(reason, rows_of, measures=measures) for reason, rows_of, measures in found.values()]


def some(rows: Ints, seed: int) -> Ints:
    """Choose the rows that are looked at for what is usual, ascending."""
    if len(rows) <= LOOKED_AT:
        return rows
    chosen: Ints = np.sort(np.random.default_rng(seed).choice(rows, LOOKED_AT, replace=False))
    return chosen


def answers(sample: Sample) -> Iterator[str]:
    """Give what each turn that is trained on says: its content, without calls and thoughts; none that is empty."""
    for message in sample.messages:
        if message.role == "assistant" and message.trained and message.content.strip():
            yield shortened(message.content)


def system_of(sample: Sample) -> str:
    """Give what the system says, and what tools there are."""
    said = [message.content for message in sample.messages if message.role == "system"]
    return "\n".join([*said, str(sample.tools)] if sample.tools else said)


def exchanges(sample: Sample) -> Iterator[tuple[str, str]]:
    """Give each answer with what the user said before it."""
    asked: list[str] = []
    for message in sample.messages:
        if message.role in ("user", "tool"):
            asked.append(message.content)
        elif message.role == "assistant":
            if message.trained and message.content.strip():
                yield shortened("\n".join(asked)), shortened(message.content)
            asked = []


def shortened(text: str) -> str:
    """Leave the middle of a very long text out."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}\n{text[-LONGEST // 2 :]}"


def is_code(text: str) -> bool:
    """Whether a text looks like a program, or holds one."""
    return FENCE.search(text) is not None or text.startswith("#!") or len(CODE.findall(text)) >= 2


def without_code(text: str) -> str:
    """Leave out what stands between code fences, and inside back ticks."""
    parts = re.split(r"(?:```|~~~)", text)
    return re.sub(r"`[^`\n]*`", " ", " ".join(parts[::2]))
