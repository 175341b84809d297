"""Words that tell a group of rows from the others."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Ints

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples

KEYWORDS = 5
INSIDE, BESIDE = 1000, 2000
"""Rows of a group, and of the whole set, that are read for its words, spread evenly."""
MOST = 0.5
"""Share of these rows that hold a word, at most, for it to tell groups apart."""
PER_ROW = 12
LONGEST = 4000
"""Characters of a row that are read."""


def distinctive(here: Counter[int], everywhere: Counter[int], rows: int, n: int) -> list[int]:
    """Choose the concepts whose rows are most concentrated in a group: share here times log of the lift (*ours*).

    Parameters
    ----------
    here, everywhere : Counter
        Concept -> rows that have it, in the group and in all.
    rows, n : int
        Rows of the group, and of all.
    """

    def worth(one: int) -> float:
        share = here[one] / rows
        return float(share * np.log(max(share / (everywhere[one] / n), 1e-9)))

    return sorted((one for one in here if worth(one) > 0), key=lambda one: (-worth(one), one))[:KEYWORDS]


def words_of(samples: Samples, members: Ints, every: Ints) -> tuple[str, ...]:
    """Find the words of a group from a sample of its rows and of all rows.

    Parameters
    ----------
    samples : Samples
    members : ndarray, int64
        The group's rows, ascending.
    every : ndarray, int64
        All rows that have a group, ascending.

    Returns
    -------
    tuple of str
        The most telling first; empty where rows share nothing.
    """
    from datapruner.signals.texts.concepts import extract_concepts

    rows = np.union1d(_spread(members, INSIDE), _spread(every, BESIDE))
    inside = np.flatnonzero(np.isin(rows, members))
    texts = (text[:LONGEST] for text in samples.iter_parts("both", rows))
    # What tells a large cluster from the others is in many rows, and a row lists the common ones first.
    concepts = extract_concepts(texts, max_share=MOST, per_row=PER_ROW)
    # A small group is denser in the sample than in the set: that makes its words' lift smaller, not their share.
    here, everywhere = (
        Counter(ids.tolist()) for ids in (concepts.ids.take(inside).values, concepts.ids.values)
    )
    found = distinctive(here, everywhere, max(len(inside), 1), max(len(rows), 1))
    return tuple(str(concepts.names[one]) for one in found)


def _spread(rows: Ints, most: int) -> Ints:
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
