"""Hostile sources that are text, packed, no files, or media: JSON, CSV, gz and zst, pipes, links, folders of images."""

# ruff: noqa: E501 - a case is a line
from __future__ import annotations

import gzip
import json
import os
import random
import struct
import zlib
from pathlib import Path

ROW = {"text": "a row"}
P = "prune a.jsonl W"
Case = tuple


def put(raw: bytes | str, name: str = "a.jsonl"):
    """Write a file."""

    def make(place: Path) -> None:
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass"))

    return make


def lines(*rows: object, name: str = "a.jsonl"):
    """Write rows as JSON, or as they are, between good ones."""
    said = [row if isinstance(row, str) else json.dumps(row) for row in (ROW, ROW, *rows, ROW, ROW)]
    return put("\n".join(said) + "\n", name)


def noise(name: str, size: int = 4096) -> bytes:
    return random.Random(name).randbytes(size)


def nested(depth: int, opening: str, inner: str, closing: str) -> str:
    return '{"text": "x", "deep": ' + opening * depth + inner + closing * depth + "}"


DEPTHS = (50, 63, 64, 100, 200, 400, 900)
JSON: dict[str, Case] = {
    **{f"{depth} lists": (lines(nested(depth, "[", "1", "]")), P) for depth in DEPTHS},
    **{f"{depth} objects": (lines(nested(depth, '{"a":', "1", "}")), P) for depth in DEPTHS},
    "100,000 lists": (lines(nested(100_000, "[", "", "]")), P),
    "lists without an end": (lines('{"text": ' + "[" * 2_000_000), P),
    "nesting as rows": (put(nested(500, "[", '"x"', "]"), "a.json"), "prune a.json W"),
    "no UTF-8": (put(b'{"text": "a\xff\xfe"}\n' * 4), P),
    "no UTF-8 in a name": (put(b'{"text": "a", "k\xc3": 1}\n' * 4), P),
    "overlong UTF-8": (put(b'{"text": "\xc0\xaf\xe0\x80\xaf"}\n' * 4), P),
    "half a character": (lines('{"text": "\\ud800"}'), P),
    "half a character in a name": (lines('{"text": "x", "\\udfff": 1}'), P),
    "NUL": (lines('{"text": "a\\u0000b", "n\\u0000": "\\u0000"}'), P),
    "raw NUL": (put(b'{"text": "a\0b"}\n' * 4), P),
    "UTF-16": (put('{"text": "a"}\n'.encode("utf-16") * 4), P),
    "marks of order": (put(b"\xef\xbb\xbf\xef\xbb\xbf" + b'{"text": "a"}\n' * 4), P),
    "control characters": (lines({"text": "".join(map(chr, range(160))), "\x1b[2J\x9b": "\x1b]0;x\x07"}), P),
    "control characters, shown": (lines({"text": "".join(map(chr, range(160))), "\x1b[2J": "\u202e"}), "inspect a.jsonl"),
    "NaN and infinity": (lines('{"text": "x", "n": NaN, "m": -Infinity}'), P),
    "NaN in the way": (lines('{"text": NaN}'), P),
    "1e999": (lines('{"text": "x", "n": 1e999, "m": -1e-999}'), P),
    "5,000 digits": (lines('{"text": "x", "n": ' + "9" * 5000 + "}"), P),
    "2^70": (lines('{"text": "x", "n": 1180591620717411303424}', '{"text": "x", "n": -1}'), P),
    "one name twice": (lines('{"text": "x", "text": "y"}', '{"text": "x", "n": {"a": 1, "a": 2}}'), P),
    "2,000 columns": (lines(*({"text": "x", **{f"c{i}": i for i in range(2000)}} for _ in range(5))), P),
    "500 rows of other columns": (lines(*({"text": "x", f"c{i}": {f"d{i}": i}} for i in range(500))), P),
    "an empty name": (lines({"text": "x", "": 1, " ": 2}), P),
    "a name of 100 kB": (lines({"text": "x", "n" * 100_000: 1}), P),
    "a row of 40 MB": (lines({"text": "x" * 40_000_000}), P),
    "a row without an end": (put('{"text": "' + "x" * 40_000_000), P),
    "kinds that change": (lines({"text": 1}, {"text": ["a"]}, {"text": {"a": 1}}, {"text": None}), P),
    "empty objects": (put("{}\n" * 100_000), P),
    "no objects": (put("1\n[]\nnull\n"), P),
    "cut": (put('{"text": "a"}\n{"text": "b'), P),
    "noise": (put(noise("json")), P),
    "brackets that do not match": (put('[{"text": "a"}}'), P),
    "CR alone": (put('{"text": "a"}\r{"text": "b"}\r{"text": "c"}\r'), P),
    "other line ends": (put('{"text": "a\u2028\x85b"}\n' * 5), P),
    "a list of 300,000 lists": (put("[" + "[],[]," * 150_000 + "[]]", "a.json"), "prune a.json W"),
    "messages of no kind": (lines({"messages": [{"role": 5, "content": {"a": [None]}}, 7, None, "x"]}), P),
    "pieces of no kind": (lines({"messages": [{"role": "user", "content": [{"type": "image", "image": "/etc/passwd"}]}]}), P),
    "answers that are pages": (put(json.dumps({"question": "<script>", "answer": "\x1b[31m</script>"}) + "\n"), "inspect a.jsonl"),
}  # fmt: skip

