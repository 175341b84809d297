"""What pruning broke, as tables, a picture and files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.files.paths import expanded
from datapruner.intervals import with_interval
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.tables import aligned, as_saved, write_csv, write_json
from datapruner.pruning_damage.groups import CLUSTERS, GroupDamage
from datapruner.pruning_damage.picture import draw
from datapruner.text import safe_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples

EXCERPT = 100
"""Characters of a row's text."""


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
        return draw(self.by(by), float(self.jsd.mean()), by, ax)

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
                        f"      {self.samples.row_words(row)}: {self.excerpt(row)}"
                        for row in group.typical[: max(examples, 0)]
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
