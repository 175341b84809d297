"""Hostile tables and arrays: Parquet, Arrow, folders that were saved, NumPy's files."""

# ruff: noqa: E501 - a case is a line
from __future__ import annotations

import io
import json
import random
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.hostile_sources import Case, also, link, noise, pipe, put
from tests.samples.test_sound import KINDS, damaged, write

N = 8
P, R, V = (
    "prune a.parquet W",
    "prune a.arrow W",
    "prune good.jsonl --embeddings V.npy --scorer k_center --keep 3 -q -o out --overwrite",
)


def table(**columns: object):
    """Write columns beside a text as Parquet."""
    return lambda place: pq.write_table(
        pa.table({"text": [f"row {i}" for i in range(N)], **columns}), place / "a.parquet"
    )


def stream(**columns: object):
    def make(place: Path) -> None:
        held = pa.table({"text": [f"row {i}" for i in range(N)], **columns})
        with pa.ipc.new_stream(str(place / "a.arrow"), held.schema) as writer:
            writer.write_table(held)

    return make


def told(kind: str, said: object, column: pa.Array | None = None):
    """Write Parquet with metadata of a library."""

    def make(place: Path) -> None:
        held = pa.table(
            {"text": [f"row {i}" for i in range(N)], "held": [None] * N if column is None else column}
        )
        raw = said if isinstance(said, bytes) else json.dumps(said).encode()
        pq.write_table(held.replace_schema_metadata({kind: raw}), place / "a.parquet")

    return make


def features(held: object) -> dict[str, object]:
    return {"info": {"features": {"text": {"dtype": "string", "_type": "Value"}, "held": held}}}


def paths(path: str) -> pa.Array:
    return pa.array(
        [{"bytes": None, "path": path}] * N, pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )


def raw_parquet() -> bytes:
    held = io.BytesIO()
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(200)], "n": list(range(200))}), held)
    return held.getvalue()


def flipped(make, name: str, seed: int, times: int = 6):
    """Turn some bits of a file that was made."""

    def flip(place: Path) -> None:
        make(place)
        file, rng = place / name, random.Random(seed)
        raw = bytearray(file.read_bytes())
        for _ in range(times):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        file.write_bytes(raw)

    return flip


def deep(levels: int) -> pa.Array:
    array = pa.array([1] * N)
    for _ in range(levels):
        array = pa.StructArray.from_arrays([array], ["a"])
    return array


def far(kind: pa.DataType) -> pa.Array:
    whole = pa.int32() if kind == pa.date32() else pa.int64()
    return pa.array([0] * (N - 1) + [2**31 - 1 if kind == pa.date32() else 2**62], whole).view(kind)


def repeated(place: Path) -> None:
    """One text of 100 kB, named by 100,000 rows: 10 GB in a small file."""
    schema = pa.schema([("text", pa.dictionary(pa.int32(), pa.string()))])
    with pq.ParquetWriter(place / "a.parquet", schema) as writer:
        for _ in range(10):
            rows = pa.DictionaryArray.from_arrays(
                pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 100_000])
            )
            writer.write_table(pa.table({"text": rows}, schema=schema))


