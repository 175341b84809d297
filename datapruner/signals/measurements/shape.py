"""How the vectors lie to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.geometry.neighbours import EXACT_ROWS
from datapruner.signals.measurement import Cost, Given, Measurement
from datapruner.signals.run import Run
from datapruner.signals.shape import measure_shape


class Shape(Measurement):
    """Neighbours, and places on a manifold made from them; see :func:`datapruner.signals.shape.measure_shape`."""

    name: ClassVar[str] = "shape"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            "neighbours",
            "the nearest other distinct rows of every row, the first row equal to it before them",
            shape="table",
            dtype="int64",
        ),
        Given("manifold", "the embedding in two or three dimensions, standardised", shape="matrix"),
    )
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})
    together: ClassVar[bool] = True
    cost: ClassVar[Cost] = Cost(6e-3)

    def seconds(self, run: Run, wanted: frozenset[str], rows: int) -> float:
        """Estimate: exact neighbours take the square of the rows, UMAP about as long for every row."""
        umap = run.recipe.manifold == "umap"
        neighbours = rows * min(rows, EXACT_ROWS) * 2e-8 * ("neighbours" in wanted or umap)
        return neighbours + self.cost.seconds * rows * (umap and "manifold" in wanted)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Find the neighbours, and place the rows."""
        return measure_shape(
            run.recipe,
            run.signals["embedding"],
            run.store,
            neighbours="neighbours" in wanted,
            manifold="manifold" in wanted,
            shared=run.shared,
        )
