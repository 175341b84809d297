"""What pruning broke: how far a pruned model's predictions have moved, by cluster and by column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray

from datapruner.api import OPTION_DEFAULTS, option_notes, run_arguments
from datapruner.arguments import takes
from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import iter_blocks, normalise_rows
from datapruner.intervals import mean_interval, with_interval
from datapruner.measuring.measure import measure
from datapruner.options import Measuring, PrunedModel
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.tables import aligned, as_saved, write_csv, write_json
from datapruner.paths import expanded
from datapruner.scorers.base import Ranking, Scorer
from datapruner.scorers.paser import damage_groups
from datapruner.selection.budget import encode_labels
from datapruner.signals import COLUMN, Signals
from datapruner.signals.keywords import distinctive
from datapruner.text import safe_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples


TYPICAL, EXCERPT = 3, 100
CLUSTERS = "cluster"


@dataclass(frozen=True)
class GroupDamage:
    """What pruning did to the rows of one group.

    Attributes
    ----------
    by : str
        ``cluster``, or the column.
    name : str
        The cluster's number, or the column's value.
    rows : int
    jsd : float
        Mean Jensen-Shannon divergence of the two models' predictions, nats, in [0, ln 2].
    jsd_low, jsd_high : float, optional
        Its 95 % bootstrap interval over rows; None for a group of fewer than five.
    log_ppl, pruned_log_ppl : float, optional
        Mean loss of a row before and after pruning, nats; None where divergences were given.
    share : float
        Of the rise of the loss over all rows, or of the divergence where losses are not known.
    keywords : tuple of str
        Concepts that are frequent here and rare elsewhere.
    typical : tuple of int
        Source rows nearest to the group's mean embedding.
    """

    by: str
    name: str
    rows: int
    jsd: float
    jsd_low: float | None
    jsd_high: float | None
    log_ppl: float | None
    pruned_log_ppl: float | None
    share: float
    keywords: tuple[str, ...] = ()
    typical: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Probe(Scorer):
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
        return Ranking(np.asarray(signals["jsd"], dtype=np.float64))


@dataclass(frozen=True, eq=False)
class Damage:
    """What pruning broke.

    Attributes
    ----------
    groups : tuple of GroupDamage
        The clusters, then each column's values; worst first.
    rows : ndarray, int64, shape (m,)
        Source rows that were measured.
    cluster : ndarray, int64, shape (m,)
    jsd : ndarray, float64, shape (m,)
        Nats.
    log_ppl, pruned_log_ppl : ndarray, float64, shape (m,), optional
    """

    groups: tuple[GroupDamage, ...]
    rows: Ints
    cluster: Ints
    jsd: Floats
    log_ppl: Floats | None
    pruned_log_ppl: Floats | None
    samples: Samples = field(repr=False)
    recipe: Recipe = field(repr=False)

    def by(self, name: str = CLUSTERS) -> list[GroupDamage]:
        """Give the groups of ``cluster`` or of a column, worst first.

        Raises
        ------
        DataPrunerError
            The damage was not broken down by it.
        """
        held = list(dict.fromkeys(group.by for group in self.groups))
        if name not in held:
            raise DataPrunerError(f"the damage is known by {', '.join(held)}, not by '{safe_text(name, 60)}'")
        return [group for group in self.groups if group.by == name]

    def to_frame(self) -> DataFrame:
        """Give the groups as a table."""
        import pandas as pd

        return pd.DataFrame([asdict(group) for group in self.groups])

    def plot(self, by: str = CLUSTERS, ax: Axes | None = None) -> Axes:
        """Draw the divergence by group; see :func:`datapruner.plots.plot_damage`."""
        from datapruner.plots import plot_damage

        return plot_damage(self, by, ax)

    def describe(self, examples: int = 1) -> str:
        """Give the tables for a terminal, with ``examples`` typical rows a cluster."""
        lines = [
            f"What pruning changed in {len(self.rows):,} rows: mean divergence {self.jsd.mean():.4f} nats"
        ]
        if self.log_ppl is not None and self.pruned_log_ppl is not None:
            lines[0] += f", loss {self.log_ppl.mean():.3f} -> {self.pruned_log_ppl.mean():.3f} nats a token"
        for by in dict.fromkeys(group.by for group in self.groups):
            held = self.by(by)
            head = [by, "rows", "divergence [95 %]", "loss", "share"]
            told = [
                [
                    group.name,
                    f"{group.rows:,}",
                    with_interval(group.jsd, group.jsd_low, group.jsd_high),
                    "-"
                    if group.log_ppl is None or group.pruned_log_ppl is None
                    else f"{group.log_ppl:.2f} -> {group.pruned_log_ppl:.2f}",
                    f"{100 * group.share:.0f} %",
                ]
                for group in held
            ]
            table = aligned([head, *told])
            lines += ["", f"By {safe_text(by, 60)}, the most damaged first", table[0]]
            for line, group in zip(table[1:], held, strict=True):
                words = f"  {', '.join(group.keywords)}" if group.keywords else ""
                lines.append(line + safe_text(words))
                if by == CLUSTERS:
                    lines += [
                        f"      row {row}: {self.excerpt(row)}" for row in group.typical[: max(examples, 0)]
                    ]
        return "\n".join(lines)

    def excerpt(self, row: int) -> str:
        """Give a source row's last question and its answer in short, harmless for a terminal."""
        return self.samples.excerpts(np.array([row]), EXCERPT)[0]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``damage.json``, ``damage.csv``, ``rows.parquet`` and, with matplotlib, ``damage.png``; all or none.

        ``rows.parquet`` has every measured row's cluster, divergence and losses.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist yet, or is empty.
        overwrite : bool
            Replace an earlier folder of datapruner.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = expanded(Path(path))
        with whole_folder(path, overwrite=overwrite, reads=self.recipe.reads) as folder:
            records = [asdict(group) for group in self.groups]
            write_json(folder / "damage.json", {"groups": records, "recipe": as_saved(self.recipe, path)})
            names = [spec.name for spec in fields(GroupDamage)]
            told = [
                {
                    **record,
                    "keywords": ", ".join(record["keywords"]),
                    "typical": " ".join(map(str, record["typical"])),
                }
                for record in records
            ]
            write_csv(folder / "damage.csv", names, [[record[name] for name in names] for record in told])
            columns: dict[str, NDArray[Any]] = {"index": self.rows, "cluster": self.cluster, "jsd": self.jsd}
            for name in ("log_ppl", "pruned_log_ppl"):
                if (held := getattr(self, name)) is not None:
                    columns[name] = held
            pq.write_table(pa.table(columns), folder / "rows.parquet", compression="zstd")
            if find_spec("matplotlib") is not None:
                from matplotlib.figure import Figure

                kinds = list(dict.fromkeys(group.by for group in self.groups))
                height = sum(1.2 + 0.28 * min(len(self.by(kind)), 40) for kind in kinds)
                drawing = Figure(figsize=(8, height), layout="constrained")
                axes = drawing.subplots(
                    len(kinds), 1, squeeze=False, height_ratios=[3 + len(self.by(k)) for k in kinds]
                )
                for kind, ax in zip(kinds, axes[:, 0], strict=True):
                    self.plot(kind, ax)
                drawing.savefig(folder / "damage.png", dpi=150, metadata={"Software": None})
        return path


