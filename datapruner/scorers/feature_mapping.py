"""Groups whose mean is nearest to a target set: DP4TL's feature mapping (arXiv 2310.08782)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from datapruner.arrays import Floats, Ints
from datapruner.geometry.blocks import FloatBlock
from datapruner.scorers._target import Mapping, nearest
from datapruner.signals import Signals


@dataclass(frozen=True)
class FeatureMapping(Mapping):
    """Take the groups whose mean is nearest to most rows of a target set.

    *Published*: the mean feature of every source class or cluster; each row of the target votes for the nearest
    mean; the classes with the most votes are kept. *Ours*: means of embeddings scaled to length one; the budget ends
    inside a group, whose rows are taken by their cosine to the mean of the rows that voted for it; equal votes by the
    distance of the group's mean to the target's, so that groups without votes come last, the nearest first. The
    released code takes the nearest over the wrong axis.

    The values say "group by group": a group's votes decide before a row's own nearness does. With the selector
    ``group_quota`` the votes share the budget instead. The clustering depends on the order of the rows.

    Parameters
    ----------
    within : str, optional
        What the groups are: ``label``, ``cluster`` (spherical k-means of the embeddings) or a column's name; by
        default the label where rows differ in it, else clusters.
    n_clusters : int, optional
        k of the clusters; default round(sqrt(n / 2)) between 8 and 1000.
    """

    name: ClassVar[str] = "feature_mapping"
    provenance: ClassVar[str] = "published; unit rows, ties and the order inside a group ours"

    def _votes(self, signals: Signals, groups: Ints, means: Floats, target: FloatBlock) -> Ints:
        return nearest(means, target)
