"""Rows whose vectors all but coincide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.arrays import Flags, Ints
from datapruner.choices import Match
from datapruner.cleaning.rows import checked_rows
from datapruner.cleaning.step import UNREAD, CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes, collected
from datapruner.errors import DataPrunerError, RowError
from datapruner.reasons import Reason

if TYPE_CHECKING:
    from datapruner.recipe import Recipe

SEMANTIC = Reason(
    "semantic_duplicate",
    "semantic duplicate of row {other} (cosine {measure:.3f})",
    "semantic duplicate",
    label="dropped as semantic duplicates",
    way_out="lower --semantic-eps if these are different rows",
)


@dataclass(frozen=True)
class Semantic(CleaningStep):
    """Rows whose vectors all but coincide.

    See :func:`semantic_duplicates`.

    Attributes
    ----------
    eps : float
        Cosine distance below which a row goes, in (0, 2].
    match : {"text", "exact", "loose"}
        What counts as the same where rows are more than their texts.
    """

    name = "semantic"
    reasons = (SEMANTIC,)
    needs = ("embedding", UNREAD)
    order = 60
    switch = "--dedup-semantic"

    eps: float = 0.05
    match: Match = "text"

    @classmethod
    def switched_on(cls, recipe: Recipe) -> Self | None:
        """Where ``dedup`` says so."""
        return cls(recipe.semantic_eps, recipe.match) if "semantic" in recipe.dedup else None

    def clean(self, left: Remaining) -> Vetoes:
        """Compare the vectors inside clusters; rows whose vectors say nothing are duplicates of none."""
        rows, matrix = left.rows, left.signals["embedding"]
        clusters = left.shared.clusters(matrix, seed=left.seed)
        found = semantic_duplicates(
            matrix,
            np.where(left.signals[UNREAD], -1, clusters.assignment),
            clusters.centroids,
            np.arange(len(rows)),
            eps=self.eps,
            protected=left.protected[rows],
            apart=left.apart(self.match),
        )
        others = np.where(found.others >= 0, rows[found.others], -1)
        return Vetoes(SEMANTIC, rows[found.rows], others, found.measures)


def semantic_duplicates(
    embeddings: Any,
    assignment: ArrayLike,
    centroids: ArrayLike,
    rows: ArrayLike,
    *,
    eps: float = 0.05,
    keep_rule: Literal["kept", "any"] = "kept",
    block_size: int = 2048,
    protected: Flags | None = None,
    apart: ArrayLike | None = None,
) -> Vetoes:
    """Drop a row whose embedding lies within ``eps`` of an earlier one in the same cluster (SemDeDup).

    *Published* (Abbas et al. 2023, arXiv 2303.09540, Algorithm 1): inside each k-means cluster visit
    the items by descending cosine distance to the centroid; drop item j when
    max_{i before j} cos(x_i, x_j) > 1 - eps. In the official code dropped items suppress later ones
    too: ``keep_rule="any"``. *Ours*: by default only **kept** items suppress, so that a chain of small
    steps does not vanish whole; equal distances break by row number; protected rows come first.

    Parameters
    ----------
    embeddings
        Array-like [n, d], any float dtype, a ``np.memmap`` too; read as ``embeddings[source_rows]``.
        Need not have unit length; a zero vector is no duplicate of anything.
    assignment
        int64 [n]: cluster of every source row, -1 where it has none (such a row is never dropped).
    centroids
        float [k, d]; need not have unit length.
    rows
        int64 [m], strictly ascending: the source rows that are still alive.
    eps
        Cosine distance in (0, 2] below which an item is a duplicate.
    keep_rule
        ``"kept"`` or ``"any"``, see above. Under ``"any"`` the row that is named may be dropped itself.
    block_size
        Rows a side of a block of similarities.
    protected
        bool [n] by source position: rows that are always kept.
    apart
        int64 [m]: rows of different numbers are never duplicates, whatever their vectors.

    Returns
    -------
    Vetoes
        Kind ``semantic_duplicate``; other = the suppressing row of largest cosine, measure = the cosine.

    Notes
    -----
    Memory: one cluster's vectors (float32 [m_c, d]) and one block of similarities, never m_c x m_c.
    """
    if not 0 < eps <= 2:
        raise DataPrunerError(f"The semantic-duplicate eps must lie in (0, 2], not {eps}.")
    if keep_rule not in ("kept", "any"):
        raise DataPrunerError(f"keep_rule must be 'kept' or 'any', not {keep_rule!r}.")
    if block_size < 1:
        raise DataPrunerError(f"block_size must be at least 1, not {block_size}.")
    alive = checked_rows(rows, protected)
    clusters = np.asarray(assignment)
    centres = _unit(np.asarray(centroids))
    if alive.size and (clusters.shape != (len(embeddings),) or alive[-1] >= clusters.size):
        raise DataPrunerError(
            f"There are {len(embeddings)} embeddings and {clusters.size} cluster assignments "
            f"for rows up to {alive[-1]}; each source row needs one of both."
        )
    cluster = clusters[alive]
    if alive.size and cluster.max() >= len(centres):
        raise DataPrunerError(f"Cluster {cluster.max()} has no centroid; there are {len(centres)}.")

    # One stable sort instead of a scan of all rows for every cluster.
    kinds = np.zeros_like(cluster) if apart is None else np.asarray(apart)
    by_cluster = np.lexsort((kinds, cluster))
    dropped: list[tuple[int, int, float]] = []
    differs = (np.diff(cluster[by_cluster]) != 0) | (np.diff(kinds[by_cluster]) != 0)
    edges = np.flatnonzero(differs) + 1
    for members in np.split(by_cluster, edges):
        if members.size < 2 or cluster[members[0]] < 0:
            continue
        source = alive[members]
        vectors = _unit(np.asarray(embeddings[source]))
        if not np.isfinite(vectors).all():
            bad = source[~np.isfinite(vectors).all(axis=1)][0]
            raise RowError(f"The embedding of row {bad} is not finite; embed it again or remove it.", bad)
        safe = np.zeros(members.size, dtype=bool) if protected is None else protected[source]
        # A sum along each row, not a matrix product: identical rows then get identical distances.
        distance = 1 - (vectors * centres[cluster[members[0]]]).sum(axis=1)
        order = np.lexsort((source, -distance, ~safe))
        dropped += _suppressed(
            vectors[order],
            source[order],
            safe[order],
            limit=1 - eps,
            keep_rule=keep_rule,
            block_size=block_size,
        )
    return collected(SEMANTIC, dropped)


def _suppressed(
    vectors: NDArray[np.float32],
    source: Ints,
    safe: Flags,
    *,
    limit: float,
    keep_rule: str,
    block_size: int,
) -> list[tuple[int, int, float]]:
    """Visit one cluster in the given order and return (row, other, cosine) of the items it drops."""
    dropped: list[tuple[int, int, float]] = []
    # Suppressors move to the front of the same array, so that no second copy of the vectors is held.
    kept = np.empty(source.size, dtype=np.int64)
    used = 0
    for start in range(0, source.size, block_size):
        block = slice(start, min(start + block_size, source.size))
        here = vectors[block].copy()
        best = np.full(len(here), -np.inf, dtype=np.float32)
        other = np.full(len(here), -1, dtype=np.int64)
        for first in range(0, used, block_size):
            cosine = here @ vectors[first : min(first + block_size, used)].T
            nearest = cosine.argmax(axis=1)
            value = cosine[np.arange(len(here)), nearest]
            better = value > best
            best[better], other[better] = value[better], kept[first + nearest[better]]
        cosine = here @ here.T
        chosen = np.zeros(len(here), dtype=bool)
        for j in range(len(here)):
            drop = best[j] > limit and not safe[start + j]
            if drop:
                dropped.append((int(source[start + j]), int(other[j]), float(best[j])))
            if not drop or keep_rule == "any":
                chosen[j] = True
                better = cosine[j, j + 1 :] > best[j + 1 :]
                best[j + 1 :][better] = cosine[j, j + 1 :][better]
                other[j + 1 :][better] = source[start + j]
        count = int(chosen.sum())
        vectors[used : used + count] = here[chosen]
        kept[used : used + count] = source[block][chosen]
        used += count
    return dropped


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Scale rows to unit length in float32; a zero row stays zero."""
    single = np.array(vectors, dtype=np.float32)
    norms = np.sqrt((single * single).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(single, norms, out=single, where=norms != 0), dtype=np.float32)
