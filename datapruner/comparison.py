"""Compare what scorers keep of the same rows, and how they rank them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.api import measure, rank, run_arguments
from datapruner.errors import DataPrunerError
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.tables import aligned, as_saved, figure, write_csv, write_json
from datapruner.paths import expanded
from datapruner.recipe import method_of
from datapruner.scorers.baselines import Length, Random
from datapruner.selection.budget import Amount
from datapruner.selection.result import Selection
from datapruner.selection.selectors import make_selector
from datapruner.stability import (
    NOISE,
    Second,
    Stability,
    Variations,
    chance,
    check_comparison,
    correlation,
    jaccard,
    stability_of,
)

if TYPE_CHECKING:
    from pandas import DataFrame

    from datapruner.scorers.base import Scorer
    from datapruner.selection.selectors import Selector

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Selections of the same size by several scorers.

    Attributes
    ----------
    selections : mapping
        Scorer's name -> its selection.
    overlap : ndarray, float64, shape (s, s)
        Jaccard index of the rows that two scorers keep.
    correlation : ndarray, float64, shape (s, s)
        Spearman correlation of their scores; NaN where a scorer gave all rows the same.
    chance : float
        The overlap to be expected of two independent random selections of that size.
    stability : Stability, optional
        What moves each of the selections.
    """

    selections: Mapping[str, Selection]
    overlap: Floats
    correlation: Floats
    chance: float
    stability: Stability | None = None

    def __repr__(self) -> str:
        """Name the scorers."""
        return f"Comparison({', '.join(self.selections)})"

    def to_frame(self) -> DataFrame:
        """Give every pair of scorers with its overlap and correlation as a table."""
        import pandas as pd

        names = list(self.selections)
        rows, columns = np.triu_indices(len(names), 1)
        return pd.DataFrame(
            {
                "first": [names[row] for row in rows],
                "second": [names[column] for column in columns],
                "jaccard": self.overlap[rows, columns],
                "chance": self.chance,
                "spearman": self.correlation[rows, columns],
            }
        )

    def describe(self) -> str:
        """Give the tables for a terminal."""
        first = next(iter(self.selections.values()))
        lines = [
            f"Overlap of the {len(first):,} rows that each keeps of {len(first.kept):,}: Jaccard "
            f"({self.chance:.2f} by chance)",
            *self._table(self.overlap),
            "",
            "Rank correlation of the scores: Spearman",
            *self._table(self.correlation),
        ]
        return "\n".join(lines if self.stability is None else [*lines, "", self.stability.describe()])

    def _table(self, matrix: Floats) -> list[str]:
        names = list(self.selections)
        return aligned(
            [
                ["", *(f"({number + 1})" for number in range(len(names)))],
                *(
                    [
                        f"({number + 1}) {name}",
                        *map(figure, matrix[number].tolist()),
                    ]
                    for number, name in enumerate(names)
                ),
            ]
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``comparison.json``, ``overlap.csv``, ``correlation.csv`` and the stability's files, all or none.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist yet, or is empty.
        overwrite : bool
            Replace an earlier comparison.
        """
        path = expanded(Path(path))
        names = list(self.selections)
        first = next(iter(self.selections.values()))
        tables = {
            name: [[None if np.isnan(held) else held for held in row] for row in matrix.tolist()]
            for name, matrix in (("overlap", self.overlap), ("correlation", self.correlation))
        }
        described = [
            {
                "name": name,
                "parameters": method_of(
                    name, selection.scores.scorers[name].parameters(), named=False
                ).parameters,
                "selector": selection.selector.name,
            }
            for name, selection in self.selections.items()
        ]
        recipe = first.recipe.model_copy(update={"scorer": None, "selector": None})
        with whole_folder(path, overwrite=overwrite, reads=recipe.reads) as folder:
            about = {
                "rows": len(first.kept),
                "eligible": int(np.isfinite(first.values).sum()),
                "kept": len(first),
                "chance": self.chance,
            }
            write_json(
                folder / "comparison.json",
                {**about, "scorers": described, **tables, "recipe": as_saved(recipe, path)},
            )
            for name, table in tables.items():
                rows = [[scorer, *row] for scorer, row in zip(names, table, strict=True)]
                write_csv(folder / f"{name}.csv", ["scorer", *names], rows)
            if self.stability is not None:
                self.stability.write(folder, path)
        return path


def compare(
    source: Any,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] = "concept_complexity",
    keep: Amount = 0.3,
    selector: str | Selector | None = None,
    stability: bool = False,
    seeds: int = 5,
    noise: Sequence[float] = NOISE,
    embedders: Sequence[Any] | None = None,
    second_embeddings: Any = None,
    **options: Any,
) -> Comparison:
    """Compare what scorers keep of the same rows for the same budget.

    The baselines ``random`` and, where the rows have text, ``length`` are always among them.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`datapruner.score`.
    scorers : str, Scorer, or a sequence of them
    keep : float or int
        A fraction of the rows, or a number of rows.
    selector : str or Selector, optional
        Of the scorers named; default: each scorer's own. The baselines keep theirs.
    stability : bool
        Measure too what moves each selection; the next four arguments are about that.
    seeds, noise, embedders, second_embeddings
        See :func:`datapruner.compare_stability`.
    **options
        Everything :func:`datapruner.score` takes.

    Returns
    -------
    Comparison

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    varied = Variations(seeds, noise)
    if not stability and (embedders is not None or second_embeddings is not None):
        raise DataPrunerError(
            "two embedders are compared by their stability; pass stability=True (--stability)"
        )
    asked = check_comparison("compare", scorers, keep, options)
    chooser = None if selector is None else make_selector(selector)
    second = Second.of(options, embedders, second_embeddings)
    options = options | ({} if second is None else second.first) | {"count_tokens": True}
    made = asked if "random" in {scorer.name for scorer in asked} else [*asked, Random()]
    held = measure(**run_arguments(source, scorers=made, **options))
    if "num_supervised_tokens" in held.signals.measured and "length" not in {one.name for one in made}:
        made = [*made, Length()]
    held = held._replace(scorers=made)
    other = None if second is None else second.measured(held, source, made, options)

    scores = rank(held)
    selectors = {scorer.name: chooser for scorer in asked}
    selections = {
        scorer.name: scores.select(scorer.name, keep=keep, selector=selectors.get(scorer.name))
        for scorer in made
    }
    kept = [selection.kept for selection in selections.values()]
    values = [selection.values for selection in selections.values()]
    ranks = [[correlation(a, b) for b in values] for a in values]
    count, eligible = int(kept[0].sum()), np.isfinite(values[0])
    return Comparison(
        selections,
        np.array([[jaccard(a, b) for b in kept] for a in kept]),
        np.array([[np.nan if found is None else found for found in row] for row in ranks]),
        chance((count, count), (eligible, eligible), scores.forced),
        None
        if not stability
        else stability_of(
            held,
            keep=keep,
            selectors=selectors,
            varied=varied,
            second=other,
            progress=options.get("progress", True),
        ),
    )