C = "prune a.csv W"
CSV: dict[str, Case] = {
    "no UTF-8": (put(b"text\ncaf\xe9\n", "a.csv"), C),
    "NUL": (put("text\na\0b\n\0\n", "a.csv"), C),
    "a quote without an end": (put('text\n"' + "a\n" * 200_000, "a.csv"), C),
    "a cell of 40 MB": (put("text\n" + "x" * 40_000_000, "a.csv"), C),
    "ragged": (put("text,n\na\nb,c,d\n", "a.csv"), C),
    "10,000 columns": (put("text," + ",".join(f"c{i}" for i in range(10_000)) + "\n" + "x," * 10_000 + "x\n", "a.csv"), C),
    "one name twice": (put("text,text\na,b\n", "a.csv"), C),
    "empty names": (put("text,,\na,b,c\n", "a.csv"), C),
    "formulas": (put('text,n\n"=HYPERLINK(""http://x"")",@SUM(1)\n' * 3, "a.csv"), C),
    "control characters as names": (put("text,\x1b[2J\x9b,\u202e\na,b,c\nd,e,f\ng,h,i\n", "a.csv"), C),
    "and shown": (put("text,\x1b[2J\x9b,\u202e\na,\x1b]0;x\x07,c\n", "a.csv"), "inspect a.csv"),
    "and compared": (
        put("text,\x1b[2J\x9b\n" + "".join(f"row {i},\x1b[3{i % 3}m\x07\u202e\n" for i in range(9)), "a.csv"),
        "compare a.csv --scorer random --scorer length --keep 3 --per-group '\x1b[2J\x9b' --by '\x1b[2J\x9b' -o made",
    ),
    "names alone": (put("text,n\n", "a.csv"), C),
    "UTF-16": (put("text\na\nb\n".encode("utf-16"), "a.csv"), C),
    "a quote in the middle": (put('text\na"b"c\n"d"e\n', "a.csv"), C),
    "tabs": (put("text\tn\na\0\t1\n", "a.tsv"), "prune a.tsv W"),
    "noise": (put(noise("csv"), "a.csv"), C),
}  # fmt: skip


def bomb(name: str, block: bytes, times: int, head: bytes = b"", tail: bytes = b""):
    """Write packed members one after another, which are one file to whoever unpacks them."""

    def make(place: Path) -> None:
        if name.endswith(".gz"):
            pack = lambda raw: gzip.compress(raw, 1)  # noqa: E731
        else:
            import zstandard

            pack = zstandard.ZstdCompressor(1).compress
        packed = pack(block)
        with (place / name).open("wb") as handle:
            handle.write(pack(head))
            for _ in range(times):
                handle.write(packed)
            handle.write(pack(tail))

    return make


TEN = 10_000_000
GOOD = (json.dumps(ROW) + "\n").encode()
PACKED: dict[str, Case] = {
    **{f"2 GB of zeros: {name}": (bomb(name, bytes(TEN), 200), f"prune {name} W")
       for name in ("a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.parquet.gz", "a.arrow.gz", "a.jsonl.zst", "a.parquet.zst")},
    "2 GB of white space": (bomb("a.json.gz", b" " * TEN, 200, b"[", b"]"), "prune a.json.gz W"),
    "2 GB of empty lines": (bomb("a.jsonl.gz", b"\n" * TEN, 200, GOOD * 5), "prune a.jsonl.gz W"),
    "2 GB of empty cells": (bomb("a.csv.gz", b"\n" * TEN, 200, b"text\na\nb\nc\nd\n"), "prune a.csv.gz W"),
    "2 GB of brackets": (bomb("a.json.zst", b"[" * TEN, 200), "prune a.json.zst W"),
    "cut gz": (put(gzip.compress(GOOD * 99)[:-9], "a.jsonl.gz"), "prune a.jsonl.gz W"),
    "gz with another sum": (put(gzip.compress(GOOD * 99)[:-8] + b"\0" * 8, "a.jsonl.gz"), "prune a.jsonl.gz W"),
    "gz with a tail": (put(gzip.compress(GOOD * 9) + b"tail", "a.jsonl.gz"), "prune a.jsonl.gz W"),
    "gz in gz": (put(gzip.compress(gzip.compress(GOOD * 9)), "a.jsonl.gz"), "prune a.jsonl.gz W"),
    "empty gz": (put(b"", "a.jsonl.gz"), "prune a.jsonl.gz W"),
    "noise in gz": (put(gzip.compress(GOOD)[:10] + noise("gz"), "a.jsonl.gz"), "prune a.jsonl.gz W"),
    "zst named gz": (put(b"\x28\xb5\x2f\xfd" + noise("zst"), "a.jsonl.gz"), "prune a.jsonl.gz W"),
    "noise in zst": (put(b"\x28\xb5\x2f\xfd" + noise("zst"), "a.jsonl.zst"), "prune a.jsonl.zst W"),
    "a window of 2 GB": (put(b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(64), "a.jsonl.zst"), "prune a.jsonl.zst W"),
}  # fmt: skip


