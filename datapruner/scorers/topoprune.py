"""TopoPrune: how far topology moves a row (arXiv 2602.02739), a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.scorers._displacement import optimise
from datapruner.scorers._grouping import groups_of
from datapruner.scorers._topology import OnManifold, entanglement, points_of
from datapruner.selection.selectors.coverage import WALK
from datapruner.signals import Signals


@dataclass(frozen=True)
class TopoPrune(OnManifold):
    """Score rows by how far an optimiser of persistence moves them on the manifold of the whole set.

    *Published* (abstract of arXiv 2602.02739 and its workshop precursor): a topology-aware approximation of the
    dataset's manifold gives one low-dimensional embedding, standardised; on it a differentiable persistence optimiser;
    importance from each point's corrective displacement. *Ours*, for want of published losses, dimensions, steps and
    combination: everything else, which makes this a reconstruction. In every group, gradient steps on

        L = h0_weight * sum of H0 deaths - h1_weight * sum of squared H1 persistences + anchor * ||X - X0||^2

    of the group's alpha complex, in units of the group's median spanning-tree edge; the displacement is in those
    units too. The selector walks along the group's merge tree (H0) on the manifold, so that what it keeps covers every
    part of the group. Another value on the same manifold, which nobody published, is the scorer
    :class:`~datapruner.scorers.entanglement.Entanglement`.

    Parameters
    ----------
    value : {"displacement", "entanglement"}
        ``entanglement`` is the value of that scorer, and what versions without it did by default; recipes that they
        saved go on with it.
    within : str, optional
        ``label``, ``cluster`` or a column's name; by default the dataset's label column where it has one, else
        clusters of the embeddings.
    n_clusters : int, optional
        Of those clusters.
    keep : {"high", "low"}
        Which end of the value counts as hard.
    walk : int
        Of the column ``entanglement``: steps of the random walk after the first, each of which stays where it is half
        the time.
    steps : int
        Of the optimiser.
    step_size : float
        Of a step, in median edges for a gradient of length one.
    optimiser : {"gradient", "adam"}
    h0_weight, h1_weight, anchor : float
        Of the loss's terms; all zero or above.
    density_weight : float
        The value is multiplied by (local density) to this power; the density is the inverse square of the distance to
        the tenth nearest neighbour in the group, relative to the group's median.
    """

    value: Literal["displacement", "entanglement"] = "displacement"
    within: str | None = None
    n_clusters: int | None = None
    keep: Literal["high", "low"] = "high"
    walk: int = 2
    steps: int = 10
    step_size: float = 0.1
    optimiser: Literal["gradient", "adam"] = "gradient"
    h0_weight: float = 1.0
    h1_weight: float = 1.0
    anchor: float = 0.0
    density_weight: float = 0.0
    name: ClassVar[str] = "topoprune"
    holds: ClassVar[frozenset[str] | None] = frozenset(
        {
            "groups",
            "topology_group",
            "entanglement",
            "displacement",
            "h0_death",
            "h1_birth",
            "h1_death",
            WALK,
            "manifold_*",
            "diagrams_before",
            "diagrams_after",
        }
    )
    paper: ClassVar[str] = "arXiv 2602.02739"
    provenance: ClassVar[str] = (
        "a reconstruction: manifold, persistence optimiser and displacement published, all else ours"
    )

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if self.steps < 1 or self.walk < 0 or not self.step_size > 0:
            raise DataPrunerError(
                "topoprune: steps must be 1 or more, walk 0 or more and step_size above 0, not "
                f"{self.steps}, {self.walk}, {self.step_size}"
            )
        if min(self.h0_weight, self.h1_weight, self.anchor, self.density_weight) < 0:
            raise DataPrunerError("topoprune: weights must not be negative")
        if not self.h0_weight and not self.h1_weight:
            raise DataPrunerError("topoprune: h0_weight and h1_weight are both 0, so nothing would move")

    def _score(self, signals: Signals) -> Ranking:
        groups = groups_of(signals, self.within, self.n_clusters)
        points = points_of(signals)
        moved = optimise(
            points,
            groups,
            steps=self.steps,
            step_size=self.step_size,
            optimiser=self.optimiser,
            weights=(self.h0_weight, self.h1_weight, self.anchor),
        )
        mixed = entanglement(signals.table("neighbours"), groups, self.walk)
        return self._ranked(
            mixed if self.value == "entanglement" else moved.displacement,
            points,
            groups,
            {
                "entanglement": mixed,
                "displacement": moved.displacement,
                "h0_death": moved.h0_death,
                "h1_birth": moved.h1_birth,
                "h1_death": moved.h1_death,
                WALK: moved.place,
            },
            {"diagrams_before": moved.before, "diagrams_after": moved.after},
        )
