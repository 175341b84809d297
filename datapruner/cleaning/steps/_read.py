"""A row as the rules see it: read once, and what several of them ask of it worked out once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from datapruner.words import words_of

if TYPE_CHECKING:
    from datapruner.arrays import Ints
    from datapruner.cleaning.step import Remaining
    from datapruner.samples.sample import Sample

LONGEST = 20_000
"""Characters of an answer that are looked at, half of them at either end: what is wrong shows there."""
FENCE = re.compile(r"^[ \t]*(```|~~~(?=[\w \t]*$))", re.MULTILINE)
CODE = re.compile(
    r"""^#!|[;{}][ \t]*$|^[ \t]*(?:def|class|import|from|return|function|const|let|var|\#include|SELECT|<\w+|\$\ )\b"""
    r"""|^[ \t]*(?:end|fi|done|else:?|//.*|\#\ .*)$|^[ \t]*\w+\s?=\s?["'\[({$\w]|^[ \t]*[\w.]+\([^()\n]*\)$""",
    re.MULTILINE,
)
"""Lines of programs; two of them make one."""
VERSE = re.compile(
    r"poem|poet|vers[es]|haiku|lyric|song|rhym|limerick|sonnet|\brap\b|music|melod|chord|诗|歌", re.IGNORECASE
)
"""A prompt that asks for what has refrains, and lines that end anywhere."""


@dataclass(frozen=True)
class Answer:
    """What the assistant says in one turn that is trained on, and what the user and the tools said before it.

    Of very long texts the middle is left out.
    """

    asked: str
    text: str

    @cached_property
    def code(self) -> bool:
        """Whether it looks like a program, or holds one."""
        return is_code(self.text)

    @cached_property
    def words(self) -> list[str]:
        """Its words, see :func:`~datapruner.words.words_of`."""
        return words_of(self.text)


@dataclass(frozen=True)
class Read:
    """One row.

    Attributes
    ----------
    sample : Sample
    """

    sample: Sample

    @cached_property
    def answers(self) -> list[Answer]:
        """What each turn that is trained on says: its content, without calls and thoughts; none that is empty."""
        asked: list[str] = []
        found = []
        for message in self.sample.messages:
            if message.role in ("user", "tool"):
                asked.append(message.content)
            elif message.role == "assistant":
                if message.trained and message.content.strip():
                    found.append(Answer(shortened("\n".join(asked)), shortened(message.content)))
                asked = []
        return found

    @cached_property
    def last(self) -> Answer:
        """The last answer that is trained on, whole, without blanks at its end; empty where it ends in a call."""
        for message in reversed(self.sample.messages):
            if message.role == "assistant" and message.trained:
                text = "" if message.fields.get("tool_calls") else message.content.rstrip()
                known = self.answers[-1] if self.answers else None
                return known if known is not None and known.text == text else Answer("", text)
        return Answer("", "")

    @cached_property
    def prompt(self) -> str:
        """All that users and tools say."""
        return self.sample.part("prompt")

    @property
    def system(self) -> str:
        """What the system says, and what tools there are."""
        said = [message.content for message in self.sample.messages if message.role == "system"]
        return "\n".join([*said, str(self.sample.tools)] if self.sample.tools else said)


def rows_read(left: Remaining, rows: Ints, known: dict[int, Read]) -> Iterator[tuple[int, Read]]:
    """Read rows, but for those that are known."""
    new = rows[~np.isin(rows, list(known))] if known else rows
    samples = left.samples.iter_samples(new, identity=False)
    for row in rows.tolist():
        yield row, known.pop(row) if row in known else Read(next(samples))


def shortened(text: str) -> str:
    """Leave the middle of a very long text out."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}\n{text[-LONGEST // 2 :]}"


def is_code(text: str) -> bool:
    """Whether a text looks like a program, or holds one."""
    if ("```" in text or "~~~" in text) and FENCE.search(text) is not None:
        return True
    lines = CODE.finditer(text)
    return text.startswith("#!") or (next(lines, None) is not None and next(lines, None) is not None)


def without_code(text: str) -> str:
    """Leave out what stands between code fences, and inside back ticks."""
    if "`" not in text and "~~~" not in text:
        return text
    parts = re.split(r"(?:```|~~~)", text)
    return re.sub(r"`[^`\n]*`", " ", " ".join(parts[::2]))
