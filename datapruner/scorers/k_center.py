"""k-center: rows in the order of greedy farthest-first traversal."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import FloatBlock, Matrix, gather, iter_blocks, normalise_rows
from datapruner.parameters import as_written
from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals

logger = logging.getLogger(__name__)

SAME = 1 - 5e-7
"""Cosine from which a row counts as a copy of a centre: float32 products say no more."""
POOL = 1024
"""Rows that stand for the next centre at a time."""
TILE = 1024
"""Centres that rows meet in one product."""
BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class KCenter(Scorer):
    """Cover the embedding space: each next row is the one farthest from all rows before it.

    *Published* (Gonzalez 1985; for data selection Sener and Savarese, arXiv 1708.00489): greedy farthest-first
    traversal; the largest distance of any row to its nearest centre is at most twice what the best centres of that
    number reach. *Ours*: Euclidean distance between rows of length one, a seeded random start, and how far the
    order is computed.

    The value is the order, earlier = higher, so that top-k spends any budget and a smaller selection lies inside a
    larger one. Rows after the last centre follow by their distance to the nearest centre, farthest first; centres are
    chosen until only copies of them are left. Takes O(n * centres * d) in float32 matrix products, and O(n) memory
    beside the embeddings; two rows whose cosines differ by 1e-7 may change places. Values depend on the order of the
    rows.

    Parameters
    ----------
    centres : float or int
        How far the order is computed: a share of the rows in (0, 1], or a number. It should reach the budget.
    """

    centres: float | int = 0.3
    name: ClassVar[str] = "k_center"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"center_order", "center_distance"})
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
        wanted = self.centres
        if not isinstance(wanted, int):
            wanted = max(1, math.floor(as_written(wanted) * n + Fraction(1, 2)))
        start = int(np.random.default_rng(signals.seed).integers(n))
        centres, distance = farthest_first(signals.matrix("embedding"), wanted, start)
        place = np.full(n, -1, dtype=np.int64)
        place[centres] = np.arange(len(centres))
        # Distances of unit rows are at most 2: every centre stands above every other row.
        values = distance.copy()
        values[centres] = 2.0 + np.arange(len(centres), 0, -1)
        return Ranking(values, columns={"center_order": place, "center_distance": distance})


def farthest_first(
    embeddings: Matrix, count: int, start: int, *, pool_rows: int = POOL
) -> tuple[Ints, Floats]:
    """Choose centres by greedy farthest-first traversal.

    A row's largest cosine to the centres only grows with their number, so a row may meet a centre late (*ours*): a pool
    of the rows that were farthest when last looked at meets the centres it has missed, all in one product, and gives
    the next centres for as long as its farthest row is farther than any row outside was.

    Parameters
    ----------
    embeddings : Matrix, shape (n, d)
        Rows of any length; they are scaled to one.
    count : int
        Centres to choose, in [1, n]; fewer are chosen where the other rows are copies of them.
    start : int
        The first centre.
    pool_rows : int

    Returns
    -------
    centres : ndarray, int64, shape (m,), m <= count
        Row numbers in the order of choice.
    distance : ndarray, float64, shape (n,)
        Of every row to its nearest centre; of a centre, to those before it. 2 for the first.
    """
    rows = embeddings.shape[0]
    centres = np.array([start], dtype=np.int64)
    nearest = np.full(
        rows, -1, dtype=np.float32
    )  # largest cosine to the centres met, 2 for the centres themselves
    reached = np.full(rows, -1, dtype=np.float32)  # what it was when the row became a centre
    met = np.zeros(rows, dtype=np.int64)
    nearest[start] = 2
    _meet_all(embeddings, centres, nearest, met)
    began, said = time.perf_counter(), False
    while len(centres) < count:
        if not said and len(centres) > count // 20:
            seconds = (time.perf_counter() - began) / len(centres) * count
            logger.info("k_center: %d centres among %d rows, about %.0f s", count, rows, seconds)
            said = True
        pool, outside = np.arange(rows), np.float32(2)
        if rows > pool_rows:
            order = np.argpartition(nearest, pool_rows)
            pool, outside = np.sort(order[:pool_rows]), nearest[order[pool_rows]]
        block = _unit(embeddings, pool)
        _meet(embeddings, centres, nearest, met, pool, block)
        values = nearest[pool]
        picks: list[int] = []
        while len(centres) + len(picks) < count:
            place = int(values.argmin())
            if values[place] > outside or values[place] >= SAME:
                break
            reached[pool[place]] = values[place]
            picks.append(int(pool[place]))
            np.maximum(values, block @ block[place], out=values)
            values[place] = 2
        centres = np.concatenate([centres, np.array(picks, dtype=np.int64)])
        nearest[pool], met[pool] = values, len(centres)
        if min(values.min(), outside) >= SAME:
            break
    _meet_all(embeddings, centres, nearest, met)
    nearest[centres] = reached[centres]
    cosine = np.where(nearest >= SAME, 1.0, np.clip(nearest.astype(np.float64), -1, 1))
    return centres, np.sqrt(2 - 2 * cosine)


def _meet_all(embeddings: Matrix, centres: Ints, nearest: NDArray[np.float32], met: Ints) -> None:
    """Let every row meet the centres that it has not met."""
    for start, stop, block in iter_blocks(embeddings, block_bytes=BLOCK_BYTES):
        normalise_rows(block, start, matrix=embeddings)
        _meet(embeddings, centres, nearest, met, np.arange(start, stop), block)


def _meet(
    embeddings: Matrix, centres: Ints, nearest: NDArray[np.float32], met: Ints, rows: Ints, block: FloatBlock
) -> None:
    """Raise the largest cosine of some rows, which ``block`` holds, by the centres they have not met; in place."""
    for first in range(int(met[rows].min()), len(centres), TILE):
        cosines = block @ _unit(embeddings, centres[first : first + TILE]).T
        nearest[rows] = np.maximum(nearest[rows], cosines.max(axis=1))
    met[rows] = len(centres)


def _unit(embeddings: Matrix, rows: Ints) -> FloatBlock:
    """Read some rows, scaled to length one."""
    block = gather(embeddings, rows)
    normalise_rows(block, rows, matrix=embeddings)
    return block
