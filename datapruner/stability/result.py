"""What a stability study found, as tables, a picture and files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from datapruner.files.paths import expanded
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.tables import aligned, as_saved, figure, write_csv, write_json
from datapruner.stability.agreement import Agreement
from datapruner.stability.picture import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from datapruner.recipe import Recipe


@dataclass(frozen=True)
class Stability:
    """What moves the selections of some scorers, and how far.

    Attributes
    ----------
    records : tuple of Agreement
    recipe : Recipe
        What was read and how.
    rows, eligible, kept : int
        Of the source, left by cleaning, kept by every selection; for a budget in tokens by the first one.
    seeds : int
    noise : tuple of float
    embedders : tuple of str, optional
        The two that were compared.
    keep_tokens : int, optional
        The budget, where it counts supervised tokens.
    """

    records: tuple[Agreement, ...]
    recipe: Recipe
    rows: int
    eligible: int
    kept: int
    seeds: int
    noise: tuple[float, ...]
    embedders: tuple[str, str] | None = None
    keep_tokens: int | None = None

    def __repr__(self) -> str:
        """Name the scorers and count the rows."""
        return f"Stability({self.kept} of {self.rows} rows by {', '.join(self.scorers)})"

    @property
    def scorers(self) -> tuple[str, ...]:
        """Their names, in the order given."""
        return tuple(dict.fromkeys(record.scorer for record in self.records))

    def to_frame(self) -> DataFrame:
        """Give the records as a table, one row each."""
        import pandas as pd

        return pd.DataFrame.from_records(
            [asdict(record) for record in self.records], columns=[spec.name for spec in fields(Agreement)]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the overlap against the noise; see :func:`datapruner.plots.plot_stability`."""
        spent = (
            f"{self.kept:,} of {self.rows:,} rows"
            if self.keep_tokens is None
            else f"{self.keep_tokens:,} supervised tokens"
        )
        return draw(self.records, self.scorers, f"{spent} kept, {self.seeds} draws of noise", ax)

    def table(self) -> list[list[str]]:
        """Give the figures as rows of cells, the first row the columns' names."""
        columns = {
            (record.varied, record.noise): f"noise {record.noise:g}"
            if record.noise is not None
            else f"{record.varied}s"
            for record in self.records
        }
        return [
            ["", *columns.values()],
            *(
                [name, *(_cell(record) for record in self.records if record.scorer == name)]
                for name in self.scorers
            ),
        ]

    def describe(self) -> str:
        """Give the figures as a table for a terminal."""
        chance = next((record.chance for record in self.records if record.chance is not None), None)
        said = "" if chance is None else f" ({chance:.2f} by chance)"
        return "\n".join(
            [
                f"Stability: Jaccard of the kept rows{said}, mean ± deviation; Spearman of the scores",
                *aligned(self.table()),
                *([f"  embedders: {' and '.join(self.embedders)}"] if self.embedders else []),
            ]
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``stability.json``, ``.csv`` and, where matplotlib is installed, ``.png``; whole or not at all.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist yet, or is empty.
        overwrite : bool
            Replace an earlier comparison.
        """
        path = expanded(Path(path))
        with whole_folder(path, overwrite=overwrite, reads=self.recipe.reads) as folder:
            self.write(folder, path)
        return path

    def write(self, folder: Path, path: Path) -> None:
        """Write the files into a folder that will lie at ``path``."""
        records = [asdict(record) for record in self.records]
        about = {
            "rows": self.rows,
            "eligible": self.eligible,
            "kept": self.kept,
            "keep_tokens": self.keep_tokens,
            "seeds": self.seeds,
            "noise": list(self.noise),
            "embedders": self.embedders,
        }
        write_json(
            folder / "stability.json", {**about, "records": records, "recipe": as_saved(self.recipe, path)}
        )
        write_csv(
            folder / "stability.csv",
            [spec.name for spec in fields(Agreement)],
            [list(record.values()) for record in records],
        )
        drawn = any(record.varied == "noise" and record.comparisons for record in self.records)
        if drawn and find_spec("matplotlib") is not None:
            from matplotlib.figure import Figure

            drawing = Figure(figsize=(8, 4.5), layout="constrained")
            self.plot(drawing.subplots())
            drawing.savefig(folder / "stability.png", dpi=150, metadata={"Software": None})


def _cell(record: Agreement) -> str:
    if record.jaccard is None:
        return record.note
    spread = "" if record.jaccard_sd is None else f" ± {figure(record.jaccard_sd)}"
    return f"{figure(record.jaccard)}{spread}; {figure(record.spearman)}"