NAMES = {
    "escapes": "\x1b[2J\x1b]0;x\x07", "line ends": "a\nb\r\nc", "direction": "\u202egnp.x", "a page": "<img src=x onerror=alert(1)>",
    "NUL": "a\0b", "a path": "../../etc/passwd", "nothing": "", "a template": "{{ 7*7 }}{0.__class__}", "100 kB": "n" * 100_000,
    "an index": "__index_level_0__", "YAML": "a: [&x *x]\n---\n!!python/object:x {}",
}  # fmt: skip
TYPES = {
    "string_view": pa.array([f"{i}" * 20 for i in range(N)], pa.string_view()),
    "binary_view": pa.array([b"x" * 20] * N, pa.binary_view()),
    "a list view": pa.array([[1]] * N, pa.list_view(pa.int64())),
    "a union": pa.UnionArray.from_sparse(pa.array([0] * N, pa.int8()), [pa.array(list(range(N)))]),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([N], pa.int32()), pa.array(["x"])),
    "months": pa.array([(1, 2, 3)] * N, pa.month_day_nano_interval()),
    "half floats": pa.array(np.array([np.nan, np.inf] * 4, np.float16)),
    "decimals": pa.array([10**70] * N, pa.decimal256(76, 0)),
    "a map": pa.array([[("a", 1), ("a", 2)]] * N, pa.map_(pa.string(), pa.int64())),
    "no values": pa.nulls(N), "30 objects": deep(30), "90 objects": deep(90),
    "no UTF-8": pa.Array.from_buffers(pa.string(), N, [None, *pa.array([b"\xff\xfe"] * N, pa.binary()).buffers()[1:]]),
}  # fmt: skip
IMAGE = {"_type": "Image"}
PARQUET: dict[str, Case] = {
    "noise": (put(b"PAR1" + noise("parquet") + b"PAR1", "a.parquet"), P),
    "marks alone": (put(b"PAR1PAR1", "a.parquet"), P),
    "a footer of 2 GB": (put(b"PAR1" + struct.pack("<i", 2**31 - 1) + b"PAR1", "a.parquet"), P),
    "a footer below zero": (put(b"PAR1" + b"x" * 99 + struct.pack("<i", -1) + b"PAR1", "a.parquet"), P),
    "cut": (put(raw_parquet()[:-200], "a.parquet"), P),
    **{f"bits turned, {seed}": (flipped(put(raw_parquet(), "a.parquet"), "a.parquet", seed), P) for seed in range(10)},
    "10 GB in dictionaries": (repeated, P),
    "no rows": (lambda place: pq.write_table(pa.table({"text": pa.array([], pa.string())}), place / "a.parquet"), P),
    "no columns": (lambda place: pq.write_table(pa.table({}), place / "a.parquet"), P),
    **{f"a column named {name}": (table(**{said: list(range(N))}), P) for name, said in NAMES.items()},
    **{f"shown, a column named {name}": (table(**{said: [said] * N}), "inspect a.parquet")
       for name, said in NAMES.items() if name in ("escapes", "direction", "line ends")},
    **{f"a column of {name}": (table(held=array), P) for name, array in TYPES.items()
       if name in ("decimals", "a map", "no values", "30 objects", "90 objects", "no UTF-8", "half floats")},
    **{f"a {name} beyond the calendar": (table(when=far(kind)), "prune a.parquet --format jsonl W")
       for name, kind in {"time": pa.timestamp("us"), "time of a zone": pa.timestamp("ms", "UTC"), "day": pa.date32(),
                          "duration": pa.duration("us")}.items()},
    "a zone that is none": (table(when=pa.array([0] * N, pa.timestamp("s", "No/Where\x1b[2J"))), "prune a.parquet --format jsonl W"),
    "features that are no JSON": (told("huggingface", b"{"), P),
    "features that are no text": (told("huggingface", b"\xff\xfe"), P),
    "features that are a list": (told("huggingface", {"info": {"features": [1, 2]}}), P),
    "features of no kind": (told("huggingface", features({"_type": "os.system"})), P),
    "features of another kind": (told("huggingface", features({"_type": "ClassLabel", "names": ["a"]})), P),
    "features 900 levels deep": (told("huggingface", b'{"info": {"features": {"held": ' + b'{"a": ' * 900 + b"1" + b"}" * 902), P),
    "pandas that is no JSON": (told("pandas", b"{"), P),
    **{f"an image at {path}": (told("huggingface", features(IMAGE), paths(path)), P)
       for path in ("/etc/passwd", "http://127.0.0.1:9/x.png", "simplecache::file:///etc/passwd", "/dev/zero", "../good.jsonl")},
    "sound at a pipe": (also(pipe("p"), told("huggingface", features({"_type": "Audio"}), paths("p"))), P),
    "a film at an address": (told("huggingface", features({"_type": "Video"}), paths("http://127.0.0.1:9/x.mp4")), P),
    "images, written as jsonl": (told("huggingface", features(IMAGE), paths("/etc/passwd")), "prune a.parquet --format jsonl W"),
    "a report of pages": (table(topic=["<script>alert(1)</script>\x1b[2J"] * N), "prune a.parquet --per-group topic --report W"),
}  # fmt: skip


def offsets(what: str, name: str):
    return lambda place: write(damaged(what), place / name)


def saved(name: str, said: object):
    """Write a folder as `save_to_disk` does, one file of it changed."""

    def make(place: Path) -> None:
        from datasets import Dataset, disable_progress_bars

        disable_progress_bars()
        Dataset.from_dict({"text": [f"row {i}" for i in range(N)]}).save_to_disk(place / "held")
        held = json.loads((place / "held" / name).read_text()) if isinstance(said, dict) else None
        (place / "held" / name).write_text(json.dumps({**held, **said}) if held is not None else str(said))

    return make


