"""Rows that several choosers take in turn, each its best that nobody has taken; never all similarities at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.geometry.blocks import FloatBlock, Matrix, RowView, iter_blocks, normalise_rows

CANDIDATES = 1 << 23
"""Rows that all choosers together have in mind at a time, 8 bytes each; twice that while they are looked for."""
BLOCK = 1 << 22
"""Similarities of a block of rows, 8 bytes each."""
CHUNK = 512
"""Candidates that are looked at together."""
LOW = np.uint64(0xFFFFFFFF)

Keys = NDArray[np.uint64]
"""A similarity as the high half, and what is left of the highest row number as the low one: sorted they are best first,
and of equals the lower row."""

Score = Callable[[FloatBlock], Floats]
"""Rows of length one, float32 (b, d) -> each chooser's similarity to each, float64 (b, choosers)."""


def take_turns(
    matrix: Matrix, score: Score, choosers: int, turns: Ints, *, candidates: int = CANDIDATES
) -> tuple[Ints, NDArray[np.float32]]:
    """Let choosers take rows in turn, until none is left.

    Each chooser keeps its best rows in mind, as many as there is room for; where they are all taken, everybody looks
    again among the rows that are left. So the result is that of the whole table of similarities, and never more than
    a block of it is in memory (*ours*).

    Parameters
    ----------
    matrix : Matrix, shape (n, d)
        Rows of any length; they are scaled to one.
    score : callable
        See :data:`Score`. Similarities count in float32, so that what differs by rounding alone is a tie.
    choosers : int
    turns : ndarray, int64, shape (n,)
        Who takes a row, turn by turn; choosers are numbered from 0.
    candidates : int
        Rows that all choosers together have in mind.

    Returns
    -------
    rows : ndarray, int64, shape (n,)
        In the order in which they are taken; of equally similar rows the first.
    similarity : ndarray, float32, shape (n,)
        Of each to whoever took it.
    """
    n, whose = len(turns), turns.tolist()
    used = np.zeros(n, dtype=np.bool_)
    taken = np.zeros(n, dtype=np.uint64)
    each = max(1, candidates // choosers)
    done = 0
    while done < n:
        left = np.flatnonzero(~used)
        best = _best(matrix, left, score, choosers, each)
        done = _walk(best, whose, used, taken, done)
    return _rows_of(taken), _similarities_of(taken)


def _walk(best: Keys, turns: Sequence[int], used: NDArray[np.bool_], taken: Keys, done: int) -> int:
    """Take rows until somebody has none in mind; give how many were taken in all."""
    looked_at = [0] * len(best)
    ready: list[list[int]] = [[] for _ in range(len(best))]
    free = bytearray(~used)
    low = int(LOW)
    found: list[int] = []
    first = done
    while done < len(turns):
        who = turns[done]
        mine = ready[who]
        while True:
            while mine and not free[low - (mine[-1] & low)]:
                mine.pop()
            start = looked_at[who]
            if mine or start == best.shape[1]:
                break
            mine.extend(best[who, start : start + CHUNK][::-1].tolist())
            looked_at[who] = min(start + CHUNK, best.shape[1])
        if not mine:
            break
        key = mine.pop()
        free[low - (key & low)] = 0
        found.append(key)
        done += 1
    taken[first:done] = np.array(found, dtype=np.uint64)
    used[_rows_of(taken[first:done])] = True
    return done


def _best(matrix: Matrix, left: Ints, score: Score, choosers: int, each: int) -> Keys:
    """Give every chooser's best rows of those that are left, best first; shape (choosers, at most each)."""
    view = matrix if len(left) == matrix.shape[0] else RowView(matrix, left)
    rows = max(1, BLOCK // choosers)
    held = np.empty((choosers, 0), dtype=np.uint64)
    waiting: list[Keys] = []
    width = 0
    for start, stop, block in iter_blocks(view, block_bytes=min(64 << 20, 4 * matrix.shape[1] * rows)):
        normalise_rows(block, start, matrix=view)
        waiting.append(_keys(score(block), left[start:stop]))
        width += stop - start
        if width >= each:
            held, waiting, width = _top(np.concatenate([held, *waiting], axis=1), each), [], 0
    held = _top(np.concatenate([held, *waiting], axis=1), each)
    held.sort(axis=1)
    return held[:, ::-1]


def _top(keys: Keys, each: int) -> Keys:
    if keys.shape[1] <= each:
        return keys
    return np.partition(keys, keys.shape[1] - each, axis=1)[:, -each:]


def _keys(similarity: Floats, rows: Ints) -> Keys:
    """Give keys whose order is that of the similarities; shape (choosers, b)."""
    # Adding 0 makes one of the two zeros, whose bits differ.
    bits = np.ascontiguousarray(similarity.T.astype(np.float32) + np.float32(0)).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    return (ordered << np.uint64(32)) | (LOW - rows.astype(np.uint64))


def _rows_of(keys: Keys) -> Ints:
    return (LOW - (keys & LOW)).astype(np.int64)


def _similarities_of(keys: Keys) -> NDArray[np.float32]:
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered).astype(np.uint32)
    return bits.view(np.float32)


def shared_turns(weights: Sequence[int], n: int) -> Ints:
    """Share turns by weight, so that after any number of them nobody is a whole turn away from its share.

    Each one's turns have a first and a last moment by its share, and whose last moment is nearest comes first, of
    equals the first in order (earliest deadline first; Baruah et al. 1996 for why that works out).

    Parameters
    ----------
    weights : sequence of int
        Not negative, not all 0.
    n : int

    Returns
    -------
    ndarray, int64, shape (n,)
        Whose turn it is.
    """
    total = sum(weights)
    period = min(n, total)  # it begins anew then
    had = [0] * len(weights)
    out = []
    heavy = [place for place, weight in enumerate(weights) if weight]
    for turn in range(period):
        due = [
            (-(-(had[place] + 1) * total // weights[place]), place)
            for place in heavy
            if had[place] * total // weights[place] <= turn
        ]
        place = min(due)[1]
        had[place] += 1
        out.append(place)
    return np.resize(np.array(out, dtype=np.int64), n)
