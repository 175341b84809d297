"""Groups on a manifold: walks along their merge trees, random walks between them, and how dense they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError, RowError
from datapruner.ranking import Ranking
from datapruner.ranks import rows_of_groups
from datapruner.scorers._grouping import signals_of
from datapruner.scorers.base import Scorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from datapruner.geometry.persistence import Pairs
    from datapruner.ragged import Ragged
    from datapruner.selection.selector import Selector
    from datapruner.signals import Signals

GROUPS_AT_ONCE = 16
"""A walk is followed for so many groups together: three arrays of 128 bytes a row."""
WORK = 10**12
"""Products that a walk may take; half an hour or more."""


class OnManifold(Scorer):
    """A value of every row on the manifold, and in every group a walk along its merge tree.

    No dataclass itself: a scorer has these fields among its own, in its order.
    """

    within: str | None
    keep: Literal["high", "low"]
    density_weight: float
    needs: ClassVar[frozenset[str]] = frozenset({"manifold", "neighbours", "label", "embedding"})

    @property
    def requires(self) -> frozenset[str]:
        """The manifold and its graph, and what the groups are made of."""
        return frozenset({"manifold", "neighbours"}) | signals_of(self.within)

    @property
    def promises(self) -> frozenset[str]:
        """Equal rows get equal values; the clustering depends on the order of the rows."""
        return frozenset({"duplicates"})

    def selector(self) -> Selector:
        """Strata of the value, and inside each a walk along the merge trees."""
        from datapruner.selection.selectors.coverage import Coverage

        return Coverage()

    def _ranked(
        self,
        value: Floats,
        points: Floats,
        groups: Ints,
        columns: Mapping[str, NDArray[Any]],
        state: Mapping[str, NDArray[Any] | Ragged] | None = None,
    ) -> Ranking:
        """Rank by the value, weighted by the density where that is asked for."""
        if self.density_weight:
            value = value * density(points, groups) ** self.density_weight
        return Ranking(
            value if self.keep == "high" else -value,
            groups=groups,
            group_weights=np.bincount(groups).astype(np.float64),
            columns={"topology_group": groups, **columns, **coordinates(points)},
            state=state or {},
        )


def entanglement(neighbours: Ints, groups: Ints, walk: int) -> Floats:
    """Give the share of a random walk on the graph of neighbours that ends outside a row's group (*ours*).

    The first step goes to one of the row's neighbours, each later one stays or goes on with equal chances.

    Parameters
    ----------
    neighbours : ndarray, int64, shape (n, k)
        As the signal has it: the first row equal to the row, then the nearest others.
    groups : ndarray, int64, shape (n,)
        Where rows are equal and their groups are not, the point belongs to each by its share.
    walk : int
        Steps after the first.

    Returns
    -------
    ndarray, float64, shape (n,), in [0, 1]
        0 where a row has no neighbours.

    Raises
    ------
    DataPrunerError
        There are too many groups for so many rows.
    """
    from scipy.sparse import csr_array

    nodes, number = np.unique(neighbours[:, 0], return_inverse=True)
    others = number[neighbours[nodes, 1:]]
    u, k = others.shape
    if not k:
        return np.zeros(len(groups))
    step = csr_array((np.full(u * k, 1 / k), others.reshape(-1), np.arange(0, u * k + 1, k)), shape=(u, u))
    copies = np.bincount(number)
    out = np.empty(len(groups))
    present = np.unique(groups)
    if len(present) * u * k * (walk + 1) > WORK:
        raise DataPrunerError(
            f"{len(present):,} groups of {len(groups):,} rows are too many to follow a walk for each; name a column "
            "with fewer values, or within=cluster"
        )
    for start in range(0, len(present), GROUPS_AT_ONCE):
        chunk = present[start : start + GROUPS_AT_ONCE]
        rows = np.flatnonzero(np.isin(groups, chunk))
        column = np.searchsorted(chunk, groups[rows])
        share = np.zeros((u, len(chunk)))
        np.add.at(share, (number[rows], column), 1 / copies[number[rows]])
        share = step @ share
        for _ in range(walk):
            share = (share + step @ share) / 2
        out[rows] = 1 - share[number[rows], column]
    return np.clip(np.round(out, 12), 0, 1)  # the sums' own rounding must not rank rows


@dataclass(frozen=True, eq=False)
class Clouds:
    """The points of every group, repeated ones once, with their persistence pairs.

    Attributes
    ----------
    points : ndarray, float64, shape (m, d)
    group : ndarray, int64, shape (m,)
    members : list of ndarray
        The points of each group.
    number : ndarray, int64, shape (n,)
        Which point every row is.
    found : list of Pairs
    """

    points: Floats
    group: Ints
    members: list[Ints]
    number: Ints
    found: list[Pairs]

    def places(self) -> Ints:
        """Give every row's place along the groups' merge trees; int64 (n,)."""
        from datapruner.geometry.persistence import Pairs, merge_order

        place, walked = np.empty(len(self.points), dtype=np.int64), 0
        for rows, held in zip(self.members, self.found, strict=True):
            own = Pairs(np.searchsorted(rows, held.merges), held.births, held.deaths)
            place[rows[merge_order(len(rows), own)]] = np.arange(walked, walked + len(rows))
            walked += len(rows)
        return np.asarray(place[self.number])


def arranged(points: Floats, groups: Ints, *, loops: bool) -> Clouds:
    """Find the persistence pairs of every group's points, with H1 or without."""
    from datapruner.geometry.persistence import distinct, pairs_of_groups

    if points.shape[1] > 3:
        raise DataPrunerError(
            f"topology is looked at on a manifold of 1 to 3 dimensions, and this one has {points.shape[1]}; set "
            "--manifold-dimensions=2"
        )
    keyed = np.column_stack([groups, points])
    first = distinct(keyed)
    members = rows_of_groups(groups[first])
    return Clouds(
        points[first],
        groups[first],
        members,
        _lookup(keyed, first),
        pairs_of_groups(points[first], members, loops=loops),
    )


