"""Rows of one template, each with its blank filled in otherwise: alike as they are, none is a copy of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from datapruner.arrays import Ints
from datapruner.cleaning.shingles import Sets
from datapruner.cleaning.vetoes import Vetoes, drops

MANY = 10
"""Rows that are dropped for one: from more on they are asked whether they are a template's."""


def without_fillings(
    found: Vetoes, read: Callable[[Ints], Iterable[str]], *, ngram: int, threshold: float
) -> Vetoes:
    """Take back rows that were dropped for one of their template, and differ from it by what they fill in.

    *Ours*. Of more than 10 rows that were dropped for the same one, the template is the shingles that at least half of
    them and that one hold. Edits leave a hole in it wherever they are, and fillings none: it is a template where at
    least half of the rows hold all of it. Of those rows one is a copy where what it holds besides is another row's.

    Parameters
    ----------
    found : Vetoes
        Near duplicates.
    read : callable
        Rows, ascending -> their texts.
    ngram : int
        Words a shingle.
    threshold : float
        Share of what the row that holds less holds besides the template, from which the other is its copy.
    """
    others, times = np.unique(found.others, return_counts=True)
    gone = np.zeros(len(found), dtype=np.bool_)
    again: list[tuple[int, int, float]] = []
    for other in others[times > MANY].tolist():
        of_one = found.others == other
        rows = np.union1d(found.rows[of_one], [other])
        sets = Sets.read(read(rows), rows, ngram)
        own = _besides(sets, len(rows))
        if own is None:
            continue
        gone |= of_one
        first = int(np.searchsorted(rows, other))
        order = [first, *(place for place in range(len(rows)) if place != first)]
        again += [
            (int(rows[one]), int(rows[of]), float(sets.similarity(one, np.array([of]))[0]))
            for one, of in _copies(own, order, threshold)
        ]
    if not gone.any():
        return found
    parts = zip(*again, strict=True) if again else ((), (), ())
    new = (np.array(part) for part in parts)
    held = (found.rows, found.others, found.measures)
    rows, other, measure = (np.concatenate([of[~gone], more]) for of, more in zip(held, new, strict=True))
    return drops(found.reason, rows.astype(np.int64), other.astype(np.int64), measure)


def _besides(sets: Sets, rows: int) -> list[frozenset[int]] | None:
    """Give what each row holds besides the template; None where there is none."""
    _, place, times = np.unique(sets.hashes[:], return_inverse=True, return_counts=True)
    of_template = 2 * times >= rows
    owner = np.repeat(np.arange(rows), np.diff(sets.starts))
    held = np.bincount(owner[of_template[place]], minlength=rows)
    if 2 * (held == of_template.sum()).sum() < rows:
        return None
    mine = np.where(of_template[place], -1, place)
    return [
        frozenset(mine[start:stop].tolist()) - {-1}
        for start, stop in zip(sets.starts[:-1], sets.starts[1:], strict=True)
    ]


def _copies(own: list[frozenset[int]], order: list[int], threshold: float) -> Iterable[tuple[int, int]]:
    """Find the rows that are copies of an earlier one, and of which: (place, place)."""
    holders: dict[int, list[int]] = {}
    nothing: list[int] = []
    for one in order:
        shared = Counter(of for shingle in own[one] for of in holders.get(shingle, ()))
        alike = [
            (count / min(len(own[one]), len(own[of])), -of)
            for of, count in shared.items()
            if count >= threshold * min(len(own[one]), len(own[of]))
        ]
        if alike:
            yield one, -max(alike)[1]
        elif not own[one] and nothing:
            yield one, nothing[0]
        else:
            for shingle in own[one]:
                holders.setdefault(shingle, []).append(one)
            if not own[one]:
                nothing.append(one)
