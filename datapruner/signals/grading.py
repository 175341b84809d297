"""A grading prompt and its grades: what a judge is asked of every row.

They travel in the name of the signal, so that two scorers of one run may ask one judge two questions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    from datapruner.samples.sample import Sample

GRADE = "grade:"
"""Begins the signal's name; the rest is JSON."""
PROMPTS: Mapping[str, str] = {
    "quality": (
        "Below is a conversation that a language model may be trained on. Grade its answers from 1 to 6: 1 is wrong, "
        "empty or beside the question; 3 is right in part, or hard to follow; 6 is right, complete and clear.\n\n"
        "--- conversation ---\n{row}\n--- end of the conversation ---\n\n"
        "The grade of the answers, from 1 to 6, as one digit: "
    ),
    "complexity": (
        "Below is a request to a language model. Grade how much it demands, from 1 to 6: 1 can be answered without "
        "thinking; 3 takes a few steps or some knowledge; 6 takes long reasoning, expert knowledge or many "
        "conditions at once.\n\n"
        "--- request ---\n{prompt}\n--- end of the request ---\n\n"
        "The grade of what the request demands, from 1 to 6, as one digit: "
    ),
}
"""Documented prompts by name; ours."""
GRADES = ("1", "2", "3", "4", "5", "6")
PLACE = re.compile(r"\{(row|prompt|response)\}")


@dataclass(frozen=True)
class Grading:
    """What a judge is asked.

    Attributes
    ----------
    prompt : str
        A text with ``{row}`` (the turns with their roles), ``{prompt}`` (user and tool turns) or ``{response}`` (the
        answers) in it.
    grades : tuple of str
        Each one token of the judge's, right after the prompt; from the worst to the best where they are no numbers.
    chat : bool
        The prompt is a user's turn in the tokenizer's chat template, where it has one.
    """

    prompt: str
    grades: tuple[str, ...] = GRADES
    chat: bool = True

    @classmethod
    def of(cls, prompt: str, grades: Sequence[str | int], chat: bool) -> Grading:
        """Take a documented prompt's name, or a text.

        Raises
        ------
        DataPrunerError
            The text has no place for the row, or the grades are fewer than two, or not different.
        """
        text = PROMPTS.get(prompt, prompt)
        if PLACE.search(text) is None:
            near = did_you_mean(prompt, PROMPTS)
            raise DataPrunerError(
                f"judge: the prompt '{safe_text(prompt, 60)}' has no place for the row; write {{row}}, {{prompt}} or "
                f"{{response}} into it, or name one of {', '.join(PROMPTS)}.{near}"
            )
        named = tuple(map(str, grades))
        if len(named) < 2 or len(set(named)) < len(named) or "" in named:
            raise DataPrunerError("judge: grades are two or more different texts, such as 1, 2, 3, 4, 5, 6")
        return cls(text, named, chat)

    @property
    def signal(self) -> str:
        """The name of the signal."""
        return GRADE + json.dumps([self.prompt, list(self.grades), self.chat], ensure_ascii=False)

    @classmethod
    def from_signal(cls, signal: str) -> Grading:
        """Read it off a signal's name."""
        prompt, grades, chat = json.loads(signal.removeprefix(GRADE))
        return cls(prompt, tuple(grades), chat)

    def filled(self, sample: Sample | None) -> str:
        """Write a row into the prompt; nothing, of None."""

        def part(found: re.Match[str]) -> str:
            if sample is None:
                return ""
            if found[1] == "row":
                return _laid_out(sample)
            return sample.part("prompt" if found[1] == "prompt" else "response")

        return PLACE.sub(part, self.prompt)

    @property
    def values(self) -> NDArray[np.float64]:
        """What each grade counts: its number, or 1, 2, 3, ... where one is none."""
        try:
            return np.array([float(grade) for grade in self.grades])
        except ValueError:
            return np.arange(1.0, len(self.grades) + 1)

    def expected(self, log_probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
        """Give the expected grade of each row, under the probabilities of the grades alone; shape (n,)."""
        held = log_probabilities.astype(np.float64)
        shares = np.exp(held - held.max(axis=1, keepdims=True))
        return np.asarray((shares @ self.values) / shares.sum(axis=1))


def _laid_out(sample: Sample) -> str:
    """Lay a row's turns out with their roles; a plain text as it is."""
    if sample.plain:
        return sample.part("both")
    return "\n\n".join(f"{message.role.capitalize()}:\n{message.text}" for message in sample.messages)
