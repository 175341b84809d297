"""Hostile recipes, and saved scores, selections and caches: whoever made them wrote the digests anew."""

# ruff: noqa: E501 - a case is a line
from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.hostile_sources import Case, also, link, noise, pipe, put
from tests.faults.hostile_tables import Runs
from tests.guards.test_bounded_yaml import HOSTILE

R = "run r.yaml -q -o out --overwrite"
HEAD = "source: good.jsonl\nkeep: 3\nscorers:\n- name: random\n"


def recipe(text: str) -> Case:
    return put(text, "r.yaml"), R


def combined(levels: int) -> str:
    return (
        "source: good.jsonl\nkeep: 3\nscorers: "
        + "[{name: combined, parameters: {by: mean_rank, scorers: " * levels
        + "[]"
        + "}}]" * levels
    )


RECIPES: dict[str, Case] = {
    **{kind: (put(said, "r.yaml"), R) for kind, (said, _) in HOSTILE.items()},
    "rows without end": recipe(HEAD + "always_keep: {rows: 0-30000000000}\n"),
    "rows backwards": recipe(HEAD + "always_keep: {rows: 9-1}\n"),
    "everything": (put("source: /**/*\nkeep: 3\nscorers: [{name: random}]\n", "r.yaml"), "DATAPRUNER_MAX_SEARCH_SECONDS=4 " + R),
    "a device": recipe("source: /dev/zero\nkeep: 3\nscorers: [{name: random}]\n"),
    "a pipe": (also(pipe("p.jsonl"), put("source: p.jsonl\nkeep: 3\nscorers: [{name: random}]\n", "r.yaml")), R),
    "combined 40 levels": recipe(combined(40)),
    "combined of nothing": recipe(combined(1)),
    "a seed of 400 digits": recipe(HEAD + "seed: " + "9" * 400 + "\n"),
    "a seed below zero": recipe(HEAD + "seed: -9223372036854775809\n"),
    "keep 1e400": recipe(HEAD.replace("keep: 3", "keep: 1e400")),
    "keep 10^30": recipe(HEAD.replace("keep: 3", "keep: 1" + "0" * 30)),
    "quotas of nothing": recipe(HEAD + "per_group: topic\nquotas: {a: .nan, b: -.inf}\n"),
    "half a character": recipe('source: "\\ud800"\nkeep: 3\nscorers: [{name: random}]\n'),
    "NUL in a path": recipe('source: "a\\0.jsonl"\nkeep: 3\nscorers: [{name: random}]\n'),
    "escapes in a name": recipe(HEAD + '"\\e[2J": 1\n'),
    "escapes in a value": recipe(HEAD.replace("random", '"\\e[2J\\a"')),
    "a function": recipe(HEAD.replace("random", "paser") + "model: m\npruned_model: os:system\nembeddings: E.npy\n"),
    "trusts itself": recipe(HEAD + "trust_code: true\n"),
    "another format": recipe(HEAD + "recipe_format: 999999999999999999999\n"),
    "a limit of a million neighbours": recipe(HEAD + "n_neighbors: 1000000000000\n"),
    "scorers that are a text": recipe("source: good.jsonl\nkeep: 3\nscorers: random\n"),
    "parameters that are numbers": recipe("source: good.jsonl\nkeep: 3\nscorers: [{name: random, parameters: {1: 2}}]\n"),
    "100,000 names": recipe("".join(f"a{i}: 1\n" for i in range(100_000))),
    "2 MB of anchors": recipe("a: [" + ",".join(f"&a{i} x" for i in range(100_000)) + "]\n"),
    "columns of lists": recipe(HEAD + "columns: {question: [a, {b: c}]}\n"),
    "a folder": (lambda place: (place / "r.yaml").mkdir(), R),
    "a device as recipe": (link("r.yaml", "/dev/zero"), R),
    "noise": (put(noise("yaml"), "r.yaml"), R),
}  # fmt: skip


