"""Groups that a classifier sees in a target set: DP4TL's label mapping (arXiv 2310.08782)."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import FloatBlock, gather, normalise_rows
from datapruner.scorers._target import Mapping
from datapruner.signals import Signals

logger = logging.getLogger(__name__)

ITERATIONS = 1000


@dataclass(frozen=True)
class LabelMapping(Mapping):
    """Take the groups that a classifier of the groups sees in a target set.

    *Published*: a surrogate model trained on the source's labels predicts every row of the target, each prediction is
    a vote, and the classes with the most votes are kept. *Ours*: the surrogate is a logistic regression on the
    embeddings, trained on a seeded sample of the rows where there are many; the order of equal votes and inside a
    group is that of :class:`~datapruner.scorers.feature_mapping.FeatureMapping`. A group without a row in the
    sample gets no vote.

    Parameters
    ----------
    within, n_clusters
        The groups, as in :class:`~datapruner.scorers.feature_mapping.FeatureMapping`.
    train_rows : int
        Rows that the classifier is trained on, at most.
    """

    train_rows: int = 20_000
    name: ClassVar[str] = "label_mapping"
    provenance: ClassVar[str] = (
        "published; logistic regression on embeddings, ties and the order inside a group ours"
    )

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if self.train_rows < 1:
            raise DataPrunerError(f"label_mapping: train_rows must be 1 or more, not {self.train_rows}")

    def _votes(self, signals: Signals, groups: Ints, means: Floats, target: FloatBlock) -> Ints:
        rows = np.arange(len(groups))
        if len(rows) > self.train_rows:
            drawn = np.random.default_rng(signals.seed).choice(len(rows), self.train_rows, replace=False)
            rows = np.sort(drawn)
        if len(np.unique(groups[rows])) == 1:  # nothing to tell apart
            return np.full(len(target), groups[rows[0]], dtype=np.int64)
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        block = gather(signals.matrix("embedding"), rows)
        normalise_rows(block, rows, matrix=signals.matrix("embedding"))
        model = LogisticRegression(max_iter=ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # said below, in our words
            model.fit(block, groups[rows])
        if int(np.max(model.n_iter_)) >= ITERATIONS:
            logger.warning("label_mapping: the classifier had not converged after %d iterations", ITERATIONS)
        voted: Ints = model.predict(target).astype(np.int64)
        return voted
