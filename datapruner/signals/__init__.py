"""Signals: what was measured, once, for all scorers of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged as Ragged

KNOWN = {
    "embedding": "one vector a row, from the embedder or given",
    "target_embedding": "one vector a row of the target set, not of the data",
    "neighbours": "the nearest other distinct rows of every row, the first row equal to it before them",
    "manifold": "the embedding in two or three dimensions, standardised",
    "label": "number of the row's label, 0 for all where the dataset has none",
    "num_tokens": "tokens a row, as the model would see it",
    "num_supervised_tokens": "tokens a row that the loss counts",
    "text": "the row's turns as one string",
    "log_ppl": "mean negative log-likelihood of the supervised tokens, nats",
    "entropy": "mean entropy of the model's predictions at the supervised tokens, nats",
    "el2n": "mean norm of (prediction - target) at the supervised tokens",
    "grad_norm": "Frobenius norm of the mean loss's gradient by the output layer's weights",
    "weight_dot": "inner product of these weights and this gradient",
    "weight_norm": "Frobenius norm of the output layer's weights, the same for every row",
    "token_nll": "negative log-likelihood of every supervised token (ragged), nats",
    "token_entropy": "entropy of the prediction at every supervised token (ragged), nats",
    "number_surprise": "largest NLL - entropy in the last number of the supervised text, nats; 0: no number",
    "jsd": "mean Jensen-Shannon divergence of the dense and the pruned model's predictions, nats",
    "token_jsd": "that divergence at every supervised token (ragged), nats",
    "pruned_log_ppl": "log_ppl of the pruned model, nats",
    "pruned_token_nll": "token_nll of the pruned model (ragged), nats",
    "pruned_grad_norm": "grad_norm of the pruned model",
    "gradient_dot": "inner product of the dense and the pruned model's gradients by their output layers' weights",
    "response_log_ppl": "log_ppl of the same tokens when the model sees the response alone, nats",
    "response_token_nll": "token_nll when the model sees the response alone (ragged), nats",
}
TARGET = "target_embedding"
"""The one signal with an entry for every row of another set, the one that `--target` names."""
COLUMN = "column:"
"""Stands before the name of a column that a scorer reads as groups: ``column:capability``, int64 codes."""


@dataclass(frozen=True)
class Signals:
    """What was measured, one entry a row, by name.

    Parameters
    ----------
    num_rows : int
    measured : mapping
        Name -> array, sequence or :class:`Ragged` of length ``num_rows`` (but :data:`TARGET`); the names are those of
        :data:`KNOWN`.
    seed : int
        Seed of everything random that reads these signals.
    rows : ndarray, int64, shape (num_rows,), optional
        Their source positions, for messages; by default they are all rows.
    """

    num_rows: int
    measured: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    rows: NDArray[np.int64] | None = None

    def __getitem__(self, name: str) -> Any:
        """Give a measured signal.

        Raises
        ------
        DataPrunerError
            It was not measured.
        """
        if name not in self.measured:
            raise DataPrunerError(
                f"the signal '{name}' was not measured; a scorer must list it in its `needs`"
            )
        return self.measured[name]

    def source_row(self, place: int) -> int:
        """Give the source position of a row."""
        return place if self.rows is None else int(self.rows[place])
