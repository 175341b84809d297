"""Answers that compute, and end in a number that nothing before it gives."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from datapruner.arrays import Flags, Floats, Ints

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_COMPUTED = re.compile(r"[\d)%]\s*[-+*/x×÷]\s*[$€£(]*[.\d][^=\n]{0,60}=\s*[^\n=]{0,40}\d")
"""An operation between numbers, and a result."""
_APART = re.compile(r"(?<=\d)[\s\u00a0\u202f](?=\d{3}\b)")
RARE, TOLD = 0.05, 0.5
"""At most this share of the rows may end in such a number, and with another row's last number at least that share."""
FEWEST = 20


class Ends(NamedTuple):
    """The rows whose answers compute and end in a number.

    Attributes
    ----------
    rows : ndarray, int64, shape (m,)
    last : ndarray, float64, shape (m,)
        The last number.
    stray : ndarray, bool, shape (m,)
        It stands nowhere before, neither in the prompt nor in the answer.
    told : bool
        Whether that says anything of these rows: few end so, and most would with another row's number.
    """

    rows: Ints
    last: Floats
    stray: Flags
    told: bool


def ends(prompts: Iterable[str], answers: Iterable[str]) -> Ends:
    """Look for the last number of every answer that computes among all numbers before it.

    *Ours*. Signs, currencies, separators of thousands and powers of a hundred (percent, cents) are let pass. Where the
    last number is mostly new (years, measurements), nothing is told: the decoys, each row with the next one's last
    number, and the rows themselves then look alike.

    Parameters
    ----------
    prompts, answers : iterable of str, of the same rows
        Read once.
    """
    rows, last, before = [], [], []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        text = _APART.sub("", answer)
        found = list(_NUMBER.finditer(text))
        # What is computed comes first: the last number is no part of the last computation.
        if len(found) < 4 or not _COMPUTED.search(text[: found[-1].start()]):
            continue
        rows.append(row)
        last.append(_value(found[-1][0]))
        before.append(
            {_value(one[0]) for one in found[:-1]}
            | {_value(one) for one in _NUMBER.findall(_APART.sub("", prompt))}
        )
    numbers = np.array(last, dtype=np.float64)
    stray = np.array([_is_new(value, seen) for value, seen in zip(last, before, strict=True)], dtype=np.bool_)
    others = np.roll(numbers, 1).tolist()
    decoys = np.array(
        [_is_new(value, seen) for value, seen in zip(others, before, strict=True)], dtype=np.bool_
    )
    told = len(rows) >= FEWEST and bool(stray.mean() <= RARE and decoys.mean() >= TOLD)
    return Ends(np.array(rows, dtype=np.int64), numbers, stray, told)


def _is_new(value: float, seen: set[float]) -> bool:
    return not any(round(value * factor, 9) in seen for factor in (1.0, 100.0, 0.01))


def _value(number: str) -> float:
    return round(float(number.replace(",", "")), 9)
