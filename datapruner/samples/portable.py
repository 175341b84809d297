"""Whether rows can be written again as they were: asked once they are read, before any work."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from datapruner.errors import DataPrunerError, RowError
from datapruner.files.mapped import blocks
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from datapruner.samples.samples import Samples

SPLIT = re.compile(r"\w+(\.\w+)*")
TOKEN_COLUMNS = ("input_ids", "labels")
"""What token-pruned data is written into."""
BATCH = 10_000
"""Rows looked at at a time."""


def check_splits(splits: Mapping[str, Dataset]) -> None:
    """Refuse splits of a name under which no dataset can be saved."""
    for split in splits:
        if not SPLIT.fullmatch(split):
            raise DataPrunerError(
                f"the split '{safe_text(split, 60)}' cannot be written, since load_dataset takes names of letters, "
                "digits, dots and underscores only; rename it"
            )


def check_format(samples: Samples, format: str) -> None:
    """Refuse, before any work, columns and values that the format cannot give back as they were."""

    def check(dataset: Dataset) -> None:
        if format == "jsonl":
            check_json_lines(dataset)
        else:
            _check_columns(dataset, format)

    with samples.naming():
        check(samples.dataset)
    for split, dataset in samples.others.items():
        try:
            check(dataset)
        except DataPrunerError as error:
            raise DataPrunerError(f"the split '{safe_text(split, 60)}': {error.sentence}") from error


def check_free(samples: Samples) -> None:
    """Refuse a source whose columns are in the way of token-pruned data."""
    for split, dataset in {samples.split: samples.dataset, **samples.others}.items():
        if taken := sorted(set(TOKEN_COLUMNS) & set(dataset.column_names)):
            raise DataPrunerError(
                f"the split '{safe_text(split, 60)}' has a column '{taken[0]}' already, which token-pruned data needs "
                "for itself; rename it, or keep whole rows with token_keep=1"
            )


def _check_columns(dataset: Dataset, format: str) -> None:
    """Write each column without rows, so that a type that cannot be written is known now."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for column in dataset.features.arrow_schema:
        try:
            if format == "parquet":
                pq.ParquetWriter(io.BytesIO(), pa.schema([column])).close()
        except pa.ArrowException as error:
            raise DataPrunerError(
                f"the column '{safe_text(column.name, 60)}' holds {safe_text(str(column.type), 80)}, which parquet "
                "cannot; drop or convert the column"
            ) from error


def check_json_lines(dataset: Dataset) -> None:
    """Refuse columns and values that JSON lines cannot give back as they were.

    Raises
    ------
    DataPrunerError
        Names the column, and the row where a value is the reason.
    """
    for column in dataset.features.arrow_schema:
        if not _fits_json(column.type):
            raise DataPrunerError(
                f"the column '{safe_text(column.name, 60)}' holds {safe_text(str(column.type), 80)}, which JSON "
                "lines cannot; write parquet"
            )
    for first, table in blocks(dataset, BATCH):
        for name, column in zip(table.column_names, table.columns, strict=True):
            _check_values(name, column, first)


def _fits_json(kind: pa.DataType) -> bool:
    import pyarrow as pa
    import pyarrow.types as pt

    if isinstance(kind, pa.BaseExtensionType):
        return _fits_json(kind.storage_type)
    if pt.is_nested(kind) and not pt.is_map(kind):
        return all(_fits_json(kind.field(place).type) for place in range(kind.num_fields))
    strange = (
        pt.is_binary,
        pt.is_large_binary,
        pt.is_fixed_size_binary,
        pt.is_decimal,
        pt.is_duration,
        pt.is_map,
        pt.is_time,
    )
    return not any(is_kind(kind) for is_kind in strange)


def _check_values(name: str, column: pa.ChunkedArray, first: int) -> None:
    """Look for text that is no text, and times that no calendar has."""
    import pyarrow as pa

    try:
        column.validate(full=True)
        if not _holds_times(column.type):
            return
        column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        for row in range(len(column)):
            try:
                column.slice(row, 1).validate(full=True)
                column[row].as_py()
            except (pa.ArrowException, ValueError, OverflowError) as error:
                what = "text that is not UTF-8" if "UTF" in str(error) else "a time out of range"
                raise RowError(
                    f"row {first + row} holds {what} in the column '{safe_text(name, 60)}', which JSON lines cannot; "
                    "write parquet",
                    first + row,
                ) from None
        raise


def _holds_times(kind: pa.DataType) -> bool:
    import pyarrow.types as pt

    if pt.is_nested(kind):
        return any(_holds_times(kind.field(place).type) for place in range(kind.num_fields))
    return bool(pt.is_temporal(kind))
