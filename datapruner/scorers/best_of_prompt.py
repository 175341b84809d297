"""Of several answers to one prompt, those that the model finds most probable (GRAPE, arXiv 2502.04194)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.ranks import average_ranks, places_in_groups
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals
from datapruner.signals.answer_loss import check_window, loss_signal


@dataclass(frozen=True)
class BestOfPrompt(Scorer):
    """The ``m`` most probable answers of each prompt first, then the next ``m`` of each, and so on.

    *Published* (GRAPE): of several answers to one prompt argmax_y mean_t log p(y_t | x, y_<t) under the model that will
    be trained, over the answer's tokens. *Ours*: rows share a prompt that have the same turns, tools and settings
    before their last answer, whose tokens alone count; a row whose prompt no other has is the best of its own; of
    equal answers the earlier row is the better; inside of each ``m`` the more probable come first, whatever their
    prompt, so that any budget may be spent: as many rows as there are prompts keep one of each. To keep the best of
    each prompt, however many there are, take the cleaning step of the same name. A row whose last answer was cut away
    at ``--max-length`` comes behind all that were read.

    With ``window`` the answer is read in steps of so many tokens, each behind as many alone, and the steps' mean losses
    are averaged: *published* (Local Naturalness, arXiv 2510.03988) for long answers of several teachers, on which the
    mean over the whole answer was found to say little. It costs a pass of its own.

    Parameters
    ----------
    m : int
        Answers a prompt.
    window : int, optional
        Tokens of a step, and of what is read before it; 2 or more.
    """

    m: int = 1
    window: int | None = None
    name: ClassVar[str] = "best_of_prompt"
    needs: ClassVar[frozenset[str]] = frozenset({"prompt", "answer_log_ppl"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"answer_log_ppl", "prompt", "place_in_prompt"})
    paper: ClassVar[str] = "arXiv 2502.04194, 2510.03988"
    provenance: ClassVar[str] = "argmax of the mean log-probability published; order of the rest ours"

    def __post_init__(self) -> None:
        """Refuse no answer a prompt."""
        super().__post_init__()
        if self.m < 1:
            raise DataPrunerError(
                f"best_of_prompt: m is a number of answers a prompt, 1 or more, not {self.m}"
            )
        check_window(self.window)

    @property
    def requires(self) -> frozenset[str]:
        """The prompts' numbers, and the loss of the answers."""
        return frozenset({"prompt", loss_signal(self.window)})

    @property
    def promises(self) -> frozenset[str]:
        """Nothing more: of equal answers to one prompt the earlier row is the better."""
        return frozenset()

    def _score(self, signals: Signals) -> Ranking:
        loss = np.array(signals.column(loss_signal(self.window)), dtype=np.float64)
        prompt = np.asarray(signals.column("prompt"), dtype=np.int64)
        place = places_in_groups(-loss, prompt)
        # Ranks lie in (0, 1), and so never reach into the answers before.
        values = average_ranks(-loss) / (len(loss) + 1) - place // self.m
        columns = {"answer_log_ppl": loss, "prompt": prompt, "place_in_prompt": place}
        return Ranking(values.astype(np.float64), columns=columns)
