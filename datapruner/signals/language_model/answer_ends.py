"""Answers that end where a language model expects no end: their surprise, and answers that are cut off on purpose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.ragged import Ragged
from datapruner.samples.sample import Sample

_BLANK = re.compile(r"\s+")
FEWEST = 3
"""Places at which an answer may be cut; without so many blanks between its words, it may be cut inside one."""


def end_surprise(token_nll: Ragged) -> Floats:
    """Tell how much less expected a row's end is than its other tokens (*ours*).

    The end is one of the last two supervised tokens, the less expected one: many templates put a line break after the
    token that ends a turn, which is never a surprise. Against the mean, rows that are hard altogether stand beside
    easy ones.

    Parameters
    ----------
    token_nll : Ragged
        Of n rows.

    Returns
    -------
    ndarray, float64, shape (n,)
        Nats; 0 for a row without supervised tokens.
    """
    values = np.asarray(token_nll.values, dtype=np.float64)
    first, stop = token_nll.offsets[:-1], token_nll.offsets[1:]
    some = stop > first
    out = np.zeros(len(token_nll))
    last, before = stop[some] - 1, np.maximum(stop[some] - 2, first[some])
    sums = np.append(0.0, np.cumsum(values))
    mean = (sums[stop] - sums[first])[some] / (stop - first)[some]
    out[some] = np.maximum(values[last], values[before]) - mean
    return out


def cut_off(sample: Sample, rng: np.random.Generator) -> Sample | None:
    """Cut a row's last answer off between two of its words, all places being as likely.

    Returns
    -------
    Sample or None
        None where there is nothing to cut: an answer of a few letters, a tool call, a raw text, which has no end.
    """
    places = [
        place
        for place, turn in enumerate(sample.messages)
        if turn.role == "assistant" and turn.trained and turn.content.strip()
    ]
    if sample.plain or not places:
        return None
    turn = sample.messages[places[-1]]
    if turn.fields.get("tool_calls") or "content" in turn.fields:
        return None
    said = turn.content.rstrip()
    start = len(said) - len(said.lstrip())
    ends = [found.start() for found in _BLANK.finditer(said, start)]
    if len(ends) < FEWEST:
        ends = list(range(start + 1, len(said)))
    if len(ends) < FEWEST:
        return None
    short = replace(turn, content=said[: ends[int(rng.integers(len(ends)))]])
    turns = sample.messages
    return replace(sample, messages=(*turns[: places[-1]], short, *turns[places[-1] + 1 :]))


class Cut:
    """Rows that were made of others; a pass reads them as it does those of a source."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def naming(self) -> AbstractContextManager[None]:
        """Say nothing of errors: these rows lie in no source."""
        return nullcontext()

    def iter_samples(self, rows: Ints | None = None, *, identity: bool = True) -> Iterator[Sample]:
        """Give some of them, in this order."""
        return (self.samples[row] for row in (range(len(self.samples)) if rows is None else rows.tolist()))
