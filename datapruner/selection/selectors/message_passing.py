"""D2's selector: take the highest score, and lower those of its neighbours (arXiv 2310.07931)."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.ranking import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Choice, Selector

NEIGHBOURS, DISTANCES = "neighbours", "neighbour_distances"
"""A ranking's state: the source positions of every row's neighbours, and how far they are."""
PARTS = 10
"""The picks' order is told in tenths: a reason is one of few sentences, whatever the number of rows."""


@dataclass(frozen=True)
class MessagePassingSelector(Selector):
    """Pick the highest score again and again; each pick u takes exp(-gamma d^2) s_u off its neighbours' scores.

    *Published*, the reverse message passing of D2 Pruning: a neighbour of what was picked has to be all the harder to
    be picked as well. *Ours*: messages stay inside a portion of the budget (a group of ``per_group``, the rows that
    compete); in token budgets a row that no longer fits is passed over and sends nothing; ties by position. The
    released code does not square d. A score falls below 0 where most of a neighbourhood is picked already, and the
    message of such a pick raises its neighbours, as the formula says.

    The ranking must have the state that the scorer ``d2`` leaves: ``neighbours`` and ``neighbour_distances``, ragged,
    an edge being listed at both of its ends. With a heap it takes O((n + edges) log n).

    Parameters
    ----------
    gamma_reverse : float
        0: a neighbour loses the whole score of the pick, however far it is; high: only near copies lose anything.
    """

    gamma_reverse: float = 1.0
    name: ClassVar[str] = "message_passing"
    needs: ClassVar[frozenset[str]] = frozenset({NEIGHBOURS, DISTANCES})

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        check_gamma(self.name, "gamma_reverse", self.gamma_reverse)

    @property
    def asks(self) -> tuple[str, str]:
        """Say what it reads, and who gives it."""
        return "every row's neighbours", "use the scorer d2, or the selector topk"

    def _select(self, ranking: Ranking, portion: Portion, rng: np.random.Generator) -> Choice:
        graph, distances = ranking.state.get(NEIGHBOURS), ranking.state.get(DISTANCES)
        assert isinstance(graph, Ragged)
        assert isinstance(distances, Ragged)
        weights = np.exp(-self.gamma_reverse * np.square(distances.values, dtype=np.float64))
        picks, passed, last = _pick(ranking, portion, graph, weights)
        m = len(portion.rows)
        kept = np.zeros(m, dtype=np.bool_)
        kept[picks] = True
        codes = np.zeros(m, dtype=np.int64)
        codes[passed] = 1
        codes[picks] = 2 + np.arange(len(picks)) * PARTS // max(1, len(picks))
        where = f" of {portion.name}" if portion.name else ""
        return Choice(kept, codes, _texts(len(picks), last, where))


def _pick(ranking: Ranking, portion: Portion, graph: Ragged, weights: Floats) -> tuple[Ints, Ints, float]:
    """Give the places picked, in order; those passed over before the last pick; and the score of the last pick."""
    rows = portion.rows
    place = np.full(len(ranking.values), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    to, starts = place[graph.values], graph.offsets
    scores: list[float] = ranking.values[rows].tolist()
    costs: list[int] = portion.costs.tolist()
    # An entry that is not its row's latest is skipped when it comes up.
    heap = [(-score, j) for j, score in enumerate(scores)]
    heapq.heapify(heap)
    open_ = [True] * len(rows)
    picks: list[int] = []
    passed: list[int] = []
    before_last, last, left = 0, math.nan, portion.budget
    while heap and left > 0:
        key, u = heapq.heappop(heap)
        if not open_[u] or -key != scores[u]:
            continue
        open_[u] = False
        if costs[u] > left:
            passed.append(u)
            continue
        left -= costs[u]
        picks.append(u)
        before_last, last = len(passed), scores[u]
        edges = slice(starts[rows[u]], starts[rows[u] + 1])
        for j, weight in zip(to[edges].tolist(), weights[edges].tolist(), strict=True):
            if j >= 0 and open_[j]:
                scores[j] -= weight * last
                heapq.heappush(heap, (-scores[j], j))
    return np.array(picks, dtype=np.int64), np.array(passed[:before_last], dtype=np.int64), last


def _texts(count: int, last: float, where: str) -> list[str]:
    """Give the reasons: dropped, passed over, and the tenths of the picks."""
    shown = f"{last:.6g}" if count else "none"
    texts = [
        f"dropped: not among the picks{where}; after its picked neighbours' messages others scored higher"
        f" (the last pick: {shown})",
        f"dropped: too long for what was left of the budget{where} when its turn came",
    ]
    for part in range(PARTS):
        first, end = (-(-number * count // PARTS) for number in (part, part + 1))
        texts.append(
            f"kept: among picks {first + 1} to {end} of {count}{where}, by what its picked neighbours' messages left "
            "of its score"
        )
    return texts


def check_gamma(name: str, parameter: str, value: float) -> None:
    """Refuse a scale of distances that has no meaning."""
    if not 0 <= value < math.inf:
        raise DataPrunerError(f"{name}: {parameter} must be 0 or more, not {value}")
