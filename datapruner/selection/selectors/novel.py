"""Best first, and a row that resembles a kept one is passed over (DEITA, arXiv 2312.15685)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints
from datapruner.errors import DataPrunerError, RowError
from datapruner.ranking import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Choice, Selector, best_first, fill

VECTORS = "embedding"
"""The signal, and the name of a ranking's state: one vector a source row."""
BLOCK = 1024
"""Rows a side of a block of similarities: 4 MB."""


@dataclass(frozen=True)
class Novel(Selector):
    """Keep the highest values, but none whose nearest kept row is closer than a threshold.

    *Published* (DEITA's "repr filter"): rows by descending score; one is kept if its distance to the nearest kept row,
    1 - cosine of embeddings, is at least a threshold, until the budget is spent; 0.9 is the cosine of the published
    code. *Ours*: any score and any embedding (``--embedder``, ``--embeddings``); where the novel rows do not fill the
    budget the best of those passed over do, and say so; a row that does not fit into a budget of tokens is passed over
    and keeps nobody out; with ``per_group`` each group's rows are compared among themselves.

    Memory: the kept rows' vectors and one block of similarities, never all pairs.

    Parameters
    ----------
    threshold : float
        Cosine above which a row resembles another, in [-1, 1].
    """

    threshold: float = 0.9
    name: ClassVar[str] = "novel"
    reads: ClassVar[frozenset[str]] = frozenset({VECTORS})

    def __post_init__(self) -> None:
        """Refuse a threshold that no cosine has."""
        super().__post_init__()
        if not -1 <= self.threshold <= 1:
            raise DataPrunerError(f"novel: threshold is a cosine between -1 and 1, not {self.threshold}")

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        m, where = len(portion.rows), f" of {portion.name}" if portion.name else ""
        order = best_first(ranking.values[portion.rows])
        kept = np.zeros(m, dtype=np.bool_)
        other, cosine = np.full(m, -1, dtype=np.int64), np.zeros(m)
        left, seen = portion.budget, 0
        # The least that a row costs which has not had its turn; nothing further fits below that.
        cheapest = np.append(np.minimum.accumulate(portion.costs[order][::-1])[::-1], np.iinfo(np.int64).max)
        visits = self._visited(ranking.state[VECTORS], portion, order, kept)
        while left >= cheapest[seen]:
            place, near, close = next(visits)
            other[place], cosine[place] = near, close
            seen += 1
            if cosine[place] <= self.threshold and portion.costs[place] <= left:
                kept[place] = True
                left -= int(portion.costs[place])
        novel = kept.copy()
        fill(order[~kept[order]], portion.costs, left, kept)
        texts = [
            f"kept: among the best{where}, and no better kept row resembles it above {self.threshold:g}",
            f"dropped: below the best{where} when the budget was spent",
            f"dropped: too long for what was left of the budget{where}",
        ]
        codes = np.where(kept, 0, 1)
        looked = np.zeros(m, dtype=np.bool_)
        looked[order[:seen]] = True
        codes[looked & ~kept] = 2
        for place in np.flatnonzero(looked & ~novel & (cosine > self.threshold)).tolist():
            shown = round(float(cosine[place]), 3) + 0.0  # 0 has no sign
            like = f"resembles row {int(portion.rows[other[place]])}, which is kept (cosine {shown:.3f})"
            codes[place] = len(texts)
            spent = f"kept: {like}; the novel rows{where} leave the budget unspent"
            texts.append(spent if kept[place] else f"dropped: {like}")
        return Choice(kept, codes.astype(np.int64), texts)

    @staticmethod
    def _visited(
        vectors: Any, portion: Portion, order: Ints, kept: Flags
    ) -> Iterator[tuple[int, int, float]]:
        """Give each row's place, best first, the place of its nearest kept row (or -1) and the cosine of the two.

        Whether a row was kept is read off ``kept`` when the next one is asked for.
        """
        width = int(vectors.shape[1])
        held = np.empty((0, width), dtype=np.float32)
        places, count = np.empty(0, dtype=np.int64), 0
        for start in range(0, len(order), BLOCK):
            block = order[start : start + BLOCK]
            here = _unit(vectors, portion.rows[block])
            best, near = np.full(len(block), -np.inf), np.full(len(block), -1, dtype=np.int64)
            for first in range(0, count, BLOCK):
                stop = min(first + BLOCK, count)
                cosines = here @ held[first:stop].T
                nearest = cosines.argmax(axis=1)
                value = cosines[np.arange(len(block)), nearest]
                better = value > best
                best[better], near[better] = value[better], places[first + nearest[better]]
            among = here @ here.T
            chosen = []
            for number, place in enumerate(block.tolist()):
                yield place, int(near[number]), min(float(best[number]), 1.0)
                if kept[place]:
                    chosen.append(number)
                    closer = among[number] > best
                    best[closer], near[closer] = among[number, closer], place
            while count + len(chosen) > len(held):
                more = max(BLOCK, len(held))
                held = np.concatenate([held, np.empty((more, width), dtype=np.float32)])
                places = np.concatenate([places, np.empty(more, dtype=np.int64)])
            held[count : count + len(chosen)], places[count : count + len(chosen)] = (
                here[chosen],
                block[chosen],
            )
            count += len(chosen)


def _unit(vectors: Any, rows: Ints) -> NDArray[np.float32]:
    """Read some rows at unit length, float32; a zero row stays zero."""
    ascending = np.sort(rows)  # a file is read from front to back
    taken = np.asarray(vectors[ascending], dtype=np.float32)[np.searchsorted(ascending, rows)]
    finite = np.isfinite(taken).all(axis=1)
    if not finite.all():
        row = int(rows[int(np.argmin(finite))])
        raise RowError(f"the vector of row {row} is not finite", row)
    norms = np.linalg.norm(taken, axis=1, keepdims=True)
    return np.asarray(np.divide(taken, norms, out=np.zeros_like(taken), where=norms > 0))
