"""Which rows answer one prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from datapruner.signals.measurement import Given, Measurement
from datapruner.signals.run import Run

if TYPE_CHECKING:
    from datapruner.samples.sample import Sample


class Prompts(Measurement):
    """Everything before a row's last answer as a number; rows of equal numbers answer the same."""

    name: ClassVar[str] = "prompts"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            "prompt",
            "number of what comes before the row's last answer, the same for rows that answer the same",
            dtype="int64",
        ),
    )
    reads_text: ClassVar[bool] = True

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Count the prompts in the order in which they first come."""
        numbers: dict[str, int] = {}
        out = np.empty(len(run.rows), dtype=np.int64)
        for place, sample in enumerate(run.samples.iter_samples(run.rows, identity=False)):
            # A row without a prompt shares it with nobody.
            out[place] = numbers.setdefault(before_last_answer(sample) or f"row {place}", len(numbers))
        return {"prompt": out}

    def missing(self, run: Run, wanted: frozenset[str]) -> int:
        """Nothing is stored, and nothing costs much."""
        return 0


def before_last_answer(sample: Sample) -> str:
    """Give a text that rows share which have the same turns, tools and settings before their last trained answer.

    Empty where nothing comes before it: of a plain text, and where the assistant opens.
    """
    answers = [
        place for place, turn in enumerate(sample.messages) if turn.role == "assistant" and turn.trained
    ]
    before = sample.messages[: answers[-1]] if answers else sample.messages
    return "" if sample.plain or not before else replace(sample, messages=before, beside=()).key()
