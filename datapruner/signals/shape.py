"""How vectors lie to each other: their neighbours, and their places on a manifold of few dimensions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.signals.shared import Shared
from datapruner.signals.store import SignalStore, row_keys

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.recipe import Recipe


def measure_shape(
    recipe: Recipe,
    matrix: Matrix,
    store: SignalStore,
    *,
    neighbours: bool,
    manifold: bool,
    shared: Shared | None = None,
) -> dict[str, NDArray[Any]]:
    """Measure how vectors lie to each other: their neighbours, and their places on a manifold of few dimensions.

    Both belong to the whole set of vectors and are stored under its hash: they take minutes for a million rows, and
    UMAP repeats on one machine only.

    Parameters
    ----------
    recipe : Recipe
    matrix : Matrix, shape (n, d)
    store : SignalStore
    neighbours, manifold : bool
        What is wanted.
    shared : Shared, optional
        Takes over the graph of neighbours, and gives the one that is there already.

    Returns
    -------
    dict
        ``neighbours``: int64 (n, n_neighbors); ``manifold``: float64 (n, manifold_dimensions).
    """
    from datapruner.geometry import manifold as manifolds
    from datapruner.geometry.neighbours import Neighbours, distinct_rows, neighbour_table

    content = manifolds.content_hash(matrix)
    n, umap = matrix.shape[0], recipe.manifold == "umap"
    near = {"n_neighbors": recipe.n_neighbors, "seed": recipe.seed}

    def stored(context: dict[str, Any], width: int, compute: Callable[[], NDArray[np.float32]]) -> Any:
        # A record of the whole set: in a folder of its own, which no run over other vectors reads or judges.
        context |= {"version": manifolds.CODE_VERSION, "vectors": content.hex()}
        keys = row_keys((place.to_bytes(8, "little") for place in range(n)), context)
        return store.fetch(keys, context, width, lambda rows: iter([(rows, compute()[rows])]), whole=True)

    @cache
    def table() -> Neighbours:
        k = min(recipe.n_neighbors, len(distinct_rows(matrix)[0]))

        def computed() -> NDArray[np.float32]:
            found = neighbour_table(matrix, recipe.n_neighbors, seed=recipe.seed)
            # The store holds float32, whose bits an index keeps exactly.
            return np.column_stack([found.indices.astype(np.int32).view(np.float32), found.distances])

        both = np.ascontiguousarray(stored({"signal": "neighbours", **near}, 2 * k, computed))
        found = Neighbours(
            np.ascontiguousarray(both[:, :k]).view(np.int32).astype(np.int64), np.array(both[:, k:])
        )
        if shared is not None:
            shared.add_table(matrix, found, seed=recipe.seed)
        return found

    def placed() -> NDArray[np.float32]:
        return manifolds.manifold(
            matrix,
            method=recipe.manifold,
            dimensions=recipe.manifold_dimensions,
            n_neighbors=recipe.n_neighbors,
            seed=recipe.seed,
            neighbours=table() if umap else None,
        ).astype(np.float32)

    measured: dict[str, NDArray[Any]] = {}
    if manifold:
        context = {
            "signal": "manifold",
            "method": recipe.manifold,
            "dimensions": recipe.manifold_dimensions,
            **(near | {"library": metadata.version("umap-learn")} if umap else {}),
        }
        found = stored(context, recipe.manifold_dimensions, placed)
        measured["manifold"] = np.asarray(found, dtype=np.float64)
    if neighbours:
        measured["neighbours"] = table().indices
    return measured
