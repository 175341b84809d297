"""What a cleaning step hands on: the rows it drops, what each refers to, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Vetoes:
    """Rows that a cleaning step drops before any score is looked at.

    Parameters
    ----------
    kind
        Why: ``exact_duplicate``, ``near_duplicate``, ``semantic_duplicate``, ``contaminated``, ...
    rows
        int64 [m], strictly ascending: positions in the source dataset.
    others
        int64 [m]: the kept row (or the test row) that each refers to, -1 where there is none.
    measures
        float64 [m]: Jaccard similarity, cosine or share; 1.0 for an exact duplicate.
    template
        Sentence with the fields ``{other}`` and ``{measure}``.
    """

    kind: str
    rows: NDArray[np.int64]
    others: NDArray[np.int64]
    measures: NDArray[np.float64]
    template: str

    def __post_init__(self) -> None:
        """Fix the dtypes and refuse arrays that do not belong together."""
        for name, dtype in (("rows", np.int64), ("others", np.int64), ("measures", np.float64)):
            array = np.array(getattr(self, name), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.rows.ndim != 1 or not self.rows.shape == self.others.shape == self.measures.shape:
            raise ValueError(
                f"rows {self.rows.shape}, others {self.others.shape} and measures {self.measures.shape} "
                "must be one-dimensional and of one length."
            )
        if self.rows.size and (self.rows[0] < 0 or np.any(np.diff(self.rows) <= 0)):
            raise ValueError("Vetoed rows must be unique, ascending and not negative.")

    def __len__(self) -> int:
        """Return the number of dropped rows."""
        return int(self.rows.size)

    def reasons(self) -> list[str]:
        """Return one sentence for every dropped row, in the order of ``rows``."""
        return [
            self.template.format(other=int(other), measure=float(measure))
            for other, measure in zip(self.others, self.measures, strict=True)
        ]


def collected(kind: str, dropped: list[tuple[int, int, float]], template: str) -> Vetoes:
    """Collect (row, other, measure) in row order."""
    dropped = sorted(dropped)
    return Vetoes(
        kind=kind,
        rows=np.array([row for row, _, _ in dropped], dtype=np.int64),
        others=np.array([other for _, other, _ in dropped], dtype=np.int64),
        measures=np.array([measure for _, _, measure in dropped], dtype=np.float64),
        template=template,
    )
