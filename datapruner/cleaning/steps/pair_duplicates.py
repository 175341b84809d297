"""Preference rows that share their prompt, their chosen answer, or both sides with another, or prefer the opposite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal

from xxhash import xxh3_128_digest

from datapruner.choices import Match
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes, collected, drops
from datapruner.matching import match_form
from datapruner.reasons import Reason
from datapruner.samples.preference import parted
from datapruner.samples.reading import Row
from datapruner.samples.sample import Sample

By = Literal["pair", "chosen", "prompt"]
Key = tuple[Hashable, ...]
SHARED = {
    "pair": "the prompt and both answers",
    "chosen": "the prompt and the chosen answer",
    "prompt": "the prompt",
}
SAME = Reason(
    "pair_duplicate",
    "has {what} of row {other}",
    "pair that repeats another",
    "pairs that repeat others",
    label="dropped as pairs that repeat others",
    way_out="take another 'by' of pair_duplicates",
)
CONTRADICTED = Reason(
    "contradicted_pair",
    "row {other} prefers the same answers the other way round",
    "contradicted pair",
    "contradicted pairs",
    label="dropped as contradicted pairs",
    way_out="take by=chosen or by=prompt of pair_duplicates",
)

UNDECIDED = Reason(
    "undecided_pair",
    "as many rows prefer the same answers the other way round",
    "undecided pair",
    "undecided pairs",
    label="dropped as undecided pairs",
    way_out="take by=chosen or by=prompt of pair_duplicates",
)


@dataclass(frozen=True)
class PairDuplicates(CleaningStep):
    """Preference rows that repeat or contradict each other (*ours*).

    The first of the rows that share something stays, before it one that is always kept. ``--dedup`` drops rows that
    agree in everything; near duplicates keep rows apart whose rejected answers differ. A row of another layout has a
    prompt and one answer: what comes before its last answer, and that.

    Attributes
    ----------
    by : {"pair", "chosen", "prompt"}
        What rows share: the prompt and both answers; the prompt and the chosen answer, whatever was rejected; the
        prompt alone, so that each is asked once. By ``pair``, of two answers that are preferred both ways, the way of
        fewer rows goes, and both where they are as many; rows with several rejected answers contradict nobody.
    match : {"text", "exact", "loose"}
        What counts as the same text, as for ``--match``.
    """

    name = "pair_duplicates"
    reasons = (SAME, CONTRADICTED, UNDECIDED)
    order = 39  # before exact duplicates, which would leave one row of each way

    by: By = "pair"
    match: Match = "text"

    def clean(self, left: Remaining) -> list[Vetoes]:
        """Drop all but the first of each, and what is contradicted."""
        if not left.samples.layout.has_text:
            return []
        found: dict[Key, list[int]] = defaultdict(list)
        for number, row in zip(left.rows.tolist(), left.samples.iter_rows(left.rows), strict=True):
            found[self._shared(row, number)].append(number)
        heads = {
            key: min(rows, key=lambda row: (not left.protected[row], row)) for key, rows in found.items()
        }
        same, against, undecided = [], [], []
        for key, rows in found.items():
            free = [row for row in rows if not left.protected[row]]
            other = _opposite(key)
            more = len(found[other]) - len(rows) if other in found else -1
            if more > 0:
                against += [(row, heads[other], 1.0) for row in free]
            elif more == 0:
                undecided += free
            else:
                same += [(row, heads[key], 1.0) for row in free if row != heads[key]]
        shared = SAME.filled(what=SHARED[self.by])
        return [
            collected(shared, sorted(same)),
            collected(CONTRADICTED, sorted(against)),
            drops(UNDECIDED, undecided),
        ]

    def _shared(self, row: Row, number: int) -> Key:
        """Give what is equal of rows of which one is enough."""
        prompt, chosen, rejected = parted(row)
        asked = self._digest(prompt)
        if self.by == "prompt":  # a row without one shares it with nobody
            return (asked,) if prompt.messages else (asked, number)
        if self.by == "chosen":
            return asked, self._digest(chosen)
        others = frozenset(map(self._digest, rejected))
        return asked, self._digest(chosen), next(iter(others)) if len(others) == 1 else others

    def _digest(self, said: Sample) -> bytes:
        text = match_form(replace(said, beside=()).key(), self.match)
        return xxh3_128_digest(text.encode("utf-8", "surrogatepass"))


def _opposite(key: Key) -> Key:
    """Give the key of rows that prefer the other of two answers; of no row where there is no such thing."""
    if len(key) < 3 or isinstance(key[2], frozenset) or key[1] == key[2]:
        return ()
    return key[0], key[2], key[1]
