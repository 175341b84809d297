"""Groups of rows and what pruning a model cost each: what PASER and a damage report share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.geometry.blocks import Matrix, iter_blocks
from datapruner.scorers._grouping import groups_of
from datapruner.scorers._target import nearest_groups
from datapruner.signals import TARGET, Signals

DEGRADATION = {
    "jsd": frozenset({"jsd"}),
    "loss": frozenset({"log_ppl", "pruned_log_ppl"}),
    "gradient": frozenset({"grad_norm", "pruned_grad_norm", "gradient_dot"}),
    "layers": frozenset({"gradient_sketch", "pruned_gradient_sketch"}),
}
"""What a group's damage is told by, and the signals of it."""
OF_ROWS = ("gradient", "layers")
"""Those that compare rows, and say nothing of a token."""


class Groups(NamedTuple):
    """Rows in groups, and what is to be told of how these were found.

    Attributes
    ----------
    groups : ndarray, int64, shape (n,)
    k : int
    state : dict
        ``cluster_stability``: float64 (candidates, 3), K and the mean and standard error of the adjusted Rand index
        of bootstrap pairs; only where K was chosen.
    """

    groups: Ints
    k: int
    state: dict[str, NDArray[Any]]


def damage_groups(signals: Signals, within: str | None, n_clusters: int | None) -> Groups:
    """Group the rows of a damage table or of a recovery set: NMF spectral clusters unless something else is named."""
    if within is not None:
        groups = groups_of(signals, within, n_clusters)
        return Groups(groups, int(groups.max(initial=-1)) + 1, {})
    from datapruner.geometry.diffusion import spectral_clusters

    found = spectral_clusters(
        signals.matrix("embedding"), signals.table("neighbours"), n_clusters, seed=signals.seed
    )
    state: dict[str, NDArray[Any]] = {}
    if (held := found.stability) is not None:
        state["cluster_stability"] = np.column_stack([held.k, held.mean, held.error])
    return Groups(found.assignment, found.n_clusters, state)


def degradation_of(
    signals: Signals, groups: Ints, k: int, kind: str, *, tokens: Ints | None = None
) -> Floats:
    """Tell every group's damage.

    Parameters
    ----------
    signals : Signals
    groups : ndarray, int64, shape (n,)
    k : int
    kind : {"jsd", "loss", "gradient", "layers"}
        See :data:`DEGRADATION`.
    tokens : ndarray, int64, shape (n,), optional
        Rows count by their supervised tokens, so that the damage is that of a token and no longer of a row; not for
        ``gradient`` and ``layers``, which compare rows.

    Returns
    -------
    ndarray, float64, shape (k,)
        Never negative, 0 for a group without rows, or without tokens.
    """

    def sums(values: Floats) -> Floats:
        return np.asarray(np.bincount(groups, values, k), dtype=np.float64)

    def mean(values: Floats) -> Floats:
        if tokens is None:
            return np.asarray(sums(values) / np.maximum(np.bincount(groups, minlength=k), 1))
        counts = np.asarray(tokens, dtype=np.float64)
        return np.asarray(sums(values * counts) / np.maximum(sums(counts), 1))

    if kind == "jsd":
        return mean(np.asarray(signals.column("jsd"), dtype=np.float64))
    if kind == "loss":
        return np.asarray(np.maximum(mean(rise(signals)), 0))
    dense, pruned, dot = (
        of_sketches(signals.matrix("gradient_sketch"), signals.matrix("pruned_gradient_sketch"))
        if kind == "layers"
        else (
            np.asarray(signals.column(name), dtype=np.float64)
            for name in ("grad_norm", "pruned_grad_norm", "gradient_dot")
        )
    )
    scale = np.sqrt(sums(dense**2) * sums(pruned**2))
    correlation = np.divide(sums(dot), scale, out=np.ones(k), where=scale > 0)
    return np.asarray(np.clip(1 - correlation, 0, 2), dtype=np.float64)


def of_sketches(dense: Matrix, pruned: Matrix) -> tuple[Floats, Floats, Floats]:
    """Give both lengths of every row, and the inner product; float64 (n,) each."""
    found = np.empty((3, dense.shape[0]))
    for (start, stop, one), (_, _, other) in zip(iter_blocks(dense), iter_blocks(pruned), strict=True):
        held = found[:, start:stop]
        held[0], held[1] = (np.sqrt(np.einsum("ij,ij->i", of, of, dtype=np.float64)) for of in (one, other))
        held[2] = np.einsum("ij,ij->i", one, other, dtype=np.float64)
    return found[0], found[1], found[2]


def rise(signals: Signals) -> Floats:
    """How much more the pruned model loses on a row than the dense one; nats, float64 (n,)."""
    return np.asarray(signals.column("pruned_log_ppl"), dtype=np.float64) - np.asarray(
        signals.column("log_ppl"), dtype=np.float64
    )


def votes_of(signals: Signals, groups: Ints, k: int) -> Floats:
    """Share of the target's rows whose nearest group mean is each group's; float64 (k,)."""
    counts = np.bincount(nearest_groups(signals, groups), minlength=k)
    return np.asarray(counts / signals.matrix(TARGET).shape[0])
