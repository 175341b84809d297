"""PASER: data that gives back to a pruned model what pruning took."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.scorers._damage import DEGRADATION, OF_ROWS, damage_groups, degradation_of, rise, votes_of
from datapruner.scorers._grouping import signals_of
from datapruner.scorers.base import Scorer
from datapruner.signals import TARGET, Signals

if TYPE_CHECKING:
    from datapruner.selection.selector import Selector
    from datapruner.signals.texts.concepts import Concepts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Paser(Scorer):
    """Spend the budget where pruning did most damage, on rows whose damage is cheap to repair.

    *Published* (arXiv 2502.12594): embeddings, a diffusion kernel and NMF spectral clustering, the number of clusters
    chosen from the data; a cluster's capability degradation is the mean Jensen-Shannon divergence of the dense and the
    pruned model's predictions; its budget is proportional to that; inside, rows by divergence / log cost, the cost
    being tokens squared; a row is rejected where two known concepts of it stand together in no accepted row. *Ours*:
    the sparse diffusion map and the choice of K by bootstrap (:mod:`datapruner.geometry.diffusion`); the divergence a
    supervised token, averaged over the row, where the released code sums over the prompt; log1p; caps and largest
    remainders (:func:`datapruner.selection.allocation.allocate`, ``proportional``); concepts without a tagger
    (:mod:`datapruner.signals.texts.concepts`); and every option below that is not marked as published.

    Parameters
    ----------
    within : str, optional
        What the groups are: by default NMF spectral clusters (*published*); else ``label``, ``cluster`` (spherical
        k-means) or a column's name.
    n_clusters : int, optional
        K; by default chosen by bootstrap stability.
    degradation : {"jsd", "loss", "gradient", "layers"}
        A group's damage: the mean divergence (*published*); the mean rise of the loss, where there is one; or 1 - the
        correlation of the two models' output-layer gradients over its rows, trace(E G1 G2^T) / sqrt(trace(E G1 G1^T)
        trace(E G2 G2^T)); or the same by sketches of the gradients of every linear layer of the body (*ours*, see
        :mod:`datapruner.signals.language_model.sketch`), each of which counts alike, for two passes with a way back.
    budget : {"degradation", "degradation_size", "size", "token_degradation", "token_degradation_size", "token_size", \
"uniform"}
        A group's share: its damage (*published*), its damage times its rows, or its rows; the same with tokens in the
        place of rows; or the same for all. With tokens the damage is the mean over the group's supervised tokens, so
        that a long row counts as what it costs under ``--keep-tokens``, and ``token_degradation_size`` keeps tokens of
        every group at a rate in proportion to the damage of its tokens. Not with a ``degradation`` of gradients, but
        for ``token_size``.
    efficiency : {"jsd_per_cost", "jsd", "loss_per_cost", "loss", "typical", "random"}
        The order inside a group: divergence / log1p(tokens^2) (*published*), the divergence alone; the same with the
        rise of the loss, where a row that the dense model does not know either comes late; nearness to the group's
        median divergence; or a seeded shuffle.
    concepts : int
        Concepts a row, at most, of which a graph is kept consistent (*published*; how many is ours: of five, most rows
        are in conflict); 0 for no graph.
    target : bool
        Multiply a group's damage by its share of the rows of ``--target``, each of which votes for the nearest mean.
    weights : mapping
        Number of a group, as text -> what its damage is multiplied by; others are multiplied by 1. Clusters have the
        number that ``datapruner damage`` lists, a column's values are numbered in the order of their first rows.
    """

    within: str | None = None
    n_clusters: int | None = None
    degradation: Literal["jsd", "loss", "gradient", "layers"] = "jsd"
    budget: Literal[
        "degradation",
        "degradation_size",
        "size",
        "token_degradation",
        "token_degradation_size",
        "token_size",
        "uniform",
    ] = "degradation"
    efficiency: Literal["jsd_per_cost", "jsd", "loss_per_cost", "loss", "typical", "random"] = "jsd_per_cost"
    concepts: int = 3
    target: bool = False
    weights: dict[str, float] = field(default_factory=dict)
    name: ClassVar[str] = "paser"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding", "neighbours", "jsd", "num_tokens", "text"})
    holds: ClassVar[frozenset[str] | None] = frozenset(
        {
            "groups",
            "cluster",
            "jsd",
            "degradation",
            "log_ppl",
            "pruned_log_ppl",
            "jsd_from_median",
            "cluster_stability",
            "concepts",
            "concept_names",
        }
    )
    paper: ClassVar[str] = "arXiv 2502.12594"
    provenance: ClassVar[str] = (
        "published; sparse diffusion map, K by bootstrap, divergence a supervised token, caps and concepts ours"
    )

    def __post_init__(self) -> None:
        """Refuse parameters that have no meaning."""
        super().__post_init__()
        if self.concepts < 0:
            raise DataPrunerError(f"paser: concepts must be 0 or more, not {self.concepts}")
        if any(not 0 <= weight < np.inf for weight in self.weights.values()):
            raise DataPrunerError("paser: weights must be finite and 0 or above")
        if self.by_tokens and self.budget != "token_size" and self.degradation in OF_ROWS:
            raise DataPrunerError(
                f"paser: budget={self.budget} is of tokens, and degradation={self.degradation} compares rows; take "
                "jsd or loss"
            )
        if self.within not in (None, "cluster") and self.n_clusters is not None:
            raise DataPrunerError(f"paser: n_clusters is for clusters, and the groups are '{self.within}'")

    @property
    def by_tokens(self) -> bool:
        """Whether a group's share counts tokens in the place of rows."""
        return self.budget.startswith("token_")

    @property
    def requires(self) -> frozenset[str]:
        """What the groups, their damage and the rows' order are made of."""
        wanted = {"jsd"} | DEGRADATION[self.degradation]
        wanted |= {"embedding", "neighbours"} if self.within is None else signals_of(self.within)
        if self.efficiency.endswith("cost"):
            wanted.add("num_tokens")
        if self.by_tokens:
            wanted.add("num_supervised_tokens")
        if self.efficiency.startswith("loss"):
            wanted |= DEGRADATION["loss"]
        if self.concepts:
            wanted.add("text")
        if self.target:
            wanted |= {TARGET, "embedding"}
        return frozenset(wanted)

    @property
    def promises(self) -> frozenset[str]:
        """Equal rows get equal values, but a shuffle's; the clustering depends on the order of the rows."""
        return frozenset() if self.efficiency == "random" else frozenset({"duplicates"})

    @property
    def drawn(self) -> bool:
        """Whether its values are drawn at random."""
        return self.efficiency == "random"

    def selector(self) -> Selector:
        """Shares by damage, and inside a group the rows in order while their concepts fit together."""
        from datapruner.selection.selectors.paser import PaserSelector

        return PaserSelector()

    def _score(self, signals: Signals) -> Ranking:
        found = damage_groups(signals, self.within, self.n_clusters)
        groups, k = found.groups, found.k
        tokens = np.asarray(signals.column("num_supervised_tokens")) if self.by_tokens else None
        of_tokens = tokens if self.degradation not in OF_ROWS else None
        damage = degradation_of(signals, groups, k, self.degradation, tokens=of_tokens)
        weights = self._shares(signals, groups, damage, k, tokens)
        jsd = np.asarray(signals.column("jsd"), dtype=np.float64)
        columns: dict[str, Any] = {"cluster": groups, "jsd": jsd, "degradation": damage[groups]}
        # The pass of both models measures the losses whoever asked for it, and they say what the damage means.
        if DEGRADATION["loss"] <= signals.measured.keys():
            columns |= {
                name: np.asarray(signals.column(name), dtype=np.float64)
                for name in sorted(DEGRADATION["loss"])
            }
        state: dict[str, Any] = dict(found.state)
        if self.concepts:
            from datapruner.signals.texts.concepts import extract_concepts

            held: Concepts = extract_concepts(signals.texts(), per_row=self.concepts)
            state |= {"concepts": held.ids, "concept_names": held.names}
        values = self._values(signals, groups, k, jsd)
        if self.efficiency == "typical":
            columns["jsd_from_median"] = -values
        return Ranking(values, groups=groups, group_weights=weights, columns=columns, state=state)

    def _values(self, signals: Signals, groups: Ints, k: int, jsd: Floats) -> Floats:
        """Order rows inside a group."""
        if self.efficiency == "random":
            return np.random.default_rng(signals.seed).random(len(jsd))
        if self.efficiency == "typical":
            centre = np.array([np.median(jsd[groups == j]) if (groups == j).any() else 0 for j in range(k)])
            return np.asarray(-np.abs(jsd - centre[groups]))
        lost = jsd if self.efficiency.startswith("jsd") else rise(signals)
        if not self.efficiency.endswith("cost"):
            return lost.copy()
        cost = np.log1p(np.asarray(signals.column("num_tokens"), dtype=np.float64) ** 2)
        return np.asarray(lost / np.maximum(cost, np.log(2)))

    def _shares(self, signals: Signals, groups: Ints, damage: Floats, k: int, tokens: Ints | None) -> Floats:
        """Say how the groups share a budget."""
        sizes = np.bincount(groups, tokens, k).astype(np.float64)
        shares = {
            "degradation": damage,
            "degradation_size": damage * sizes,
            "size": sizes,
            "uniform": np.ones(k),
        }[self.budget.removeprefix("token_")]
        shares = np.where(sizes > 0, shares, 0.0)
        if self.target:
            shares = shares * votes_of(signals, groups, k)
        numbers = {str(number): number for number in range(k)}
        for name, weight in self.weights.items():
            if name not in numbers:
                raise DataPrunerError(
                    f"paser: weights name a group '{name}'; groups are named by their number, 0 to {k - 1}, as "
                    "`datapruner damage` lists them"
                )
            shares[numbers[name]] *= weight
        if not shares.any():
            logger.warning("paser: no group is damaged, so the budget is shared by size")
            return sizes
        return shares
