"""Self-supervised prototypes (Sorscher et al. 2022, arXiv 2206.14486)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.signals import Signals

if TYPE_CHECKING:
    from datapruner.selection.selectors.topk import TopK


@dataclass(frozen=True)
class Prototypes(Scorer):
    """Difficulty = cosine distance to the nearest of k prototypes.

    *Published* (section 4.2 of the paper): k-means in embedding space, difficulty by distance, the hardest
    kept when data is plentiful and the easiest when it is scarce; k within an order of magnitude of the
    number of classes; a class-balance floor of half of a class's even share. *Ours*: spherical k-means, the
    default k, and clusters in place of classes in the floor.

    The clustering depends on the order of the rows, so permuted rows may get other values.

    Parameters
    ----------
    n_clusters : int, optional
        k; default round(sqrt(n / 2)) between 8 and 1000.
    keep : {"hard", "easy"}
        Far from the prototypes, or near.
    balance : float
        b in [0, 1]: every cluster keeps at least floor(b * size * budget / n) rows; 0 is off.
    """

    n_clusters: int | None = None
    keep: Literal["hard", "easy"] = "hard"
    balance: float = 0.5
    name: ClassVar[str] = "prototypes"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    holds: ClassVar[frozenset[str] | None] = frozenset({"cluster", "centroid_distance"})
    paper: ClassVar[str] = "arXiv 2206.14486"
    provenance: ClassVar[str] = "published; spherical k-means and the floor over clusters ours"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if not 0 <= self.balance <= 1:
            raise DataPrunerError(f"prototypes: balance must lie between 0 and 1, not {self.balance}")

    @property
    def promises(self) -> frozenset[str]:
        """Equal rows get equal values; the clustering depends on the order of the rows."""
        return frozenset({"duplicates"})

    def selector(self) -> TopK:
        """Top-k with the class-balance floor."""
        from datapruner.selection.selectors.topk import TopK

        return TopK(balance=self.balance)

    def _score(self, signals: Signals) -> Ranking:
        clusters = signals.clusters(self.n_clusters)
        distance = clusters.distance.astype(np.float64)
        return Ranking(
            distance if self.keep == "hard" else -distance,
            groups=clusters.assignment,
            columns={"cluster": clusters.assignment, "centroid_distance": distance},
        )
