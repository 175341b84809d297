"""What pruning did to the rows of one group, and what tells the group from the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.geometry.blocks import Matrix, iter_blocks, normalise_rows

CLUSTERS = "cluster"


@dataclass(frozen=True)
class GroupDamage:
    """What pruning did to the rows of one group.

    Attributes
    ----------
    by : str
        ``cluster``, or the column.
    name : str
        The cluster's number, or the column's value.
    rows : int
    jsd : float
        Mean Jensen-Shannon divergence of the two models' predictions, nats, in [0, ln 2].
    jsd_low, jsd_high : float, optional
        Its 95 % bootstrap interval over rows; None for a group of fewer than five.
    log_ppl, pruned_log_ppl : float, optional
        Mean loss of a row before and after pruning, nats; None where divergences were given.
    share : float
        Of the rise of the loss over all rows, or of the divergence where losses are not known.
    keywords : tuple of str
        Concepts that are frequent here and rare elsewhere.
    typical : tuple of int
        Source rows nearest to the group's mean embedding.
    """

    by: str
    name: str
    rows: int
    jsd: float
    jsd_low: float | None
    jsd_high: float | None
    log_ppl: float | None
    pruned_log_ppl: float | None
    share: float
    keywords: tuple[str, ...] = ()
    typical: tuple[int, ...] = ()


def nearness(vectors: Matrix, groups: Ints, k: int) -> Floats:
    """Give every row's product with its group's mean, of unit vectors; float64 (n,), a block in memory at a time."""
    means = np.zeros((k, vectors.shape[1]))
    for start, stop, block in iter_blocks(vectors):
        normalise_rows(block, start)
        for j in np.unique(groups[start:stop]):
            means[j] += block[groups[start:stop] == j].sum(axis=0, dtype=np.float64)
    means /= np.maximum(np.bincount(groups, minlength=k), 1)[:, None]
    near = np.empty(len(groups))
    for start, stop, block in iter_blocks(vectors):
        normalise_rows(block, start)
        near[start:stop] = np.einsum("nd,nd->n", block, means[groups[start:stop]])
    return near


def counts_of(ids: NDArray[Any]) -> Counter[int]:
    """Count how often every concept comes."""
    return Counter(ids.tolist())
