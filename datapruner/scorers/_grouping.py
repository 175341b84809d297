"""Groups that methods work inside of: the dataset's labels, a column, or clusters of the embeddings."""

from __future__ import annotations

import logging

import numpy as np

from datapruner.arrays import Ints
from datapruner.geometry.blocks import iter_blocks, require_finite
from datapruner.signals import COLUMN, Signals

logger = logging.getLogger(__name__)

CLUSTER = "cluster"
LABEL = "label"


def signals_of(within: str | None) -> frozenset[str]:
    """Give the signals that groups are made of; of None, the labels and, where there are none, the embeddings."""
    if within is None:
        return frozenset({LABEL, "embedding"})
    if within == CLUSTER:
        return frozenset({"embedding"})
    return frozenset({within if within == LABEL else COLUMN + within.removeprefix(COLUMN)})


def groups_of(signals: Signals, within: str | None, n_clusters: int | None = None) -> Ints:
    """Give every row's group; a label or column keeps its numbers, some of which may have no row left.

    Parameters
    ----------
    signals : Signals
        Holds :func:`signals_of` what is asked for.
    within : str, optional
        ``label``, ``cluster`` or a column's name; by default the label where rows differ in it, else clusters.
    n_clusters : int, optional
        Of spherical k-means.

    Returns
    -------
    ndarray, int64, shape (n,)
    """
    if within != CLUSTER and (within is not None or len(np.unique(signals.column(LABEL))) > 1):
        if within is None:  # a broken embedding is refused whether or not it is what the groups are made of
            for start, _, block in iter_blocks(signals.matrix("embedding")):
                require_finite(block, start, matrix=signals.matrix("embedding"))
        held = next(iter(signals_of(within or LABEL)))
        if within == LABEL and len(np.unique(signals.column(LABEL))) == 1:
            logger.warning(
                "within=label: no two rows differ in their label, so that all are one group; a column's name in its "
                "place groups by that column"
            )
        return np.asarray(signals.column(held), dtype=np.int64)
    return signals.clusters(n_clusters).assignment
