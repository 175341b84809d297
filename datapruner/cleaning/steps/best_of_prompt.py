"""Answers to a prompt that the language model finds less probable than others to the same (GRAPE)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.ranks import places_in_groups
from datapruner.reasons import Reason
from datapruner.signals.answer_loss import check_window, loss_signal

WORSE = Reason(
    "worse_answer",
    "the language model finds row {other}, another answer to the same prompt, more probable, and this one by "
    "{measure:.3g} nats a token less so",
    "worse answer to a prompt",
    "worse answers to a prompt",
    label="dropped for better answers to their prompts",
    way_out="raise m of best_of_prompt",
)


@dataclass(frozen=True)
class BestOfPrompt(CleaningStep):
    """All answers to a prompt but the most probable ones: GRAPE (arXiv 2502.04194), without a budget.

    What a prompt is, and how probable an answer, is said in
    :class:`datapruner.scorers.best_of_prompt.BestOfPrompt`; it reads ``--model``. A row that is always kept is among
    those that stay, before any other.

    Attributes
    ----------
    m : int
        So many answers to each prompt stay.
    window : int, optional
        As of the scorer: answers are read in steps of so many tokens.
    """

    name = "best_of_prompt"
    reasons = (WORSE,)
    needs = ("prompt", "answer_log_ppl")
    order = 70

    m: int = 1
    window: int | None = None

    def __post_init__(self) -> None:
        """Refuse no answer a prompt."""
        super().__post_init__()
        if self.m < 1:
            raise DataPrunerError(
                f"best_of_prompt: m is a number of answers a prompt, 1 or more, not {self.m}"
            )
        check_window(self.window)
        # What it reads depends on its parameters.
        object.__setattr__(self, "needs", ("prompt", loss_signal(self.window)))

    def clean(self, left: Remaining) -> Vetoes:
        """Keep the best of every prompt."""
        prompt, loss = (np.asarray(left.signals[name]) for name in self.needs)
        protected = left.protected[left.rows]
        place = places_in_groups(np.where(protected, np.inf, -loss), prompt)
        best = np.empty(int(prompt.max(initial=-1)) + 1, dtype=np.int64)
        best[prompt[place == 0]] = np.flatnonzero(place == 0)
        out = np.flatnonzero((place >= self.m) & ~protected)
        others = best[prompt[out]]
        return Vetoes(WORSE, left.rows[out], left.rows[others], loss[out] - loss[others])
