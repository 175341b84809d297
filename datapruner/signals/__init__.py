"""Signals: what was measured, once, for all scorers of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError

KNOWN = {
    "embedding": "one vector a row, from the embedder or given",
    "num_tokens": "tokens a row, as the model would see it",
    "num_supervised_tokens": "tokens a row that the loss counts",
    "text": "the row's turns as one string",
}


@dataclass(frozen=True)
class Signals:
    """What was measured, one entry a row, by name.

    Parameters
    ----------
    num_rows : int
    measured : mapping
        Name -> array or sequence of length ``num_rows``; the names are those of :data:`KNOWN`.
    seed : int
        Seed of everything random that reads these signals.
    """

    num_rows: int
    measured: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

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

    def take(self, rows: NDArray[np.int64]) -> Signals:
        """Restrict to some rows, without copying what is large."""
        if len(rows) == self.num_rows:
            return self
        from datapruner.geometry.blocks import RowView

        def part(value: Any) -> Any:
            if isinstance(value, np.ndarray) and value.ndim == 1:
                return value[rows]
            if hasattr(value, "shape"):
                return RowView(value, rows)
            return [value[row] for row in rows.tolist()]

        return Signals(len(rows), {name: part(value) for name, value in self.measured.items()}, self.seed)