def also(*makers):
    def make(place: Path) -> None:
        for one in makers:
            one(place)

    return make


def pipe(name: str):
    return lambda place: os.mkfifo(place / name)


def link(name: str, to: str):
    return lambda place: (place / name).symlink_to(to)


def circle(place: Path) -> None:
    """Links by which a walk that follows them takes 9^40 steps."""
    root = place / "held"
    (root / "in").mkdir(parents=True)
    for number in range(9):
        (root / "in" / f"back{number}").symlink_to(root)
        (root / f"forth{number}").symlink_to(root / "in")


ENDS = ("a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.jsonl.gz", "a.parquet.zst")
PLACES: dict[str, Case] = {
    **{f"a pipe: {name}": (pipe(name), f"prune {name} W") for name in ENDS},
    **{f"a device: {name}": (link(name, "/dev/zero"), f"prune {name} W") for name in ENDS[:4]},
    "a link to itself": (link("a.jsonl", "a.jsonl"), P),
    "a link to nothing": (link("a.jsonl", "nowhere"), P),
    "links in a circle": (circle, "prune held W"),
    "links in a circle, sought in": (circle, "prune 'held/**/*.jsonl' W"),
    "a folder named as a file": (lambda place: (place / "a.jsonl").mkdir(), P),
    "a process": (link("a.jsonl", "/proc/self/mem"), P),
    "a pipe among the files": (also(put(GOOD * 5, "in/a.jsonl"), pipe("in/b.jsonl")), "prune in W"),
    "a pipe as vectors": (pipe("V.npy"), "prune good.jsonl --embeddings V.npy --scorer k_center --keep 3 -q -o out --overwrite"),
    "a device as vectors": (link("V.npy", "/dev/zero"), "prune good.jsonl --embeddings V.npy --scorer k_center --keep 3 -q -o out --overwrite"),
    "a pipe to decontaminate from": (pipe("t.jsonl"), "prune good.jsonl --decontaminate t.jsonl W"),
    "names that are no UTF-8": (lambda place: (place / os.fsdecode(b"a\xff.jsonl")).write_bytes(GOOD * 5), "prune '*.jsonl' W"),
    "names that a terminal acts on": (lambda place: (place / "a\x1b[2J\n.jsonl").write_bytes(b"{"), "prune 'a*.jsonl' W"),
}  # fmt: skip


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, held: bytes) -> bytes:
        return struct.pack(">I", len(held)) + kind + held + struct.pack(">I", zlib.crc32(kind + held))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", data or zlib.compress(bytes(width * 3 + 1)))
        + chunk(b"IEND", b"")
    )


def album(*named: object, image: bytes = png(1, 1), name: str = "a.png"):
    said = "".join(
        json.dumps({"file_name": one, "text": f"picture {i}"}) + "\n"
        for i, one in enumerate([*named, name] * 4)
    )
    return also(put(said, "album/metadata.jsonl"), put(image, f"album/{name}"))


A = "prune album W"
MEDIA: dict[str, Case] = {
    "a path above": (album("../good.jsonl"), A),
    "a path of the system": (album("/etc/passwd"), A),
    "an address": (album("http://127.0.0.1:9/x.png"), A),
    "a chained address": (album("simplecache::http://127.0.0.1:9/x.png"), A),
    "a number as a path": (album(7), A),
    "a path with NUL": (album("a\0.png"), A),
    "a path of 100 kB": (album("a" * 100_000), A),
    "a pipe": (also(album("p.png"), pipe("album/p.png")), A),
    "a link that leads out": (also(album("l.png"), link("album/l.png", "/etc/passwd")), A),
    "cut image": (album(image=png(9, 9)[:30]), A),
    "an image of 60,000 by 60,000": (album(image=png(60_000, 60_000)), A),
    "an image that is noise": (album(image=noise("png")), A),
    "shown": (album("../x\x1b[2J.png", image=noise("png")), "inspect album"),
    "sound that is none": (album(image=b"RIFF\xff\xff\xff\xffWAVE" + noise("wav"), name="a.wav"), A),
    "metadata without text": (also(put(png(1, 1), "album/a.png"), put("", "album/metadata.jsonl")), A),
    "metadata that is noise": (also(put(png(1, 1), "album/a.png"), put(noise("meta"), "album/metadata.jsonl")), A),
    "metadata with NUL": (also(put(png(1, 1), "album/a.png"), put("file_name,text\na.png\0,\0\n", "album/metadata.csv")), A),
}  # fmt: skip

CASES = {"JSON": JSON, "CSV": CSV, "packed": PACKED, "pipes, devices and links": PLACES, "media": MEDIA}
