"""What DP4TL's two mappings to a target set share (arXiv 2310.08782)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import FloatBlock, Matrix, iter_blocks, normalise_rows
from datapruner.ranking import Ranking
from datapruner.scorers._grouping import CLUSTER, groups_of, signals_of
from datapruner.scorers.base import Scorer
from datapruner.signals import COLUMN, TARGET, Signals


@dataclass(frozen=True)
class Mapping(Scorer):
    """What both mappings share: the target's rows vote for groups, and groups are taken by their votes.

    Parameters
    ----------
    within : str, optional
        What the groups are: ``label``, ``cluster`` (spherical k-means of the embeddings) or a column's name; by
        default the label where rows differ in it, else clusters.
    n_clusters : int, optional
        k of the clusters; default round(sqrt(n / 2)) between 8 and 1000.
    """

    within: str | None = None
    n_clusters: int | None = None
    needs: ClassVar[frozenset[str]] = frozenset({"embedding", "label", TARGET})
    holds: ClassVar[frozenset[str] | None] = frozenset({"groups", "group", "votes", "target_similarity"})
    paper: ClassVar[str] = "arXiv 2310.08782"

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if self.within is not None and not self.within.removeprefix(COLUMN):
            raise DataPrunerError(f"{self.name}: within is 'cluster', 'label' or a column's name, not empty")
        if self.n_clusters is not None and self.within not in (None, CLUSTER):
            raise DataPrunerError(f"{self.name}: n_clusters is for within=cluster")

    @property
    def requires(self) -> frozenset[str]:
        """The embeddings of both sets, and what the groups are made of."""
        return frozenset({"embedding", TARGET}) | signals_of(self.within)

    @property
    def promises(self) -> frozenset[str]:
        """Equal rows of equal groups get equal values; a clustering depends on the order of the rows."""
        return frozenset({"duplicates"})

    @abstractmethod
    def _votes(self, signals: Signals, groups: Ints, means: Floats, target: FloatBlock) -> Ints:
        """Give the group that each row of the target votes for."""

    def _score(self, signals: Signals) -> Ranking:
        matrix: Matrix = signals.matrix("embedding")
        target = unit_target(signals.matrix(TARGET), matrix.shape[1])
        named = groups_of(signals, self.within, self.n_clusters)
        # A group of which cleaning left no row has no mean.
        numbers, groups = np.unique(named, return_inverse=True)
        means = _means(matrix, groups)
        voted = self._votes(signals, groups, means, target)
        votes = np.bincount(voted, minlength=len(means))
        centre = target.mean(axis=0, dtype=np.float64)
        apart = np.linalg.norm(means - centre, axis=1)
        # Most votes first; of equals, so of all without a vote, the group whose mean is nearer to the target's.
        place = np.empty(len(means), dtype=np.int64)
        place[np.lexsort((apart, -votes))] = np.arange(len(means))[::-1]
        wanted = np.tile(centre, (len(means), 1))
        chosen = votes > 0
        wanted[chosen] = _sums(target, voted, len(means))[chosen] / votes[chosen, None]
        similarity = _cosines(matrix, groups, wanted)
        weights = np.zeros(int(numbers[-1]) + 1)
        weights[numbers] = votes
        return Ranking(
            # Groups are 1 apart, and a cosine moves a row by half of that at most.
            place[groups] + (1 + similarity) / 4,
            groups=named,
            group_weights=weights,
            columns={"group": named, "votes": votes[groups], "target_similarity": similarity},
        )


def nearest_groups(signals: Signals, groups: Ints) -> Ints:
    """Give the number of the group whose mean is nearest to each row of the target; int64 (m,)."""
    matrix: Matrix = signals.matrix("embedding")
    numbers, compact = np.unique(groups, return_inverse=True)
    voted = nearest(_means(matrix, compact), unit_target(signals.matrix(TARGET), matrix.shape[1]))
    return np.asarray(numbers[voted], dtype=np.int64)


def nearest(means: Floats, target: FloatBlock) -> Ints:
    """Give the group whose mean is nearest to each of the target's rows; int64 (m,)."""
    voted: Ints = ((means**2).sum(axis=1) - 2 * (target @ means.T)).argmin(axis=1).astype(np.int64)
    return voted


def unit_target(given: Matrix, width: int) -> FloatBlock:
    """Read the target's vectors, scaled to length one; float32 (m, width)."""
    if given.shape[1] != width:
        raise DataPrunerError(
            f"the target's vectors have {given.shape[1]} numbers and the rows' {width}; embed both with the same model"
        )
    try:
        blocks = []
        for start, _, block in iter_blocks(given):
            normalise_rows(block, start, matrix=given)
            blocks.append(block)
    except DataPrunerError as error:
        raise DataPrunerError(f"the target: {error}") from error
    return np.concatenate(blocks)


def _sums(unit: FloatBlock, groups: Ints, k: int) -> Floats:
    """Add up the rows of every group; float64 (k, d)."""
    from scipy.sparse import csr_matrix

    rows = np.arange(len(groups))
    out: Floats = csr_matrix((np.ones(len(rows)), (groups, rows)), shape=(k, len(rows))) @ unit
    return out


def _means(matrix: Matrix, groups: Ints) -> Floats:
    """Average every group's rows, each scaled to length one; float64 (k, d)."""
    sizes = np.bincount(groups)
    sums = np.zeros((len(sizes), matrix.shape[1]))
    for start, stop, block in iter_blocks(matrix):
        normalise_rows(block, start, matrix=matrix)
        sums += _sums(block, groups[start:stop], len(sizes))
    return sums / sizes[:, None]


def _cosines(matrix: Matrix, groups: Ints, wanted: Floats) -> Floats:
    """Cosine of every row with its group's vector, 0 where that has no direction; float64 (n,)."""
    lengths = np.linalg.norm(wanted, axis=1)
    # Rows that cancel out leave rounding, not a direction.
    unit = np.divide(wanted, lengths[:, None], out=np.zeros_like(wanted), where=lengths[:, None] > 1e-6)
    out = np.empty(len(groups))
    for start, stop, block in iter_blocks(matrix):
        normalise_rows(block, start, matrix=matrix)
        out[start:stop] = np.einsum("ij,ij->i", block, unit[groups[start:stop]])
    return np.clip(out, -1, 1)