S = "prune held W"
ARROW: dict[str, Case] = {
    **{f"offsets: {what}, {name}": (offsets(what, name), f"prune {name} W") for what in KINDS for name in ("file.arrow", "stream.arrow")},
    "offsets in gz": (offsets(KINDS[0], "stream.arrow.gz"), "prune stream.arrow.gz W"),
    **{f"bits turned, {seed}": (flipped(stream(n=list(range(N))), "a.arrow", seed), R) for seed in range(12)},
    "noise": (put(noise("arrow"), "a.arrow"), R),
    "a message of 2 GB": (put(b"\xff\xff\xff\xff" + struct.pack("<i", 2**31 - 8) + bytes(64), "a.arrow"), R),
    "the marks of a file alone": (put(b"ARROW1\0\0" + bytes(32) + b"ARROW1", "a.arrow"), R),
    **{f"a column of {name}": (stream(held=array), R) for name, array in TYPES.items() if name != "90 objects"},
    "views and a report": (stream(held=TYPES["string_view"]), "prune a.arrow --per-group held --report W"),
    "views as jsonl": (stream(held=TYPES["string_view"]), "prune a.arrow --format jsonl W"),
    "a time beyond the calendar": (stream(when=far(pa.timestamp("ns", "UTC"))), "prune a.arrow --format jsonl W"),
    "a saved folder that names a file outside": (saved("state.json", {"_data_files": [{"filename": "../good.jsonl"}]}), S),
    "a saved folder that names numbers": (saved("state.json", {"_data_files": [{"filename": 7}]}), S),
    "a saved folder of no state": (saved("state.json", "[]"), S),
    "a saved folder nested without end": (saved("state.json", "[" * 100_000), S),
    "a saved folder of other features": (saved("dataset_info.json", {"features": {"text": {"_type": "Image"}}}), S),
    "a saved folder of no features": (saved("dataset_info.json", {"features": {"text": {"_type": "os"}}}), S),
}  # fmt: skip


def array(held: np.ndarray, pickle: bool = False):
    return lambda place: np.save(place / "V.npy", held, allow_pickle=pickle)


def header(said: str, data: bytes = bytes(96 * 4)):
    raw = said.encode("latin-1") + b"\n"
    return put(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(raw)) + raw + data, "V.npy")


def shaped(shape: str, kind: str = "'<f4'") -> str:
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"


def spoiled(value: float) -> np.ndarray:
    held = np.ones((12, 4), np.float32)
    held[7, 2] = value
    return held


class Runs:
    """What ends the process when it is unpickled."""

    def __reduce__(self):
        import os

        return os._exit, (66,)


VECTORS: dict[str, Case] = {
    "NaN": (array(spoiled(np.nan)), V), "infinity": (array(spoiled(-np.inf)), V),
    "numbers too large to square": (array(spoiled(3e38)), V), "zeros": (array(np.zeros((12, 4), np.float32)), V),
    "a pickle": (array(np.array([Runs()] * 12, dtype=object), pickle=True), V),
    "an archive": (lambda place: np.savez((place / "V.npy").open("wb"), a=np.ones((12, 4))), V),
    "half an archive": (put(b"PK\x03\x04" + noise("npz"), "V.npy"), V),
    "texts": (array(np.array([["a\x1b[2J"] * 4] * 12)), V),
    "complex": (array(np.ones((12, 4), complex)), V), "times": (array(np.ones((12, 4), "M8[s]")), V),
    "records": (array(np.zeros(12, [("a", "f4"), ("b\x1b", "f4")])), V),
    "no dimensions": (array(np.ones(())), V), "32 dimensions": (array(np.ones((12, *[1] * 31))), V),
    "no width": (array(np.ones((12, 0))), V),
    "10^18 rows": (header(shaped(f"({10**18}, 4)")), V), "rows below zero": (header(shaped("(-12, 4)")), V),
    "a shape beyond numbers": (header(shaped("(" + "9" * 5000 + ", 4)")), V),
    "a shape of texts": (header(shaped("('a', 4)")), V), "a text of 4 GB": (header(shaped("(12, 4)", "'<U1000000000'")), V),
    "a head that is nested": (header("(" * 9000), V), "a head that is a call": (header("__import__('os')._exit(66)"), V),
    "a head of 4 GB": (put(b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + noise("npy"), "V.npy"), V),
    "a head of NUL": (header("\0" * 64), V), "another version": (put(b"\x93NUMPY\x09\x09" + noise("npy"), "V.npy"), V),
    "cut": (header(shaped("(12, 4)"), bytes(9)), V), "noise": (put(noise("npy"), "V.npy"), V),
    "a link to a process": (link("V.npy", "/proc/self/mem"), V),
    "divergences of NaN": (array(np.full(12, np.nan)),
        "prune good.jsonl --embeddings E.npy --divergences V.npy --scorer paser --n-clusters 2 --keep 3 -q -o out --overwrite"),
    "divergences that are a pickle": (array(np.array([Runs()] * 12, dtype=object), pickle=True),
        "prune good.jsonl --embeddings E.npy --divergences V.npy --scorer paser --n-clusters 2 --keep 3 -q -o out --overwrite"),
}  # fmt: skip

CASES = {"Parquet": PARQUET, "Arrow": ARROW, "arrays": VECTORS}
