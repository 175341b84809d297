"""Entanglement: how far a row's group is mixed with others around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.scorers._grouping import groups_of
from datapruner.scorers._topology import OnManifold, entanglement, merge_places, points_of
from datapruner.selection.selectors.coverage import WALK
from datapruner.signals import Signals


@dataclass(frozen=True)
class Entanglement(OnManifold):
    """Score rows by how often a short random walk from them ends in another group (*ours*).

    The walk goes over the graph of the rows' nearest neighbours: near 0 inside a group, 1 where a row lies among
    others' rows, as wrongly labelled ones do. The selector drops the most entangled tenth, and walks along the groups'
    merge trees (H0) on the manifold, so that what it keeps covers every part of every group. It was found while
    TopoPrune (arXiv 2602.02739) was rebuilt, does not optimise persistence, and is no part of that paper.

    Parameters
    ----------
    within : str, optional
        ``label``, ``cluster`` or a column's name; by default the dataset's label column where it has one, else
        clusters of the embeddings.
    n_clusters : int, optional
        Of those clusters.
    keep : {"high", "low"}
        Which end counts as hard.
    walk : int
        Steps of the random walk after the first, each of which stays where it is half the time.
    density_weight : float
        The value is multiplied by (local density) to this power; the density is the inverse square of the distance to
        the tenth nearest neighbour in the group, relative to the group's median.
    """

    within: str | None = None
    n_clusters: int | None = None
    keep: Literal["high", "low"] = "high"
    walk: int = 2
    density_weight: float = 0.0
    name: ClassVar[str] = "entanglement"
    holds: ClassVar[frozenset[str] | None] = frozenset(
        {"groups", "topology_group", "entanglement", WALK, "manifold_*"}
    )
    paper: ClassVar[str] = "none"
    provenance: ClassVar[str] = "ours; coverage by strata from arXiv 2210.15809"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if self.walk < 0 or self.density_weight < 0:
            raise DataPrunerError(
                f"entanglement: walk and density_weight must be 0 or more, not {self.walk}, {self.density_weight}"
            )

    def _score(self, signals: Signals) -> Ranking:
        groups = groups_of(signals, self.within, self.n_clusters)
        points = points_of(signals)
        mixed = entanglement(signals.table("neighbours"), groups, self.walk)
        return self._ranked(
            mixed, points, groups, {"entanglement": mixed, WALK: merge_places(points, groups)}
        )
