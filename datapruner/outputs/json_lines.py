"""JSON lines as they were read, and what `datasets` is to be told to read them back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.files.mapped import blocks
from datapruner.samples.exact import decoded, holds_json, is_json, is_list
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

logger = logging.getLogger(__name__)

BATCH = 1000
"""Rows turned into Python objects at a time."""
CHUNK = 10 << 20
"""Bytes of a file whose columns' types `datasets` infers together."""
DATE = r"^\d{4}-\d{2}-\d{2}([ T][0-9:.+Z-]*)?$"
"""Texts that Arrow's JSON reader takes for times, and a few more."""
LONG_FRACTION = r"\.\d{11}|\d[eE]-"
"""Numbers in JSON text that have more than ten decimals."""


@dataclass
class Seen:
    """What the written values of each column show: whether `datasets` would infer another type than it has."""

    dates: dict[tuple[str, ...], int] = field(default_factory=dict)
    texts: dict[tuple[str, ...], int] = field(default_factory=dict)
    large: set[tuple[str, ...]] = field(default_factory=set)
    quoted: set[tuple[str, ...]] = field(default_factory=set)
    """JSON values among which a text is JSON itself, such as "0": `datasets` takes it for the value written out."""
    fine: bool = False
    """A number has more than ten decimals, or is not finite."""

    def look(self, path: tuple[str, ...], array: pa.Array) -> None:
        """Look at the values of a column, or of what is inside it."""
        import pyarrow.compute as pc
        import pyarrow.types as pt

        kind = array.type
        if is_json(kind):
            if path not in self.quoted and _holds_quoted(array.storage):
                self.quoted.add(path)
            self.fine = self.fine or bool(
                pc.any(pc.match_substring_regex(array.storage, LONG_FRACTION)).as_py()
            )
        elif pt.is_struct(kind):
            for one, child in zip(kind, array.flatten(), strict=True):
                self.look((*path, one.name), child)
        elif is_list(kind):
            self.look((*path, "[]"), array.flatten())
        elif pt.is_string(kind) or pt.is_large_string(kind):
            dates = pc.sum(pc.match_substring_regex(array, DATE)).as_py() or 0
            self.dates[path] = self.dates.get(path, 0) + dates
            self.texts[path] = self.texts.get(path, 0) + len(array) - array.null_count - dates
        elif pt.is_uint64(kind):
            if (pc.max(array).as_py() or 0) >= 2**63:
                self.large.add(path)
        elif pt.is_floating(kind) and not self.fine:
            values = array.drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
            with np.errstate(invalid="ignore"):
                self.fine = bool((np.round(values, 10) != values).any() or not np.isfinite(values).all())

    def features(self, dataset: Dataset) -> tuple[Any, bool]:
        """Return the features to declare, and whether a column is only seen to be text in the whole file.

        A column of texts that are all dates would be read as times whatever is declared, and integers from 2^63 on
        as floats; JSON values are read as they stand.
        """
        from datasets import Features, Json

        as_json = {path for path, count in self.dates.items() if count and not self.texts[path]} | self.large
        # Inside of a larger value that is JSON as a whole, a text stays a text.
        as_json |= {path[:1] for path in self.quoted}

        def declared(feature: Any, path: tuple[str, ...]) -> Any:
            if path in as_json:
                return Json()
            if isinstance(feature, dict):
                return {name: declared(inner, (*path, name)) for name, inner in feature.items()}
            if isinstance(feature, list):
                return [declared(feature[0], (*path, "[]"))]
            if hasattr(feature, "feature"):
                length = {"length": feature.length} if hasattr(feature, "length") else {}
                return type(feature)(declared(feature.feature, (*path, "[]")), **length)
            return feature

        mixed = any(count and self.texts[path] for path, count in self.dates.items())
        return Features({name: declared(inner, (name,)) for name, inner in dataset.features.items()}), mixed


def _holds_quoted(storage: pa.Array) -> bool:
    """Whether any JSON value is a text that is JSON itself."""
    import pyarrow.compute as pc

    for text in storage.filter(pc.match_substring_regex(storage, r'^\s*"')).to_pylist():
        try:
            json.loads(json.loads(text))
        except (ValueError, RecursionError):
            continue
        return True
    return False


def write_json_lines(
    dataset: Dataset,
    file: Path,
    given_nulls: Mapping[str, Ints] | None = None,
    rows: Ints | None = None,
) -> dict[str, Any]:
    """Write rows as JSON lines, Unicode as it is; a key that a row did not have is not written.

    Parameters
    ----------
    dataset : Dataset
    file : Path
    given_nulls : mapping, optional
        As in :class:`datapruner.samples.samples.Samples`.
    rows : int64 array of shape (rows,), optional
        The rows' positions in the source; all in order by default.

    Returns
    -------
    dict
        What the card says to `datasets`: ``features`` and perhaps ``chunksize``.
    """
    places = np.arange(len(dataset)) if rows is None else rows
    own = {name: np.isin(places, given) for name, given in (given_nulls or {}).items()}
    seen = Seen()
    # Not pandas' writer, which rounds floats.
    with file.open("w", encoding="utf-8", newline="\n") as handle:
        for start, table in blocks(dataset, BATCH):
            for name, column in zip(table.column_names, table.columns, strict=True):
                seen.look((name,), column.combine_chunks())
            for place, row in enumerate(_rows(table), start):
                line = {
                    name: value
                    for name, value in row.items()
                    if value is not None or name not in own or own[name][place]
                }
                handle.write(json.dumps(line, ensure_ascii=False, default=_moment) + "\n")
    features, mixed = seen.features(dataset)
    if seen.fine and any(holds_json(column.type) for column in features.arrow_schema):
        names = [column.name for column in features.arrow_schema if holds_json(column.type)]
        logger.warning(
            "load_dataset rounds numbers to ten decimals, and has nulls for NaN and infinities, where it reads JSON "
            "lines with a column like '%s'; the lines themselves are exact, and parquet is read exactly",
            safe_text(names[0], 60),
        )
    for name in sorted(path[0] for path in seen.quoted if len(path) == 1):
        logger.warning(
            'load_dataset reads texts such as "0" or "true" in the column \'%s\', which holds other values too, as '
            "numbers and truths where it reads JSON lines; the lines themselves are exact, and parquet is read exactly",
            safe_text(name, 60),
        )
    found: dict[str, Any] = {"features": features._to_yaml_list()}
    if mixed and file.stat().st_size > CHUNK:
        found["chunksize"] = file.stat().st_size + 1
    return found


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    columns = {name: decoded(table.column(name)) for name in table.column_names}
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _moment(value: Any) -> str:
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    raise DataPrunerError(f"JSON lines cannot hold {safe_text(repr(value), 60)}; write parquet")
