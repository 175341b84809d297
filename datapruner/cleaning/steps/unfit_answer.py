"""Rows whose answer is noise beyond what chance gives: by vectors, words and their order, without a language model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datapruner.arrays import Flags, Floats, Ints
from datapruner.cleaning.answer_fit import answer_fit, rising
from datapruner.cleaning.beyond_chance import FEWEST, beyond_chance, check_rate, told_apart
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.stray_numbers import ends
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.cleaning.word_order import RISING, features, word_orders
from datapruner.reasons import Reason
from datapruner.signals.run import taken

MISMATCHED = Reason(
    "mismatched_answer",
    "its answer fits {measure:.0%} of the prompts of like rows as well as its own or better, by vectors and words; "
    "half of all rows have {usual} or less",
    "row with another prompt's answer",
    "rows with another prompt's answer",
    label="dropped for an answer that does not fit its prompt",
    way_out="lower fdr of unfit_answer if these answers fit",
)
SHUFFLED = Reason(
    "shuffled_answer",
    "the order of its answer's words is {measure:.1f} standard deviations more usual than the same words shuffled; "
    "half of all rows have {usual} or more",
    "row with shuffled words",
    "rows with shuffled words",
    label="dropped for an answer in no order",
    way_out="lower fdr of unfit_answer if these answers are in order",
)
STRAY = Reason(
    "stray_number",
    "its answer ends in {measure:.12g}, which neither its prompt nor any of its computations gives; {told} other rows "
    "that compute end in a number that was there before",
    "row that ends in a number from nowhere",
    "rows that end in a number from nowhere",
    label="dropped for a last number that nothing gives",
)
LENGTHS = (4, 10, 25)
"""Words of an answer from which it says more: rows are judged among those of about their length."""


@dataclass(frozen=True)
class UnfitAnswer(CleaningStep):
    """Rows with another row's answer, with words in no order, or with a last number that nothing gives.

    *Ours* altogether, and measured in ``benchmarks/noise.md``. No share is dropped: noise of each kind is made from
    the set itself (decoys), and as many rows go as score like it beyond what good rows would; from a set without such
    noise next to none. Answers of a word or two say little of where they belong, and mostly stay. See
    :mod:`~datapruner.cleaning.beyond_chance`, :mod:`~datapruner.cleaning.answer_fit`,
    :mod:`~datapruner.cleaning.word_order` and :mod:`~datapruner.cleaning.stray_numbers`.

    Attributes
    ----------
    fdr : float
        False discovery rate: the highest share of good rows among those that are dropped, as estimated; above 0,
        below 1.
    match : bool
        Look at how answers fit their prompts.
    word_order : bool
        Look at the order of the answers' words.
    numbers : bool
        Look at the last numbers of answers that compute.
    """

    name = "unfit_answer"
    reasons = (MISMATCHED, SHUFFLED, STRAY)
    needs = ("prompt_embedding", "response_embedding")
    order = 58

    fdr: float = 0.1
    match: bool = True
    word_order: bool = True
    numbers: bool = True

    def __post_init__(self) -> None:
        """Refuse a rate that is none."""
        super().__post_init__()
        check_rate(self.name, self.fdr)

    def clean(self, left: Remaining) -> list[Vetoes]:
        """Look at how answers fit, at their words' order, at their last numbers; a row goes for the first of them."""
        found: list[Vetoes] = []
        gone = left.protected[left.rows].copy()
        looks = (self.match, self._mismatched), (self.word_order, self._shuffled), (self.numbers, _stray)
        for look in (look for wanted, look in looks if wanted):
            for reason, places, measures in look(left):
                new = ~gone[places]
                gone[places] = True
                found.append(drops(reason, left.rows[places[new]], measures=measures[new]))
        return [vetoes for vetoes in found if len(vetoes)]

    def _mismatched(self, left: Remaining) -> Iterator[tuple[Reason, Ints, Floats]]:
        from datapruner.geometry.clustering import default_k

        # Without a question, nothing fits or does not; without an answer, another step says so.
        sides = [list(left.texts(which)) for which in ("prompt", "response")]
        some = np.flatnonzero(
            [bool(prompt.strip() and answer.strip()) for prompt, answer in zip(*sides, strict=True)]
        )
        if some.size < FEWEST:
            return
        asked, said = (taken(left.signals[name], some) for name in self.needs)
        kinds, broad = (
            left.shared.clusters(asked, k, seed=left.seed).assignment
            for k in (None, round(default_k(some.size) ** 0.5))
        )
        prompts, answers = ([texts[place] for place in some.tolist()] for texts in sides)
        fit = answer_fit(prompts, answers, asked, said, kinds, broad, left.seed)
        real, decoys = told_apart(fit.own, list(fit.decoys), rising(fit.own.shape[1]), left.seed)
        words = np.array([len(answer.split()) for answer in answers])
        out = np.zeros(some.size, dtype=np.bool_)
        for number in range(len(LENGTHS) + 1):
            rows = np.flatnonzero(np.searchsorted(LENGTHS, words, side="right") == number)
            for of in decoys:
                beyond = beyond_chance(real[rows], of[rows], self.fdr, cautious=number == 0)
                out[rows] |= beyond.rows
        usual = f"{float(np.median(fit.better)):.0%}"
        yield MISMATCHED.filled(usual=usual), some[out], fit.better[out]

    def _shuffled(self, left: Remaining) -> Iterator[tuple[Reason, Ints, Floats]]:
        orders = word_orders(left.own.turns("response", left.rows), left.seed)
        some = np.flatnonzero(orders.told)
        if some.size < FEWEST:
            return
        own, shuffled = features(orders, orders.told)
        real, decoys = told_apart(own, [shuffled], RISING, left.seed)
        out = beyond_chance(real, decoys[0], self.fdr).rows
        above = own[:, :2].mean(axis=1)
        yield SHUFFLED.filled(usual=f"{float(np.median(above)):.1f}"), some[out], above[out]


def _stray(left: Remaining) -> Iterator[tuple[Reason, Ints, Floats]]:
    prompts, answers = (left.own.turns(which, left.rows) for which in ("prompt", "response"))
    found = ends(prompts, answers)
    if found.told:
        stray: Flags = found.stray
        reason = STRAY.filled(told=f"{int((~stray).sum()):,}")
        yield reason, found.rows[stray], found.last[stray]
