"""Signals: what was measured, once, for all scorers of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged as Ragged
from datapruner.signals.shared import Shared
from datapruner.text import safe_repr, safe_text

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.geometry.clustering import Clustering
    from datapruner.geometry.neighbours import Neighbours

TARGET, TARGET_STATE = "target_embedding", "target_state"
"""Vectors of the rows of the set that `--target` names: as `embedding` and `pooled_state` are of the data's."""
TARGET_SKETCH, TARGET_GRADIENT = "target_output_sketch", "target_gradient_sketch"
"""Sketches of them: as `output_sketch` and `gradient_sketch` are of the data's."""
TARGET_TASK, TARGET_SHARE = "target_task", "target_share"
"""The name of the task that each of them belongs to, and what that task's share is."""
OF_TARGET = frozenset({TARGET, TARGET_STATE, TARGET_SKETCH, TARGET_GRADIENT, TARGET_TASK, TARGET_SHARE})
"""The signals that have an entry for every row of the target, task after task, and not of the data."""
COLUMN = "column:"
"""Stands before the name of a column that a scorer reads as groups: ``column:capability``, int64 codes."""


@dataclass(frozen=True)
class Signals:
    """What was measured, one entry a row, by name.

    Parameters
    ----------
    num_rows : int
    measured : mapping
        Name -> array, sequence or :class:`Ragged` of length ``num_rows`` (but :data:`OF_TARGET`); the names are those
        that measurements give, see :func:`datapruner.signals.plan.known_signals`.
    seed : int
        Seed of everything random that reads these signals.
    rows : ndarray, int64, shape (num_rows,), optional
        Their source positions, for messages; by default they are all rows.
    shared : Shared, optional
        What was made of the vectors before: :meth:`clusters` and :meth:`graph` make the same only once.
    """

    num_rows: int
    measured: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    rows: Ints | None = None
    shared: Shared = field(default_factory=Shared, compare=False, repr=False)

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

    def column(self, name: str) -> NDArray[Any]:
        """Give a signal of one number a row, shape (num_rows,).

        Raises
        ------
        DataPrunerError
            It was not measured, or is something else.
        """
        found: NDArray[Any] = self._as("column", name)
        return found

    def ragged(self, name: str) -> Ragged:
        """Give a signal of one number for every supervised token of a row.

        Raises
        ------
        DataPrunerError
            It was not measured, or is something else.
        """
        found: Ragged = self._as("ragged", name)
        return found

    def matrix(self, name: str) -> Matrix:
        """Give a signal of one vector a row, shape (num_rows, d); those of a target set have as many as that has rows.

        Raises
        ------
        DataPrunerError
            It was not measured, or is something else.
        """
        found: Matrix = self._as("matrix", name)
        return found

    def table(self, name: str) -> Ints:
        """Give a signal of some integers a row, shape (num_rows, k), such as neighbours.

        Raises
        ------
        DataPrunerError
            It was not measured, or is something else.
        """
        found: Ints = self._as("table", name)
        return found

    def texts(self, name: str = "text") -> Sequence[str]:
        """Give a signal of one text a row.

        Raises
        ------
        DataPrunerError
            It was not measured, or is something else.
        """
        found: Sequence[str] = self._as("texts", name)
        return found

    def clusters(self, k: int | None = None, *, iterations: int = 20, of: str = "embedding") -> Clustering:
        """Cluster the rows by the direction of their vectors, once for all who ask for the same.

        Parameters
        ----------
        k : int, optional
            As for :func:`datapruner.geometry.clustering.spherical_kmeans`; so are ``iterations``.
        of : str
            The signal with the vectors.
        """
        return self.shared.clusters(self.matrix(of), k, seed=self.seed, iterations=iterations)

    def graph(self, k: int, *, of: str = "embedding") -> Neighbours:
        """Find every row's k nearest other rows, once for all who ask for the same; one of more neighbours serves too.

        Parameters
        ----------
        k : int
            As for :func:`datapruner.geometry.neighbours.knn_graph`.
        of : str
            The signal with the vectors.
        """
        return self.shared.graph(self.matrix(of), k, seed=self.seed)

    def _as(self, kind: str, name: str) -> Any:
        """Give a signal of one kind, or say what it is."""
        found = self[name]
        if (own := _kind(found)) == kind:
            return found
        raise DataPrunerError(
            f"the signal '{safe_text(name, 60)}' is {KINDS[own]}, not {KINDS[kind]}: read it with signals."
            f"{own}({safe_repr(name, 60)})"
        )

    def source_row(self, place: int) -> int:
        """Give the source position of a row."""
        return place if self.rows is None else int(self.rows[place])


KINDS = {
    "column": "one number a row",
    "ragged": "one number for every token of a row",
    "matrix": "one vector a row",
    "table": "some integers a row",
    "texts": "one text a row",
}
"""How a signal is read -> what it is."""


def _kind(signal: Any) -> str:
    if isinstance(signal, Ragged):
        return "ragged"
    if not hasattr(signal, "shape"):
        return "texts"
    if len(signal.shape) == 1:
        return "column"
    return "table" if signal.dtype.kind in "iu" else "matrix"
