"""Results as columns of a table: what is said of every source row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats, Ints
from datapruner.samples.origins import COLUMN, ROW
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from datapruner.cleaning.vetoes import Vetoes
    from datapruner.ranking import Ranking
    from datapruner.samples.samples import Samples

GROUPS = b"datapruner_groups"
"""Its metadata: each group of the budget, how much of it was kept, of how much, in which unit; JSON."""
REASONS = b"datapruner_reasons"
"""Its metadata too: the words for the causes of steps that are not built in; JSON."""
COUNTED = b"datapruner_counted"
"""And what cleaning counted and did not drop: words and rows; JSON."""
TEXTS = 65_536
"""Texts that are Python objects at a time."""
WITHIN = "ranked_within"
"""Its column of what a row was ranked in, where that is not the whole dataset."""


def method_columns(ranking: Ranking) -> dict[str, pa.Array]:
    """Give a method's columns; null where a row was dropped before scoring."""
    import pyarrow as pa

    unscored = np.isnan(ranking.values)
    return {
        name: pa.array(values, mask=unscored | np.isnan(values) if values.dtype.kind == "f" else unscored)
        for name, values in ranking.columns.items()
    }


def encoded(codes: NDArray[Any], names: Sequence[str]) -> pa.DictionaryArray:
    """Give texts by their numbers; null where a number is negative.

    Every text once: of a dictionary that repeats itself, Arrow's Parquet writer makes other bytes each time.
    """
    import pyarrow as pa

    texts = iter(names)
    blocks = iter(lambda: pa.array(list(islice(texts, TEXTS)), pa.string()), pa.array([], pa.string()))
    held = pa.chunked_array(blocks, pa.string()).dictionary_encode().combine_chunks()
    own = np.append(held.indices.to_numpy(), np.int32(0))  # for a column without any text
    empty = codes < 0
    return pa.DictionaryArray.from_arrays(
        pa.array(own[np.maximum(codes, 0)], mask=empty if empty.any() else None), held.dictionary
    )


def arrow_array(values: NDArray[Any]) -> pa.Array:
    """Turn a column into Arrow; NaN means that a row was dropped before scoring, hence null."""
    import pyarrow as pa

    return pa.array(values, mask=np.isnan(values)) if values.dtype.kind == "f" else pa.array(values)


def columns_of_origins(samples: Samples) -> dict[str, pa.Array]:
    """Give of every row the source among several, and its position in that; nothing where there is but one."""
    import pyarrow as pa

    if not samples.origins:
        return {}
    codes, rows = samples.origin_rows
    return {COLUMN: encoded(codes, [origin.name for origin in samples.origins]), ROW: pa.array(rows)}


def steps_of(vetoes: Sequence[Vetoes], n: int) -> NDArray[np.int32]:
    """Give the number of the step that dropped each row, -1 where none did; shape (n,)."""
    steps = np.full(n, -1, dtype=np.int32)
    for number, step in enumerate(vetoes):
        steps[step.rows] = number
    return steps


def frame(table: pa.Table) -> pd.DataFrame:
    """Turn a table of all rows into pandas; what repeats itself stays encoded."""
    made: pd.DataFrame = table.to_pandas()
    return made.set_index("index").rename_axis("row")


def numbers_of(table: pa.Table, name: str) -> Floats:
    """Give a column as numbers, NaN where it has none."""
    values: NDArray[Any] = table[name].to_numpy()
    return values.astype(np.float64, copy=False)


def decoded(table: pa.Table, name: str) -> tuple[list[str], Ints]:
    """Give a column's texts, and every row's number among them; -1 where it has none."""
    import pyarrow.compute as pc

    column = table[name].combine_chunks()
    if not hasattr(column, "dictionary"):
        column = pc.dictionary_encode(column)
    codes = pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return column.dictionary.to_pylist(), codes


def read_counted(held: Mapping[str, Any]) -> dict[str, int]:
    """Read what cleaning counted, written by whomever."""
    return {safe_text(str(words), 80): int(count) for words, count in held.items()}
