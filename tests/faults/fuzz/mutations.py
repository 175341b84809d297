"""One to three places that are not as they were: of rows, of options, of mappings, of bytes, of files."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.fuzz.sources import HOSTILE, split

VALUES: list[Any] = [
    None,
    "",
    0,
    -1,
    1,
    True,
    10**30,
    -(2**63),
    2**64,
    1e308,
    1e-320,
    math.nan,
    -math.inf,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"role": "user"},
    ["user", "hello"],
    [{"role": "assistant"}],
    {"a": {"b": {"c": {"d": [{"e": 1}]}}}},
    "x" * 3000,
    "not a number",
    b"\xff\x00",
    "\ud800 alone",
    *HOSTILE,
]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place within nested lists and mappings."""
    inner: list[tuple[Any, ...]] = [at] if at else []
    if isinstance(value, dict):
        for key in value:
            inner += places(value[key], (*at, key))
    elif isinstance(value, list):
        for number in range(len(value)):
            inner += places(value[number], (*at, number))
    return inner


def change(draw: Random, value: Any) -> None:
    """Drop, double, retype or rename something within a nested value."""
    found = places(value)
    if not found:
        return
    at = draw.choice(found)
    holder = value
    for step in at[:-1]:
        holder = holder[step]
    key = at[-1]
    kind = draw.choice(("drop", "replace", "replace", "wrap", "text", "double", "rename"))
    if kind == "drop":
        del holder[key]
    elif kind == "wrap":
        holder[key] = draw.choice(([holder[key]], {"value": holder[key]}))
    elif kind == "text":
        holder[key] = str(holder[key])
    elif kind == "double" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == "rename" and isinstance(holder, dict):
        held = holder.pop(key)
        holder[
            draw.choice(("text", "messages", "", "label", f"{key}2", str(key).upper(), draw.choice(HOSTILE)))
        ] = held
    else:
        holder[key] = draw.choice(VALUES)


def change_rows(draw: Random, rows: list[Any]) -> None:
    """Change one row, or one column of all."""
    kind = draw.random()
    if kind < 0.65:
        change(draw, rows)
    elif rows and isinstance(rows[0], dict) and rows[0]:
        column = draw.choice(list(rows[0]))
        how = draw.choice(("drop", "null", "value", "text", "wrap", "last"))
        value = draw.choice(VALUES)
        for row in rows:
            if not isinstance(row, dict) or column not in row:
                continue
            if how == "drop":
                del row[column]
            elif how == "null":
                row[column] = None
            elif how == "text":
                row[column] = str(row[column])
            elif how == "wrap":
                row[column] = [row[column]]
            elif how == "value":
                row[column] = value
        if how == "last" and isinstance(rows[-1], dict):
            rows[-1][column] = value


def change_bytes(draw: Random, data: bytes) -> bytes:
    """Flip, insert, drop, double or blank some bytes."""
    if not data:
        return draw.randbytes(draw.randint(1, 40))
    at = draw.randrange(len(data))
    end = min(len(data), at + draw.choice((1, 2, 8, 64, 500)))
    kind = draw.choice(("flip", "flip", "set", "insert", "drop", "double", "zero", "cut", "number"))
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
    if kind == "set":
        return data[:at] + bytes([draw.choice((0, 255, 34, 123, 10, draw.randrange(256)))]) + data[at + 1 :]
    if kind == "insert":
        put = draw.choice(
            (b"\x00", b"\xff\xfe", b'"', b"{", b"]", b"\n", b"\xed\xa0\x80", b"1e999", b": ", b"&a *a")
        )
        return data[:at] + put + data[at:]
    if kind == "drop":
        return data[:at] + data[end:]
    if kind == "double":
        return data[:end] + data[at:]
    if kind == "zero":
        return data[:at] + bytes(end - at) + data[end:]
    if kind == "number":
        return (
            data[:at] + draw.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x00\x00\x00\x80")) + data[at + 4 :]
        )
    return data[:at]


ENDINGS = (".jsonl", ".json", ".csv", ".parquet", ".arrow", ".gz", ".zst", ".npy", ".txt", "")


def change_file(draw: Random, folder: Path, words: list[str]) -> None:
    """Change the bytes of a file of the case, or the file as such."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        return
    path = draw.choice(files)
    kind = draw.random()
    if kind < 0.7:
        path.write_bytes(change_bytes(draw, path.read_bytes()))
    elif kind < 0.78:
        path.write_bytes(b"")
    elif kind < 0.86:
        renamed = path.with_suffix(draw.choice(ENDINGS))
        if not renamed.exists():
            path.rename(renamed)
            old, new = (p.relative_to(folder).as_posix() for p in (path, renamed))
            words[:] = [new if word == old else word for word in words]
    elif kind < 0.9:
        path.unlink()
    elif kind < 0.94:
        path.unlink()
        path.mkdir()
    else:
        other = draw.choice(files)
        if other != path:
            shutil.copyfile(other, path)


EXTREME = split(
    "0 -1 1 2 1e309 nan inf -0.0 1e-9 0.5 0.999999 1.0000001 3.0 1e3 99999999999999999999 true null [] {} "
    '[1,2] {"a":1} "" \x1b[31m \u202e \xe9 .. / . ~ * ** rows.jsonl out a=b =b a= a=b=c a,b text prompt'
)


def change_words(draw: Random, words: list[str], known: list[list[str]]) -> None:
    """Another value for an option, one more of any verb's, one less, or one twice."""
    options = [at for at, word in enumerate(words) if word.startswith("-") and word not in ("-o", "-q")]
    kind = draw.choice(("value", "value", "add", "add", "drop", "double"))
    if kind == "add" or not options:
        words += [draw.choice(EXTREME) if word is None else word for word in draw.choice(known)]
        return
    at = draw.choice(options)
    valued = at + 1 < len(words) and not words[at + 1].startswith("-")
    if kind == "drop":
        del words[at : at + 1 + valued]
    elif kind == "double":
        words += words[at : at + 1 + valued]
    elif valued:
        words[at + 1] = draw.choice((*EXTREME, words[at + 1] + "x", words[at + 1][:-1], words[at + 1] * 2))
