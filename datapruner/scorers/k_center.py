"""k-center: rows in the order of greedy farthest-first traversal."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import BLOCK_BYTES, FloatBlock, Matrix, gather, iter_blocks, normalise_rows
from datapruner.scorers.base import Ranking, Scorer
from datapruner.signals import Signals

logger = logging.getLogger(__name__)

SAME = 1 - 5e-7
"""Cosine from which a row counts as a copy of a centre: float32 products say no more."""
HELD_BYTES = 2 << 30
"""Rows of length one are kept in memory up to here; beyond, they are read and scaled again for every centre."""
WATCHED = 5
"""Steps after which the time of the others is estimated."""


@dataclass(frozen=True)
class KCenter(Scorer):
    """Cover the embedding space: each next row is the one farthest from all rows before it.

    *Published* (Gonzalez 1985; for data selection Sener and Savarese, arXiv 1708.00489): greedy farthest-first
    traversal; the largest distance of any row to its nearest centre is at most twice what the best centres of that
    number reach. *Ours*: Euclidean distance between rows of length one, a seeded random start, ties by position, and
    how far the order is computed.

    The value is the order, earlier = higher, so that top-k spends any budget and a smaller selection lies inside a
    larger one. Rows after the last centre follow by their distance to the nearest centre, farthest first; centres are
    chosen until only copies of them are left. Takes O(n * centres * d): one pass over the rows for every centre, one
    float32 matrix-vector product. The rows are held in memory up to 2 GiB, and beyond read again for every centre.
    Values depend on the order of the rows.

    Parameters
    ----------
    centres : float or int
        How far the order is computed: a share of the rows in (0, 1], or a number. It should reach the budget.
    """

    centres: float | int = 0.3
    name: ClassVar[str] = "k_center"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    paper: ClassVar[str] = "arXiv 1708.00489"
    provenance: ClassVar[str] = "published; unit rows, seeded start and the order after the centres ours"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        share = isinstance(self.centres, float)
        if not self.centres > 0 or (share and not self.centres <= 1):
            raise DataPrunerError(
                f"k_center: centres is a share above 0 and at most 1, or a number of rows, not {self.centres}"
            )

    @property
    def promises(self) -> frozenset[str]:
        """Nothing: the start is a position, and a copy of a centre comes after it."""
        return frozenset()

    def _score(self, signals: Signals) -> Ranking:
        n = signals.num_rows
        if isinstance(self.centres, int) and self.centres > n:
            raise DataPrunerError(
                f"k_center: {self.centres} centres were asked for, and there are {n} rows; ask for at most {n}"
            )
        wanted = self.centres if isinstance(self.centres, int) else max(1, math.floor(self.centres * n + 0.5))
        start = int(np.random.default_rng(signals.seed).integers(n))
        centres, distance = farthest_first(signals["embedding"], wanted, start)
        place = np.full(n, -1, dtype=np.int64)
        place[centres] = np.arange(len(centres))
        # Distances of unit rows are at most 2: every centre stands above every other row.
        values = distance.copy()
        values[centres] = 2.0 + np.arange(len(centres), 0, -1)
        return Ranking(values, columns={"center_order": place, "center_distance": distance})


def farthest_first(
    embeddings: Matrix, count: int, start: int, *, held_bytes: int = HELD_BYTES
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose centres by greedy farthest-first traversal.

    Parameters
    ----------
    embeddings : Matrix, shape (n, d)
        Rows of any length; they are scaled to one.
    count : int
        Centres to choose, in [1, n]; fewer are chosen where the other rows are copies of them.
    start : int
        The first centre.
    held_bytes : int
        The scaled rows are kept in memory up to this size.

    Returns
    -------
    centres : ndarray, int64, shape (m,), m <= count
        Row numbers in the order of choice.
    distance : ndarray, float64, shape (n,)
        Of every row to its nearest centre; of a centre, to those before it. 2 for the first.
    """
    rows, columns = embeddings.shape
    fits = 4 * rows * columns <= held_bytes
    held = list(_unit_blocks(embeddings)) if fits else None
    nearest = np.full(
        rows, -1, dtype=np.float32
    )  # largest cosine to any centre, 2 for the centres themselves
    reached = np.full(rows, -1, dtype=np.float32)  # what it was when the row became a centre
    centres: list[int] = []
    pick, began = start, time.perf_counter()
    for number in range(count):
        if number == WATCHED:
            seconds = (time.perf_counter() - began) / WATCHED * count
            logger.info("k_center: %d centres among %d rows, about %.0f s", count, rows, seconds)
        reached[pick] = nearest[pick]
        centres.append(pick)
        _approach(nearest, _unit_blocks(embeddings) if held is None else held, _unit_row(embeddings, pick))
        nearest[pick] = 2
        pick = int(nearest.argmin())
        if nearest[pick] >= SAME:
            break
    chosen = np.array(centres, dtype=np.int64)
    nearest[chosen] = reached[chosen]
    cosine = np.where(nearest >= SAME, 1.0, np.clip(nearest.astype(np.float64), -1, 1))
    return chosen, np.sqrt(2 - 2 * cosine)


def _approach(
    nearest: NDArray[np.float32], blocks: Iterable[tuple[int, FloatBlock]], centre: NDArray[np.float32]
) -> None:
    """Raise every row's largest cosine to that with one more centre, in place."""
    for start, block in blocks:
        part = nearest[start : start + len(block)]
        np.maximum(part, block @ centre, out=part)


def _unit_row(embeddings: Matrix, row: int) -> NDArray[np.float32]:
    block = gather(embeddings, np.array([row]))
    normalise_rows(block, row, matrix=embeddings)
    return block.reshape(-1)


def _unit_blocks(embeddings: Matrix) -> Iterator[tuple[int, FloatBlock]]:
    for start, _, block in iter_blocks(embeddings, block_bytes=BLOCK_BYTES):
        normalise_rows(block, start, matrix=embeddings)
        yield start, block
