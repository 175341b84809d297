"""The grade that a causal language model gives a row."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from datapruner.ranking import Ranking
from datapruner.scorers._one_signal import Keep
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals
from datapruner.signals.grading import GRADES, Grading

GRADE_COLUMN = "grade"


@dataclass(frozen=True)
class Judge(Scorer):
    """Expected grade of a row: a judge, ``--judge``, reads a grading prompt about it and says one token.

    *Published* (DEITA, arXiv 2312.15685): the score is sum_g g p(g), p being the softmax over the grade tokens of the
    next-token prediction behind a grading prompt, grades 1 to 6; one score for the response's quality and one for the
    prompt's complexity, multiplied; both from models that were trained to grade. *Ours*: any causal language model,
    and prompts in plain words, ``quality`` and ``complexity``
    (:data:`datapruner.signals.grading.PROMPTS`), as a user's turn in the chat template where there is one. The
    published prompts may be given as texts, with the published models. One forward pass a row and no generation. It is
    told when nearly all rows get one grade, and when the judge gives other tokens than the grades most of the
    probability. Join two questions by ``combined``: one judge is loaded.

    Parameters
    ----------
    prompt : str
        ``quality``, ``complexity``, or a text with ``{row}`` (the turns with their roles), ``{prompt}`` (user and tool
        turns) or ``{response}`` (the answers) in it; the grade comes right behind its end.
    grades : list
        Each one token of the judge's there. Their numbers count, or 1, 2, 3, ... where one is no number: from the
        worst to the best.
    chat : bool
        The prompt is a user's turn in the judge's chat template, where it has one.
    keep : {"high", "low"}
        Which grades.
    """

    prompt: str = "quality"
    grades: list[str | int] = field(default_factory=lambda: list(GRADES))
    chat: bool = True
    keep: Keep = "high"
    name: ClassVar[str] = "judge"
    needs: ClassVar[frozenset[str]] = frozenset()
    holds: ClassVar[frozenset[str] | None] = frozenset({GRADE_COLUMN})
    paper: ClassVar[str] = "arXiv 2312.15685"
    provenance: ClassVar[str] = "expected grade published; prompts in plain words, any causal model, ours"

    def __post_init__(self) -> None:
        """Refuse a prompt without a place for the row, and grades that are none."""
        super().__post_init__()
        assert self.asked

    @cached_property
    def asked(self) -> Grading:
        """What the judge is asked."""
        return Grading.of(self.prompt, self.grades, self.chat)

    @property
    def requires(self) -> frozenset[str]:
        """The expected grade by that question."""
        return frozenset({self.asked.signal})

    def _score(self, signals: Signals) -> Ranking:
        grade = np.array(signals.column(self.asked.signal), dtype=np.float64)
        return Ranking(grade if self.keep == "high" else 0.0 - grade, columns={GRADE_COLUMN: grade})
