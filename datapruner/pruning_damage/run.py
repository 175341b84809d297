"""Measure what pruning changed, and break it down by cluster of the rows and by columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np

from datapruner.arguments import takes
from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.intervals import mean_interval
from datapruner.measuring.arguments import requested
from datapruner.measuring.measure import measure
from datapruner.measuring.request import Request
from datapruner.option_types import DEFAULTS, Measuring, SecondModel, notes
from datapruner.pruning_damage.groups import CLUSTERS, GroupDamage, counts_of, nearness
from datapruner.pruning_damage.result import Damage
from datapruner.ranking import Ranking
from datapruner.samples.labels import encode_labels
from datapruner.scorers._damage import damage_groups
from datapruner.scorers.base import Scorer
from datapruner.signals import COLUMN, Signals
from datapruner.signals.texts.keywords import distinctive

if TYPE_CHECKING:
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples

TYPICAL = 3
"""Rows of a group that are named, those nearest to its mean."""


@dataclass(frozen=True)
class Probe(Scorer):
    """Asks for what a damage table reads."""

    losses: bool = True
    columns: tuple[str, ...] = ()
    name: ClassVar[str] = "damage"
    needs: ClassVar[frozenset[str]] = frozenset({"jsd"})

    @property
    def requires(self) -> frozenset[str]:
        """The divergence, the losses beside it, what clusters and keywords are made of, and the columns."""
        losses = {"log_ppl", "pruned_log_ppl"} if self.losses else set()
        columns = {COLUMN + column for column in self.columns}
        return frozenset({"jsd", "embedding", "neighbours", "text"} | losses | columns)

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.asarray(signals.column("jsd"), dtype=np.float64))


@takes(
    Measuring,
    defaults=DEFAULTS,
    told=notes(Measuring),
    elsewhere=dict.fromkeys(
        ("scorers", "scorer", "keep", "keep_tokens", "selector", "quotas", "per_group"), "it only measures"
    ),
)
def damage(
    source: Any,
    *,
    model: str | Path | tuple[Any, Any] | None = None,
    pruned_model: SecondModel | None = None,
    by: str | Sequence[str] = (),
    n_clusters: int | None = None,
    divergences: Any = None,
    **options: Unpack[Measuring],
) -> Damage:
    """Measure what pruning changed in a model's predictions, by cluster of the rows and by columns.

    Published: the mean Jensen-Shannon divergence of a cluster as its capability degradation (PASER, arXiv 2502.12594).
    Ours: a supervised token at a time, the intervals, the losses beside it, keywords.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`datapruner.score`.
    model, pruned_model
        The model before and after its weights were removed.
    by : str or sequence of str
        Columns whose values are groups too, such as a capability's.
    n_clusters : int, optional
        Clusters; by default as many as bootstrap samples agree on.
    divergences : path or array of shape (n,), optional
        Of every row, instead of the two models.
    **options
        Everything :func:`datapruner.score` takes.

    Returns
    -------
    Damage

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    columns = columns_of(by)
    held = measure(
        asked_for(
            source, by=columns, model=model, pruned_model=pruned_model, divergences=divergences, **options
        )
    )
    return damage_of(held.signals, held.samples, held.rows, held.recipe, columns, n_clusters)


def columns_of(by: str | Sequence[str]) -> list[str]:
    """Give the columns that damage is broken down by, each once."""
    columns = list(dict.fromkeys([by] if isinstance(by, str) else by))
    if CLUSTERS in columns:
        raise DataPrunerError(f"'{CLUSTERS}' is what the rows' own clusters are called; rename that column")
    return columns


def asked_for(
    source: Any,
    *,
    model: str | Path | tuple[Any, Any] | None = None,
    pruned_model: SecondModel | None = None,
    by: Sequence[str] = (),
    divergences: Any = None,
    **options: Any,
) -> Request:
    """Ask for what :func:`damage` reads."""
    if divergences is None and (model is None or pruned_model is None):
        raise DataPrunerError(
            "damage compares a pruned model with the dense one: pass --model with the dense model and --pruned-model "
            "with the model that was pruned, or --divergences with what was measured before"
        )
    # A probe that reads the columns: one that is not there is refused before a model runs.
    probe = Probe(losses=divergences is None, columns=tuple(by))
    return requested(
        source, scorers=probe, model=model, pruned_model=pruned_model, divergences=divergences, **options
    )


def damage_of(
    signals: Signals,
    samples: Samples,
    rows: Ints,
    recipe: Recipe,
    columns: Sequence[str] = (),
    n_clusters: int | None = None,
) -> Damage:
    """Break down what was measured; see :func:`damage`."""
    from datapruner.signals.texts.concepts import extract_concepts

    found = damage_groups(signals, None, n_clusters)
    jsd = np.asarray(signals.column("jsd"), dtype=np.float64)
    losses = [
        np.asarray(signals.column(name), dtype=np.float64) if name in signals.measured else None
        for name in ("log_ppl", "pruned_log_ppl")
    ]
    concepts = extract_concepts(signals.texts())
    named = [(CLUSTERS, [str(j) for j in range(found.k)], found.groups)]
    for column in columns:
        names, codes = encode_labels(samples.column(column))
        named.append((column, names, codes[rows]))
    rise = jsd if losses[0] is None or losses[1] is None else np.maximum(losses[1] - losses[0], 0)
    total = max(float(rise.sum()), 1e-300)
    everywhere = counts_of(concepts.ids.values)
    groups: list[GroupDamage] = []
    for by, names, codes in named:
        some = []
        near = nearness(signals.matrix("embedding"), codes, len(names))
        for j, name in enumerate(names):
            of = np.flatnonzero(codes == j)
            if not len(of):
                continue
            low, high = mean_interval(jsd[of], recipe.seed) or (None, None)
            dense, pruned = (None if loss is None else float(loss[of].mean()) for loss in losses)
            words = distinctive(counts_of(concepts.ids.take(of).values), everywhere, len(of), len(jsd))
            some.append(
                GroupDamage(
                    by,
                    name,
                    len(of),
                    float(jsd[of].mean()),
                    low,
                    high,
                    dense,
                    pruned,
                    float(rise[of].sum()) / total,
                    tuple(str(concepts.names[one]) for one in words),
                    tuple(int(rows[of[place]]) for place in np.argsort(-near[of], kind="stable")[:TYPICAL]),
                )
            )
        groups += sorted(some, key=lambda group: -group.jsd)
    return Damage(tuple(groups), rows, found.groups, jsd, losses[0], losses[1], samples, recipe)