@takes(
    Measuring,
    defaults=OPTION_DEFAULTS,
    told=option_notes(Measuring),
    elsewhere=dict.fromkeys(
        ("scorers", "scorer", "keep", "keep_tokens", "selector", "quotas", "per_group"), "it only measures"
    ),
)
def damage(
    source: Any,
    *,
    model: str | Path | tuple[Any, Any] | None = None,
    pruned_model: PrunedModel | None = None,
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
    columns = list(dict.fromkeys([by] if isinstance(by, str) else by))
    if CLUSTERS in columns:
        raise DataPrunerError(f"'{CLUSTERS}' is what the rows' own clusters are called; rename that column")
    if divergences is None and (model is None or pruned_model is None):
        raise DataPrunerError(
            "damage compares a pruned model with the dense one: pass --model with the dense model and --pruned-model "
            "with the model that was pruned, or --divergences with what was measured before"
        )
    # A probe that reads the columns: one that is not there is refused before a model runs.
    probe = _Probe(losses=divergences is None, columns=tuple(columns))
    arguments = run_arguments(
        source, scorers=probe, model=model, pruned_model=pruned_model, divergences=divergences, **options
    )
    held = measure(**arguments)
    return damage_of(held.signals, held.samples, held.rows, held.recipe, columns, n_clusters)


def damage_of(
    signals: Signals,
    samples: Samples,
    rows: Ints,
    recipe: Recipe,
    columns: Sequence[str] = (),
    n_clusters: int | None = None,
) -> Damage:
    """Break down what was measured; see :func:`damage`."""
    from datapruner.signals.concepts import extract_concepts

    found = damage_groups(signals, None, n_clusters)
    jsd = np.asarray(signals["jsd"], dtype=np.float64)
    losses = [
        np.asarray(signals[name], dtype=np.float64) if name in signals.measured else None
        for name in ("log_ppl", "pruned_log_ppl")
    ]
    concepts = extract_concepts(signals["text"])
    named = [(CLUSTERS, [str(j) for j in range(found.k)], found.groups)]
    for column in columns:
        names, codes = encode_labels(samples.column(column))
        named.append((column, names, codes[rows]))
    rise = jsd if losses[0] is None or losses[1] is None else np.maximum(losses[1] - losses[0], 0)
    total = max(float(rise.sum()), 1e-300)
    everywhere = _counts(concepts.ids.values)
    groups: list[GroupDamage] = []
    for by, names, codes in named:
        some = []
        near = _nearness(signals["embedding"], codes, len(names))
        for j, name in enumerate(names):
            of = np.flatnonzero(codes == j)
            if not len(of):
                continue
            low, high = mean_interval(jsd[of], recipe.seed) or (None, None)
            dense, pruned = (None if loss is None else float(loss[of].mean()) for loss in losses)
            words = distinctive(_counts(concepts.ids.take(of).values), everywhere, len(of), len(jsd))
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


def _nearness(vectors: NDArray[Any], groups: Ints, k: int) -> Floats:
    """Give every row's product with its group's mean, of unit vectors; float64 (n,), a block in memory at a time."""
    means = np.zeros((k, vectors.shape[1]))
    for start, stop, block in iter_blocks(vectors):
        normalise_rows(block, start)
        for j in np.unique(groups[start:stop]):
            means[j] += block[groups[start:stop] == j].sum(axis=0, dtype=np.float64)
    means /= np.maximum(np.bincount(groups, minlength=k), 1)[:, None]
    near = np.empty(len(groups))
    for start, stop, block in iter_blocks(vectors):
        normalise_rows(block, start)
        near[start:stop] = np.einsum("nd,nd->n", block, means[groups[start:stop]])
    return near


def _counts(ids: NDArray[Any]) -> Counter[int]:
    return Counter(ids.tolist())
