"""Rows whose answer ends where a language model expects no end, beyond what chance gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datapruner.cleaning.beyond_chance import beyond_chance, check_rate
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.reasons import Reason

UNFINISHED = Reason(
    "unfinished_answer",
    "its end is {measure:.1f} nats less expected than its other words are; half of all rows have {usual} or less",
    "answer that ends where none does",
    "answers that end where none does",
    label="dropped for an answer that is not finished",
    way_out="lower fdr of unfinished_answer if these answers are whole",
)


@dataclass(frozen=True)
class UnfinishedAnswer(CleaningStep):
    """Rows whose answer ends where a language model expects no end: cut off, mostly.

    *Ours*, and measured in ``benchmarks/noise.md``. No share is dropped: some rows are read once more with their
    answers cut off, and as many rows go as end like these beyond what whole ones would; see
    :mod:`~datapruner.cleaning.beyond_chance`. It costs the pass over the rows that scorers of losses share, and 200
    rows more. A model that knows no end of a turn tells nothing, and nothing is dropped.

    Attributes
    ----------
    fdr : float
        False discovery rate: the highest share of good rows among those that are dropped, as estimated; above 0,
        below 1.
    """

    name = "unfinished_answer"
    reasons = (UNFINISHED,)
    needs = ("end_surprise", "cut_end_surprise")
    order = 59

    fdr: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a rate that is none."""
        super().__post_init__()
        check_rate(self.name, self.fdr)

    def clean(self, left: Remaining) -> Vetoes:
        """Compare the ends of the rows with those of answers that were cut off."""
        surprise, cut = (np.asarray(left.signals[name], dtype=np.float64) for name in self.needs)
        found = beyond_chance(-surprise, -cut[cut != 0], self.fdr).rows
        out = np.flatnonzero(found & ~left.protected[left.rows])
        usual = f"{float(np.median(surprise)):.1f}" if surprise.size else "none"
        return drops(UNFINISHED.filled(usual=usual), left.rows[out], measures=surprise[out])
