"""D2 Pruning: difficulty and diversity by messages over a graph of neighbours (arXiv 2310.07931)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.neighbours import Neighbours
from datapruner.ragged import offsets_of
from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.scorers.combined import joined, member
from datapruner.selection.selectors.message_passing import (
    DISTANCES,
    NEIGHBOURS,
    MessagePassingSelector,
    check_gamma,
)
from datapruner.signals import Ragged, Signals

if TYPE_CHECKING:
    from datapruner.selection.selector import Selector


@dataclass(frozen=True)
class D2(Scorer):
    """A row's difficulty plus that of its neighbours; each pick then lowers its neighbours' scores.

    *Published*: a graph of every row's k nearest neighbours, symmetrised; forward messages s_i = x_i + sum over its
    neighbours of exp(-gamma_forward d_ij^2) x_j, with gamma_forward = 1; then the reverse messages of
    :class:`datapruner.selection.selectors.message_passing.MessagePassingSelector`, its default selector. Difficulties
    were forgetting events, the area under the margin and, without labels, prototypes; k and gamma_reverse were searched
    for every dataset (1 to 15, 0 to 1). *Ours*: any scorer as the difficulty, scaled to [0, 1] over the set (1 where it
    is constant everywhere); distances between rows of length one; one graph over the whole set rather than one a class.
    The released code weighs by exp(-d), where the paper squares d.

    Equal rows may have other neighbours, since ties go by position; beyond 50,000 rows neighbours are searched in
    clusters, which depend on the order of the rows.

    Parameters
    ----------
    scorer : str or dict
        The difficulty: a name, or ``{"name": ..., "parameters": {...}}``.
    n_neighbors : int
        k; all other rows where there are fewer.
    gamma_forward, gamma_reverse : float
        How fast messages fade with distance.
    """

    scorer: str | dict[str, Any] = "prototypes"
    n_neighbors: int = 10
    gamma_forward: float = 1.0
    gamma_reverse: float = 1.0
    name: ClassVar[str] = "d2"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    paper: ClassVar[str] = "arXiv 2310.07931"
    provenance: ClassVar[str] = "published; any scorer as the difficulty, scaled to [0, 1], ours"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning, those of the scorer too."""
        super().__post_init__()
        if self.n_neighbors < 1:
            raise DataPrunerError(f"d2: n_neighbors must be 1 or more, not {self.n_neighbors}")
        check_gamma(self.name, "gamma_forward", self.gamma_forward)
        check_gamma(self.name, "gamma_reverse", self.gamma_reverse)
        assert self.difficulty

    @cached_property
    def difficulty(self) -> Scorer:
        """What gives the difficulty."""
        return member(self.scorer, self.name)

    @property
    def requires(self) -> frozenset[str]:
        """The embedding, and what the difficulty is made of."""
        return self.needs | self.difficulty.requires

    @property
    def offers(self) -> frozenset[str] | None:
        """The graph, and the columns of the difficulty."""
        return joined({"difficulty", "message_sum", NEIGHBOURS, DISTANCES}, self.difficulty)

    @property
    def promises(self) -> frozenset[str]:
        """Nothing: equally near neighbours are chosen by their position."""
        return frozenset()

    def selector(self) -> Selector:
        """Reverse message passing."""
        return MessagePassingSelector(self.gamma_reverse)

    def _score(self, signals: Signals) -> Ranking:
        given = self.difficulty.score(signals)
        low, high = float(given.values.min()), float(given.values.max())
        x = (given.values - low) / (high - low) if high > low else np.ones(len(given.values))
        n = signals.num_rows
        k = min(self.n_neighbors, n - 1)
        found = Neighbours(np.empty((n, 0), np.int64), np.empty((n, 0), np.float32))
        if k:
            found = signals.graph(k)
        graph, distances = symmetrised(found)
        weights = np.exp(-self.gamma_forward * np.square(distances.values, dtype=np.float64))
        messages = np.bincount(graph.rows(), weights * x[graph.values], minlength=n)
        rows = np.arange(n) if signals.rows is None else signals.rows
        return Ranking(
            x + messages,
            columns={**given.columns, "difficulty": x, "message_sum": messages},
            state={NEIGHBOURS: Ragged(rows[graph.values], graph.offsets), DISTANCES: distances},
        )


def symmetrised(found: Neighbours) -> tuple[Ragged, Ragged]:
    """List every edge at both of its ends, once.

    Parameters
    ----------
    found : Neighbours
        Of n rows, k each.

    Returns
    -------
    Ragged, Ragged
        int64: every row's neighbours, ascending; float32: their distances.
    """
    n, k = found.indices.shape
    own = np.repeat(np.arange(n), k)
    other: Ints = found.indices.reshape(-1)
    # Each edge as one number, own * n + other; n^2 stays below 2^63 up to three thousand million rows.
    keys = np.concatenate([own * n + other, other * n + own])
    edges, first = np.unique(keys, return_index=True)
    distances = np.tile(found.distances.reshape(-1), 2)[first]
    starts, ends = np.divmod(edges, max(1, n))
    offsets = offsets_of(np.bincount(starts, minlength=n))
    return Ragged(ends, offsets), Ragged(distances, offsets)