def result(name: str, *makers):
    """Copy a result without its digests, and change it."""

    def copy(place: Path) -> None:
        shutil.copytree(Path(os.environ["GOOD"]) / name, place / "s")
        (place / "s" / "checksums.txt").unlink()
        shutil.copy(place / "good.jsonl", place / "s" / "good.jsonl")
        text = (place / "s" / "recipe.yaml").read_text()
        (place / "s" / "recipe.yaml").write_text(text.replace("../good.jsonl", "./good.jsonl"))

    return also(copy, *makers)


def meta(change):
    """Change what the scores say of themselves."""

    def make(place: Path) -> None:
        file = place / "s" / "scores.parquet"
        table = pq.read_table(file)
        key = next(iter(key for key in table.schema.metadata if b"datapruner" in key))
        changed = change(json.loads(table.schema.metadata[key]))
        said = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        pq.write_table(table.replace_schema_metadata({key: said}), file)

    return make


def column(name: str, values: object, table: str = "scores"):
    def make(place: Path) -> None:
        file = place / "s" / f"{table}.parquet"
        held = pq.read_table(file)
        where = held.schema.get_field_index(name)
        assert where >= 0, held.schema
        pq.write_table(held.set_column(where, name, pa.array(values)), file)

    return make


def state(**arrays: object):
    def make(place: Path) -> None:
        with zipfile.ZipFile(place / "s" / "state" / "prototypes.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for key, held in arrays.items():
                with archive.open(key.replace("__", "/"), "w") as handle:
                    if isinstance(held, bytes):
                        for _ in range(200):
                            handle.write(held)
                    else:
                        np.lib.format.write_array(handle, np.asarray(held), allow_pickle=True)

    return make


def turned(name: str, seed: int):
    def make(place: Path) -> None:
        file, rng = place / "s" / name, random.Random(f"{name} {seed}")
        raw = bytearray(file.read_bytes())
        for _ in range(4):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        file.write_bytes(raw)

    return make


S = "select s --scorer prototypes --keep 3 -q -o out --overwrite"
X = "explain s --row 3"
META = {
    "nothing": lambda said: {}, "a list": lambda said: [], "no JSON": lambda said: b"{", "no text": lambda said: b"\xff",
    "nesting": lambda said: b"[" * 100_000, "rows in words": lambda said: {**said, "rows": "many"},
    "rows beyond": lambda said: {**said, "rows": 10**30}, "rows without end": lambda said: {**said, "rows": float("inf")},
    "scorers that are a text": lambda said: {**said, "scorers": "x"}, "scorers of nothing": lambda said: {**said, "scorers": {"random": None}},
    "a path as scorer": lambda said: {**said, "scorers": {"../../../etc/passwd": said["scorers"]["random"]}},
    "columns that are not there": lambda said: {**said, "scorers": {"prototypes": {"values": "x", "groups": None, "columns": {}}}},
    "vetoes of numbers": lambda said: {**said, "vetoes": [1, 2]},
    "a format without end": lambda said: {**said, "vetoes": [["exact", "{other:>10000000000}"]]},
    "the insides of Python": lambda said: {**said, "vetoes": [["exact", "{other.__class__.__init__}"]]},
    "tokens of nothing": lambda said: {**said, "tokens": {"a": "b"}}, "another content": lambda said: {**said, "content": "x"},
}  # fmt: skip
SAVED: dict[str, Case] = {
    **{f"scores say {name}": (result("scores", meta(change)), S) for name, change in META.items()},
    **{f"bits turned in {name}, {seed}": (result(kind, turned(name, seed)), S if kind == "scores" else X)
       for kind, name in (("scores", "scores.parquet"), ("scores", "state/prototypes.npz"), ("scores", "recipe.yaml"),
                          ("out", "selection.parquet"), ("out", "recipe.yaml")) for seed in range(2)},
    "a state that is a pickle": (result("scores", state(**{"state.x.npy": np.array([Runs()], dtype=object)})), S),
    "a state of 2 GB": (result("scores", state(**{"state.x.npy": bytes(10_000_000)})), S),
    "a state that leads out": (result("scores", state(**{"..__..__x.npy": [1]})), S),
    "a state of other numbers": (result("scores", state(**{"group_weights.npy": [np.nan, -1, np.inf]})), S),
    "a state that is noise": (result("scores", put(noise("state"), "s/state/prototypes.npz")), S),
    "a state that is a pickle file": (result("scores", put(pickle.dumps(Runs()), "s/state/prototypes.npz")), S),
    "no scores": (result("scores", put(b"", "s/scores.parquet")), S),
    "scores, explained, that are noise": (result("scores", put(noise("scores"), "s/scores.parquet")), X),
    "kept in words": (result("out", column("kept", ["yes"] * 12, "selection")), X),
    "reasons that are numbers": (result("out", column("reason", [7] * 12, "selection")), X),
    "reasons that a terminal acts on": (result("out", column("reason", ["\x1b[2J\x07\u202e"] * 12, "selection")), X),
    "scores in words": (result("out", column("score", ["x"] * 12, "selection")), X),
    "scores that are none": (result("out", column("score", [None] * 12, "selection")), X),
    "a selection that is a folder": (result("out", lambda place: ((place / "s/selection.parquet").unlink(), (place / "s/selection.parquet").mkdir())), X),
    "a selection that is a pipe": (result("out", lambda place: ((place / "s/selection.parquet").unlink(), os.mkfifo(place / "s/selection.parquet"))), X),
    "digests that are a pipe": (result("out", pipe("s/checksums.txt")), X),
    "digests without end": (result("out", link("s/checksums.txt", "/dev/zero")), X),
    "a comparison": (lambda place: shutil.copytree(Path(os.environ["GOOD"]) / "compared", place / "s"), X),
    "a selection, selected from": (result("out"), S),
    "scores of a row beyond": (result("scores"), "explain s --row 99999999999999999999"),
    "a row below zero": (result("out"), "explain s --row -5"),
    "a text that a terminal acts on": (result("out"), "explain s --match '\x1b[2J\u202e'"),
    "a column that a terminal acts on": (result("out"), "explain s --where '\x1b[2J=\x07'"),
}  # fmt: skip
K = "prune good.jsonl --scorer k_center --embedder GOOD/st --keep 3 -q -o out --overwrite"


def cached(change):
    """Copy a cache that serves, and change each of its files."""

    def make(place: Path) -> None:
        shutil.copytree(Path(os.environ["GOOD"]) / "cache", place / "cache")
        files = sorted(file for file in (place / "cache").rglob("*") if file.is_file())
        assert files
        for file in files:
            change(file)

    return make


def replaced(make):
    return lambda file: (file.unlink(), make(file))


CACHES: dict[str, Case] = {
    "as it is": (cached(lambda file: None), K),
    "noise": (cached(lambda file: file.write_bytes(noise(file.name))), K),
    "nothing": (cached(lambda file: file.write_bytes(b"")), K),
    "cut": (cached(lambda file: os.truncate(file, file.stat().st_size // 2)), K),
    "zeros": (cached(lambda file: file.write_bytes(bytes(file.stat().st_size))), K),
    "pipes": (cached(replaced(os.mkfifo)), K),
    "folders": (cached(replaced(lambda file: (file / "in").mkdir(parents=True))), K),
    "loops": (cached(replaced(lambda file: file.symlink_to(file))), K),
    "devices": (cached(replaced(lambda file: file.symlink_to("/dev/zero"))), K),
    "foreign files": (cached(lambda file: file.with_name(f"\x1b[2J{file.name}").write_bytes(noise("x"))), K),
    "names that are no UTF-8": (
        cached(lambda file: file.with_name(os.fsdecode(b"\xff")).write_bytes(b"x")),
        K,
    ),
    "a file": (put("mine", "cache"), K),
    "a pipe": (pipe("cache"), K),
    "a loop": (link("cache", "cache"), K),
    "a link to nothing": (link("cache", "nowhere/at/all"), K),
    "a device": (link("cache", "/dev/null"), K),
}

CASES = {"recipes": RECIPES, "saved": SAVED, "caches": CACHES}
