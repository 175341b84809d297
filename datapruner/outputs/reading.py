"""Read back what a run left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.paths import expanded, is_file
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa

    from datapruner.samples.base import Sample


def source_row(folder: str | Path, row: int) -> Sample:
    """Read a row of the source of a result again.

    Parameters
    ----------
    folder : str or Path
        What ``prune``, ``select`` or ``run`` wrote.
    row : int
        Position in the source dataset.

    Raises
    ------
    DataPrunerError
        It is no such folder, there is no such row, or the source was in memory, is gone, or has another number of
        rows by now.
    """
    from datapruner.api import read_samples
    from datapruner.recipe import load_recipe

    rows = _selection(folder, row).num_rows
    recipe = load_recipe(expanded(Path(folder)) / "recipe.yaml")
    if recipe.source is None:
        raise DataPrunerError(f"{folder} was made of rows in memory, which it does not name")
    samples = read_samples(recipe.model_copy(update={"keep": None}))
    if len(samples) != rows:
        raise DataPrunerError(
            f"{safe_text(recipe.source)} had {rows:,} rows when {folder} was made and has {len(samples):,} now"
        )
    return samples[row]


def explain(folder: str | Path, row: int) -> dict[str, Any]:
    """Give everything ``selection.parquet`` says of one source row.

    Parameters
    ----------
    folder : str or Path
        What ``prune``, ``select`` or ``run`` wrote.
    row : int
        Position in the source dataset.

    Raises
    ------
    DataPrunerError
        It is no such folder, or there is no such row.
    """
    found: dict[str, Any] = _selection(folder, row).slice(row, 1).to_pylist()[0]
    return {name: safe_text(value) if isinstance(value, str) else value for name, value in found.items()}


def _selection(folder: str | Path, row: int) -> pa.Table:
    """Open what is known of every row, this one among them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = expanded(Path(folder)) / "selection.parquet"
    if is_file(file.with_name("scores.parquet")):
        raise DataPrunerError(
            f"{folder} holds scores; make a selection of them first with `datapruner select`"
        )
    if not is_file(file):
        raise DataPrunerError(f"{folder} is no result of datapruner: it has no selection.parquet")
    try:
        table = pq.read_table(file, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise DataPrunerError(f"{file} is damaged; run its recipe again") from error
    if not 0 <= row < table.num_rows:
        raise DataPrunerError(f"there is no row {row}; the dataset has {table.num_rows} rows, counted from 0")
    return table
