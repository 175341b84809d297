"""Arrow tables with columns of every type there is, and others' metadata."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa

from tests.faults.fuzz.sources import HOSTILE


def _casts(draw: Random) -> list[pa.DataType]:
    return [
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.float16(),
        pa.int8(),
        pa.uint64(),
        pa.decimal256(60, 3),
        pa.bool_(),
        pa.null(),
        pa.large_list(pa.string()),
        pa.list_view(pa.string()),
        pa.run_end_encoded(pa.int32(), pa.string()),
    ]


def odd_columns(draw: Random, number: int) -> dict[str, Callable[[], pa.Array]]:
    """Columns that few writers make, each with a maker of so many values."""
    return {
        "far": lambda: pa.array(
            [2**62 - at for at in range(number)], pa.timestamp(draw.choice(("s", "ms", "us", "ns")))
        ),
        "zoned": lambda: pa.array(
            list(range(number)), pa.timestamp("us", draw.choice(("UTC", "+05:30", "No/Zone")))
        ),
        "clock": lambda: pa.array([datetime.time(at % 24) for at in range(number)]),
        "months": lambda: pa.array([(at, 1, 1) for at in range(number)], pa.month_day_nano_interval()),
        "pairs": lambda: pa.array(
            [[("k", at), ("k", None)] for at in range(number)], pa.map_(pa.string(), pa.int64())
        ),
        "fixed": lambda: pa.array([[1.0, 2.0]] * number, pa.list_(pa.float32(), 2)),
        "bytes4": lambda: pa.array([b"\xff\x00ab"] * number, pa.binary(4)),
        "hollow": lambda: pa.array([{}] * number, pa.struct([])),
        "union": lambda: pa.UnionArray.from_sparse(
            pa.array([at % 2 for at in range(number)], pa.int8()),
            [pa.array(range(number), pa.int64()), pa.array(["x"] * number)],
        ),
        "views": lambda: pa.array([["a", None]] * number, pa.list_view(pa.string())),
        "broken": lambda: pa.Array.from_buffers(
            pa.string(), number, [None, pa.py_buffer(_offsets(number)), pa.py_buffer(b"\xff" * number)]
        ),
        "date64": lambda: pa.array([datetime.date(9999, 12, 31)] * number, pa.date64()),
        "image": lambda: pa.array([{"bytes": draw.randbytes(30), "path": "../../etc/hosts"}] * number),
        "uuid": lambda: pa.ExtensionArray.from_storage(
            pa.uuid(), pa.array([bytes(16)] * number, pa.binary(16))
        ),
        "": lambda: pa.array(["unnamed"] * number),
        draw.choice(HOSTILE): lambda: pa.array(list(range(number))),
        "text": lambda: pa.array(["twice"] * number),
        "label": lambda: pa.array([None, *range(1, number)], pa.int8() if number < 100 else pa.int64()),
        "deep": lambda: pa.array([_nested(draw.choice((3, 60)))] * number),
    }


def _offsets(number: int) -> bytes:
    import numpy as np

    return np.arange(number + 1, dtype=np.int32).tobytes()


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _features(draw: Random, table: pa.Table) -> dict[str, Any]:
    """What `datasets` writes beside a table, not always of its columns."""
    kinds = [
        {"_type": "Image"},
        {"_type": "Audio"},
        {"_type": "ClassLabel", "names": ["a", "b"]},
        {"_type": "Json", "decode": True},
        {"_type": "Value", "dtype": "string"},
        {"_type": "Value", "dtype": "nothing"},
        {"_type": "Sequence", "feature": {"_type": "Value", "dtype": "int64"}},
        {"_type": "Translation", "languages": ["en", "fr"]},
        {"_type": "Pdf"},
        {},
        [],
    ]
    return {name: draw.choice(kinds) for name in table.column_names if draw.random() < 0.4}


def odd_table(draw: Random, table: pa.Table) -> pa.Table:
    """Cast a column, add odd ones, or describe it otherwise than it is."""
    for _ in range(draw.choice((1, 1, 2))):
        kind = draw.random()
        if kind < 0.35 and table.num_columns:
            at = draw.randrange(table.num_columns)
            try:
                cast = table.column(at).cast(draw.choice(_casts(draw)))
            except (pa.ArrowException, NotImplementedError):
                continue
            table = table.set_column(at, table.column_names[at], cast)
        elif kind < 0.8:
            every = odd_columns(draw, table.num_rows)
            name = draw.choice(list(every))
            try:
                table = table.append_column(name, every[name]())
            except (pa.ArrowException, NotImplementedError, OverflowError, TypeError, ValueError):
                continue
        else:
            info = {"info": {"features": _features(draw, table)}}
            table = table.replace_schema_metadata({b"huggingface": json.dumps(info).encode()})
    return table