def merge_places(points: Floats, groups: Ints) -> Ints:
    """Give every row's place on a walk along the groups' merge trees (H0), one group after the other.

    Parameters
    ----------
    points : ndarray, float64, shape (n, d), d of 1 to 3
    groups : ndarray, int64, shape (n,)

    Returns
    -------
    ndarray, int64, shape (n,)
        Equal points of a group have one place.
    """
    return arranged(points, groups, loops=False).places()


def points_of(signals: Signals) -> Floats:
    """Give the manifold's coordinates, float64 (n, d), or refuse them by the row that has none."""
    points = np.asarray(signals.matrix("manifold"), dtype=np.float64)
    if not np.isfinite(points).all():
        row = signals.source_row(int(np.argmin(np.isfinite(points).all(axis=1))))
        raise RowError(f"the signal 'manifold' is not finite in row {row}", row)
    return points


def coordinates(points: Floats) -> dict[str, Floats]:
    """Name the coordinates as a ranking's columns."""
    return {f"manifold_{j + 1}": points[:, j] for j in range(points.shape[1])}


def _lookup(keyed: Floats, first: Ints) -> Ints:
    """Give for every row the number of the distinct row that it equals."""
    _, place, inverse = np.unique(keyed + 0.0, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(place), dtype=np.int64)
    rank[np.argsort(place, kind="stable")] = np.arange(len(place))
    assert len(rank) == len(first)
    return rank[inverse.reshape(-1)]


def density(points: Floats, groups: Ints, neighbours: int = 10) -> Floats:
    """Inverse square of the distance to the tenth neighbour in the group, 1 at the group's median."""
    from scipy.spatial import cKDTree

    out = np.ones(len(points))
    for rows in rows_of_groups(groups):
        if len(rows) < 3:
            continue
        k = min(neighbours + 1, len(rows))
        apart: Any = cKDTree(points[rows]).query(points[rows], k=k)[0][:, -1]
        apart = np.maximum(apart, 1e-12)
        out[rows] = (np.median(apart) / apart) ** 2
    return out
