"""How rows of several layouts are read: noted in a result, and found there by whoever reads it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.errors import MALFORMED, DataPrunerError
from datapruner.files.paths import is_file
from datapruner.samples.layouts import LAYOUTS
from datapruner.samples.sample import Layout
from datapruner.samples.ways import Way
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

LAYOUT = b"datapruner_layouts"
"""Metadata of ``selection.parquet``: how rows were read, those of each split one source after another; JSON."""
RESULT = "selection.parquet"
Record = Mapping[str, Any]


def record(split: str, ways: Mapping[str, Sequence[Way]]) -> dict[str, Any]:
    """Note how the rows of several layouts are read, by splits; nothing where those of a result's split are of one."""
    if len({way.layout.told for way in ways[split]}) < 2:
        return {}
    return {
        "split": split,
        "splits": {
            name: [_noted(way) for way in found]
            for name, found in ways.items()
            if found and not any(way.missing for way in found)
        },
    }


def _noted(way: Way) -> dict[str, Any]:
    schema = way.features.arrow_schema.remove_metadata().serialize()
    layout = asdict(way.layout)
    return {
        "source": way.name,
        "rows": way.rows,
        "exact": way.exact,
        "schema": base64.b64encode(schema).decode(),
        **layout,
    }


def recorded(folder: Path) -> Mapping[str, Sequence[Record]]:
    """Read what is noted in a folder of the rows of each split; empty where it is no such result."""
    import pyarrow.parquet as pq

    file = folder / RESULT
    if not is_file(file):
        return {}
    try:
        noted = (pq.read_schema(file).metadata or {}).get(LAYOUT)
        if noted is None:
            return {}
        said = json.loads(noted)
        kept = pq.read_table(file, columns=["kept"])["kept"].to_numpy().astype(np.bool_)
        splits: dict[str, list[dict[str, Any]]] = said["splits"]
        ends = np.cumsum([0, *(one["rows"] for one in splits[said["split"]])])
        for one, start, stop in zip(splits[said["split"]], ends, ends[1:], strict=False):
            one["rows"] = int(kept[start:stop].sum())
        return splits
    except (*MALFORMED, OSError) as error:
        raise DataPrunerError(f"{safe_text(str(file), 200)} is damaged; run its recipe again") from error


def ways_noted(records: Sequence[Record], dataset: Dataset, label: str) -> tuple[Way, ...]:
    """Make of what is noted the ways to read a dataset's rows.

    Raises
    ------
    DataPrunerError
        The rows are others than those that it was noted of.
    """
    try:
        ways = tuple(_way(one, dataset) for one in records)
    except MALFORMED as error:
        raise DataPrunerError(
            f"{label}: what {RESULT} says of its layouts is damaged; run its recipe again"
        ) from error
    if sum(way.rows for way in ways) != len(dataset):
        raise DataPrunerError(
            f"{label} has other rows than its {RESULT} says; run its recipe again, or name its layout with --layout"
        )
    return ways


def _way(one: Record, dataset: Dataset) -> Way:
    """Check and build one: what a file says is anybody's."""
    import pyarrow as pa
    from datasets import Features

    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(one["schema"], validate=True)))
    there, whole = dataset.features, dataset.features.arrow_schema
    own = Features.from_arrow_schema(schema)
    features = Features(
        {
            name: own[name] if _was_widened(kind, whole.field(name).type) else there[name]
            for name, kind in zip(schema.names, schema.types, strict=True)
        }
    )
    roles = {str(role): str(column) for role, column in one["columns"].items()}
    layout = Layout(
        str(one["name"]),
        roles,
        tuple(map(str, one["beside"])),
        str(one["answers"]),
        one["transcripts"] is True,
    )
    known = LAYOUTS[layout.name]
    if not (
        {*roles.values()} <= {*features}
        and {*layout.beside} <= {*roles}
        and {*known.needs} <= {*roles}
        and known.text
    ):
        raise ValueError("no layout of these columns")
    return Way(int(one["rows"]), layout, features, one["exact"] is True, str(one["source"]))


def _was_widened(own: pa.DataType, held: pa.DataType) -> bool:
    """Whether a column has another type only because of the other sources' rows."""
    import pyarrow.types as t

    numbers = all(t.is_integer(kind) or t.is_floating(kind) for kind in (own, held))
    return own != held and (t.is_nested(own) or t.is_null(own) or numbers)
