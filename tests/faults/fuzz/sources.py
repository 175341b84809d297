"""Valid sources: rows of every layout, in every format a source may have."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
Shape = Callable[[pa.Table], pa.Table]


def split(said: str) -> list[str]:
    return said.split()


WORDS = split(
    "the a sum sorts list of two three write function explain how water moves café naïve 你好 мир why "
    "answer because return x=1; <b>bold</b> 3.14 -7 True null `code` $E=mc^2$ \U0001f642 "
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 e\u0301 \ufb01"
)
HOSTILE = [
    "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "\u202egnirts\u202c\u200b",
    "</script><img src=x onerror=alert(1)>",
    "nul \x00 inside",
    "line\u2028separator\r\nreturn\rcarriage\ttab\x85",
    "{% for x in y %}{{ 7*7 }}{% endfor %} <|assistant|></s>",
    "=cmd|' /C calc'!A0",
    '"{\\"role\\": \\"user\\"}"',
    "| a | b |\n|---|---|",
    "---\nlicense: mit\n---",
    "\ufeffmark",
    " ",
    "\n\n",
    "NaN",
    "[1, 2]",
    "null",
]
PLACED = "<img src=x onerror"  # must never stand in a page as it is


def text(draw: Random, most: int = 30) -> str:
    """A sentence, now and then of a kind that breaks things."""
    kind = draw.random()
    if kind < 0.05:
        return draw.choice(HOSTILE)
    words = " ".join(draw.choices(WORDS, k=draw.randint(1, most)))
    if kind < 0.08:
        words += draw.choice(HOSTILE)
    if kind < 0.085:
        words *= draw.choice((50, 400))
    return words


def turns(draw: Random, role: str, content: str, names: tuple[str, str]) -> list[Row]:
    made = [{role: "system", content: text(draw)}] if draw.random() < 0.2 else []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        made += [{role: names[0], content: text(draw)}, {role: names[1], content: text(draw)}]
    return made


def chat(draw: Random) -> list[Row]:
    return turns(draw, "role", "content", ("user", "assistant"))


def called(draw: Random) -> list[Row]:
    """Turns with a call of a tool and its answer."""
    arguments = {"city": text(draw, 2), "days": draw.randint(0, 9)}
    given = arguments if draw.random() < 0.5 else json.dumps(arguments)
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": given}}
    return [
        {"role": "user", "content": text(draw)},
        {"role": "assistant", "content": draw.choice(("", None, text(draw))), "tool_calls": [call]},
        {"role": "tool", "content": text(draw), "tool_call_id": "c1", "name": "weather"},
        {"role": "assistant", "content": text(draw)},
    ]


TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}},
    }
]


def row_of(layout: str, draw: Random) -> Row:
    said = lambda: text(draw)  # noqa: E731
    match layout:
        case "messages":
            return {"messages": chat(draw)}
        case "system":
            return {"system": said(), "messages": chat(draw)}
        case "sharegpt":
            return {"conversations": turns(draw, "from", "value", ("human", "gpt"))}
        case "sharegpt_text":
            return {"conversations": json.dumps(turns(draw, "from", "value", ("human", "gpt")))}
        case "tools":
            return {"messages": called(draw), "tools": TOOLS}
        case "tools_text":
            return {"messages": called(draw), "tools": json.dumps(TOOLS)}
        case "alpaca":
            return {"instruction": said(), "input": draw.choice(("", said())), "output": said()}
        case "history":
            pairs = [[said(), said()] for _ in range(draw.randint(0, 2))]
            return {"instruction": said(), "output": said(), "history": pairs}
        case "dolly":
            return {"instruction": said(), "context": said(), "response": said(), "category": "qa"}
        case "question":
            return {"question": said(), "answer": said()}
        case "completion":
            return {"prompt": said(), "completion": said()}
        case "completion_messages":
            return {
                "prompt": [{"role": "user", "content": said()}],
                "completion": [{"role": "assistant", "content": said()}],
            }
        case "preference":
            return {"prompt": said(), "chosen": said(), "rejected": said()}
        case "preference_messages":
            ask = {"role": "user", "content": said()}
            return {
                "chosen": [ask, {"role": "assistant", "content": said()}],
                "rejected": [ask, {"role": "assistant", "content": said()}],
            }
        case "several_rejected":
            return {
                "prompt": said(),
                "chosen": said(),
                "rejected": [said() for _ in range(draw.randint(1, 3))],
            }
        case "kto":
            return {"prompt": said(), "completion": said(), "label": draw.random() < 0.5}
        case "query":
            return {"query": said(), "response": said()}
        case "input":
            return {"inputs": said(), "targets": said()}
        case "embedding":
            return {
                "embedding": [draw.gauss(0, 1) for _ in range(8)],
                "label": draw.choice(("cat", "dog", "emu")),
            }
        case _:
            return {"text": said()}


LAYOUTS = split(
    "messages system sharegpt sharegpt_text tools tools_text alpaca history dolly question completion "
    "completion_messages preference preference_messages several_rejected kto query input embedding text"
)


def beside(draw: Random, number: int) -> dict[str, Any]:
    """Columns that may stand beside any layout, each with a maker of its value."""
    return {
        "id": number,
        "topic": draw.choice(("math", "math", "code", "code", "chat", "chat", "\x1b[1mtopic")),
        "score": draw.choice((0.5, -1.0, draw.random(), math.nan, math.inf, None)),
        "flag": number % 7 == 0,
        "never": number % 11 == 5,
        "meta": {"lang": draw.choice(("en", None)), "deep": {"n": [number, {"x": "y"}]}},
        "tags": [draw.choice(WORDS) for _ in range(draw.randint(0, 3))],
        "vector": [draw.gauss(0, 1) for _ in range(6)],
        "nothing": None,
        "mixed": draw.choice((1, "one", None, [1], {"a": 1})),
        "big": draw.choice((2**53 + 1, 2**63 - 1, -1)),
    }


def typed(draw: Random, number: int) -> dict[str, Any]:
    """Columns that only Arrow holds."""
    return {
        "when": datetime.datetime(2020, 1, 1 + number % 28, tzinfo=datetime.UTC),
        "day": datetime.date(1970 + number % 60, 1, 1),
        "took": datetime.timedelta(seconds=number),
        "price": decimal.Decimal(number) / 100,
        "raw": bytes([number % 256, 0, 255]),
    }


def rows(draw: Random, *, arrow: bool, layout: str | None = None, most: int = 40) -> list[Row]:
    """Valid rows of one layout with the same columns, some of them copies."""
    layout = layout or draw.choice(LAYOUTS)
    number = draw.choice((1, 2, 3, 5, 12, most, most, most, draw.randint(1, 4 * most)))
    names = draw.sample(list(beside(draw, 0)), k=draw.choice((0, 1, 2, 4)))
    if draw.random() < 0.9:  # what options name
        names += ["topic", "flag", "never"]
    if draw.random() < 0.4:
        names.append("vector")
    if not arrow and draw.random() < 0.7:
        names = [name for name in names if name != "mixed"]
    extra = draw.sample(list(typed(draw, 0)), k=draw.choice((0, 0, 1, 2))) if arrow else []
    made: list[Row] = []
    for at in range(number):
        copied = made and draw.random() < 0.08
        row = dict(draw.choice(made)) if copied else row_of(layout, draw)
        row |= {name: value for name, value in beside(draw, at).items() if name in names}
        row |= {name: value for name, value in typed(draw, at).items() if name in extra}
        made.append(row)
    return made


FORMATS = split(
    "jsonl jsonl jsonl json csv tsv parquet parquet arrow arrows jsonl.gz jsonl.zst csv.gz json.gz parts "
    "splits glob disk ndjson"
)


def needs_arrow(form: str) -> bool:
    return form in ("parquet", "arrow", "arrows", "disk", "parts")


def _as_it_is(table: pa.Table) -> pa.Table:
    return table


def encoded(made: list[Row], form: str, shape: Shape = _as_it_is) -> bytes:
    """One file's bytes; a table is given another shape first."""
    if form.endswith(".gz"):
        return gzip.compress(encoded(made, form[:-3]), mtime=0)
    if form.endswith(".zst"):
        return pa.Codec("zstd").compress(encoded(made, form[:-4]), asbytes=True)
    if form == "json":
        return json.dumps(made, default=str).encode()
    if form in ("csv", "tsv"):
        out = io.StringIO(newline="")
        names = list(dict.fromkeys(name for row in made if isinstance(row, dict) for name in row))
        writer = csv.writer(out, delimiter="\t" if form == "tsv" else ",")
        writer.writerow(names)
        for row in made:
            cells = [row.get(name) if isinstance(row, dict) else row for name in names]
            writer.writerow([json.dumps(c) if isinstance(c, dict | list) else c for c in cells])
        return out.getvalue().encode("utf-8", "surrogatepass" if len(made) % 2 else "replace")
    if form in ("parquet", "arrow", "arrows"):
        table = shape(pa.Table.from_pylist(made))
        sink = io.BytesIO()
        if form == "parquet":
            pq.write_table(table, sink, row_group_size=max(1, len(made) // 2))
        else:
            new = pa.ipc.new_file if form == "arrow" else pa.ipc.new_stream
            with new(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=7)
        return sink.getvalue()
    return "".join(
        json.dumps(row, ensure_ascii=len(made) % 2 == 0, default=str) + "\n" for row in made
    ).encode("utf-8", "surrogatepass")


def write(made: list[Row], form: str, folder: Path, name: str, shape: Shape = _as_it_is) -> str:
    """Write rows in a format; what the command line is given for them. Rows that Arrow cannot hold become JSON."""
    try:
        if form == "disk":
            from datasets import Dataset

            Dataset.from_list(made).save_to_disk(str(folder / name))
            return name
        if form in ("parts", "splits", "glob"):
            (folder / name).mkdir()
            inner = {"parts": "parquet", "splits": "jsonl", "glob": "jsonl"}[form]
            half = max(1, len(made) // 2)
            names = ("train", "test") if form == "splits" else ("part-0", "part-1")
            for part, piece in zip(names, (made[:half], made[half:]), strict=True):
                if piece:
                    (folder / name / f"{part}.{inner}").write_bytes(encoded(piece, inner, shape))
            return f"{name}/part-*.jsonl" if form == "glob" else name
        path = folder / f"{name}.{'arrow' if form == 'arrows' else form}"
        path.write_bytes(encoded(made, form, shape))
        return path.name
    except (
        pa.ArrowException,
        UnicodeError,
        OverflowError,
        TypeError,
        ValueError,
        AttributeError,
        NotImplementedError,
    ):
        path = folder / f"{name}.rows.jsonl"
        path.write_bytes(encoded(made, "jsonl"))
        return path.name


def vectors(draw: Random, number: int, width: int = 6) -> np.ndarray:
    """One vector a row, in a few heaps."""
    numbers = np.random.default_rng(draw.randrange(2**32))
    heaps = numbers.normal(size=(3, width))
    return (heaps[numbers.integers(0, 3, number)] + 0.3 * numbers.normal(size=(number, width))).astype(
        np.float32
    )
