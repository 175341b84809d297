"""Bad input: one sentence on standard error, exit code 2, nothing written; legal oddities work."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

import datapruner as dp
from datapruner.errors import DataPrunerError
from datapruner.files.temporary import private_folder
from datapruner.samples import tables
from datapruner.scorers import Random
from datapruner.verbs import explain
from tests.conftest import Ran, run_command, save_tiny_llama, without_progress

N = 12
RANDOM = "--scorer random --keep 3"
GIVEN = "--scorer concept_complexity --n-clusters 3 --keep 3 --embeddings"
PASER = "--scorer paser --embeddings E.npy --n-clusters 3 --keep 3"
TWINS = f"{PASER} --model dense --pruned-model"
MAPPED = "--scorer feature_mapping --keep 3 --embeddings E.npy"
LINUX = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")


@pytest.fixture
def run(monkeypatch, capfd):
    """Run the command line in this process; what libraries write past `sys.stderr` is seen too."""
    # `main` sets these; monkeypatch takes them back afterwards.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("TOKENIZERS_PARALLELISM", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.delenv(name)

    def call(*arguments: object) -> Ran:
        return run_command(monkeypatch, capfd, *arguments)

    return call


def rows(n: int = N) -> list[dict]:
    return [
        {
            "question": f"What is {i} and {3 * i % 7}?",
            "answer": f"It is {i + 3 * i % 7}.",
            "topic": "ab"[i % 2],
            "good": i % 3 == 0,
            "bad": i % 3 == 0,
            "level": i,
            "nothing": None,
        }
        for i in range(n)
    ]


def write_lines(path: Path, made: list) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    return path


def vectors(n: int = N, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)


def spoiled(row: int, value: float) -> np.ndarray:
    out = vectors()
    out[row] = value
    return out


def save_other_vocabulary(dense: Path, folder: Path) -> None:
    """The same model with one token more."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(dense), AutoTokenizer.from_pretrained(dense)
    tokenizer.add_tokens(["<more>"])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Explosive:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("unpickled"),))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    """A tokenizer of words, so that tokens are counted without a model."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    made = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """Good and bad files; no test may change a byte of it."""
    place = tmp_path_factory.mktemp("work")
    write_lines(place / "good.jsonl", rows())
    lines = (place / "good.jsonl").read_text().splitlines(keepends=True)
    (place / "empty.jsonl").touch()
    (place / "blank.jsonl").write_text("\n\n  \n")
    (place / "cut.jsonl").write_text("".join(lines[:4]) + lines[4][: len(lines[4]) // 2])
    (place / "numbers.jsonl").write_text("1\n2\n")
    (place / "numbers.json").write_text("[1, 2, 3]")
    (place / "cut.json").write_text(json.dumps(rows())[:-40])
    (place / "latin.jsonl").write_bytes('{"text": "caf\xe9"}\n'.encode("latin-1"))
    (place / "latin.csv").write_bytes("text\ncaf\xe9\n".encode("latin-1"))
    (place / "half.jsonl").write_text('{"text": "fine"}\n{"text": "\\ud800"}\n')
    (place / "ragged.csv").write_text("question,answer\na,b\na,b,c\n")
    write_lines(place / "null.jsonl", [{"question": f"q {i}", "answer": None} for i in range(N)])
    write_lines(place / "mixed.jsonl", [{"text": "a"}, {"text": 1}])
    write_lines(place / "same.jsonl", [rows()[0]] * N)
    write_lines(place / "columns.jsonl", [{"first": "a", "second": "b"}] * 3)
    (place / "noise.parquet").write_bytes(b"PAR1 this is no parquet file PAR1")
    pq.write_table(pa.Table.from_pylist(rows()), place / "good.parquet")
    whole = (place / "good.parquet").read_bytes()
    (place / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (place / "cut.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode())[:-30])
    (place / "rows.pkl").write_bytes(pickle.dumps(rows()))
    (place / "nothing").mkdir()
    (place / "notes.txt").write_text("mine")

    np.save(place / "E.npy", vectors())
    np.save(place / "short.npy", vectors(N - 1))
    with (place / "archive.npy").open("wb") as handle:
        np.savez(handle, a=vectors())
    (place / "zip.npy").write_bytes(b"PK\x03\x04 and no archive")
    (place / "absurd.npy").write_bytes(
        b"\x93NUMPY\x01\x00\x46\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (10, "
        + b"9" * 12
        + b"), }\n"
    )
    np.save(place / "wide.npy", np.ones((N, 5), dtype=np.float32))
    np.save(place / "nan.npy", spoiled(7, np.nan))
    np.save(place / "inf.npy", spoiled(5, np.inf))
    np.save(place / "zero.npy", spoiled(4, 0))
    np.save(place / "flat.npy", vectors()[:, 0])
    np.save(place / "cube.npy", vectors()[:, :, None])
    np.save(place / "words.npy", np.array([["a", "b"]] * N))
    np.save(place / "same.npy", np.ones((N, 4), dtype=np.float32))
    np.save(place / "pickled.npy", np.array([Explosive()] * N, dtype=object), allow_pickle=True)
    (place / "cut.npy").write_bytes((place / "E.npy").read_bytes()[:100])
    (place / "noise.npy").write_bytes(b"no array at all")
    ragged = [[1.0, 2.0]] * 6 + [[1.0]] + [[1.0, 2.0]] * (N - 7)
    pq.write_table(pa.table({"embedding": ragged}), place / "ragged.parquet")
    holes = [[1.0, 2.0]] * 8 + [None] + [[1.0, 2.0]] * (N - 9)
    pq.write_table(pa.table({"embedding": holes}), place / "holes.parquet")

    np.save(place / "jsd.npy", np.linspace(0, 0.6, N))
    np.save(place / "jsd-short.npy", np.linspace(0, 0.6, N - 1))
    np.save(place / "jsd-nan.npy", np.where(np.arange(N) == 7, np.nan, 0.1))
    np.save(place / "jsd-high.npy", np.where(np.arange(N) == 5, 0.7, 0.1))
    np.save(place / "jsd-negative.npy", np.where(np.arange(N) == 4, -0.01, 0.1))
    pq.write_table(pa.table({"divergence": [0.1] * N}), place / "jsd-unnamed.parquet")
    (place / "twin.pt").write_bytes(pickle.dumps(Explosive()))
    (place / "pruning.py").write_text("open('executed', 'w').close()\n\ndef make():\n    raise SystemExit\n")
    save_tiny_llama(place / "dense")
    save_tiny_llama(place / "shorter")
    config = json.loads((place / "shorter" / "config.json").read_text())
    (place / "shorter" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    save_other_vocabulary(place / "dense", place / "vocabulary")

    (place / "holding").mkdir()
    (place / "holding" / "thesis.txt").write_text("do not lose this")
    dp.prune(str(place / "good.jsonl"), scorer="random", keep=3).save(place / "earlier")
    dp.prune(str(place / "good.jsonl"), scorer="random", keep=3).save(place / "enriched")
    (place / "enriched" / "data" / "notes.txt").write_text("mine too")
    scores = dp.score(str(place / "good.jsonl"), scorers=["random"], count_tokens=False)
    for name in ("scores", "damaged", "headless", "stateless"):
        scores.save(place / name)
    table = place / "damaged" / "scores.parquet"
    table.write_bytes(table.read_bytes()[:200])
    pq.write_table(pa.table({"index": [1]}), place / "headless" / "scores.parquet")
    (place / "stateless" / "state" / "random.npz").write_bytes(b"PK nonsense")
    write_lines(place / "moved.jsonl", rows())
    dp.score(str(place / "moved.jsonl"), scorers=["random"]).save(place / "outdated")
    write_lines(place / "moved.jsonl", rows()[::-1])
    dp.score(rows(), scorers="random").save(place / "memory")
    dp.prune(str(place / "good.jsonl"), scorer="random", keep=3).save(place / "spoiled")
    (place / "spoiled" / "selection.parquet").write_bytes(b"PAR1")
    (place / "spoiled" / "checksums.txt").unlink()

    twins = "source: good.jsonl\nkeep: 3\nembeddings: E.npy\nscorers:\n- name: paser\nmodel: dense\n"
    recipes = {
        "good": "source: good.jsonl\nkeep: 3\nscorers:\n- name: random\n",
        "broken": "source: [good.jsonl\nkeep: 3\n",
        "list": "- source\n- keep\n",
        "unknown": "source: good.jsonl\nkeeep: 3\n",
        "wrong": "source: good.jsonl\nkeep: 3\nseed: soon\n",
        "sourceless": "keep: 3\n",
        "scorer": "source: good.jsonl\nkeep: 3\nscorers:\n- name: randon\n",
        "python": "source: !!python/object/apply:pathlib.Path.touch\n- !!python/object/apply:pathlib.Path [executed]\n",
        "itself": "source: earlier\nkeep: 3\nscorers:\n- name: random\n",
        "nan": "source: good.jsonl\nkeep: .nan\n",
        "function": f"{twins}pruned_model: pruning:make\n",
        "unpickle": f"{twins}pruned_model: ./twin.pt\n",
        "trusting": f"{twins}pruned_model: pruning:make\ntrust_code: true\n",
    }
    for name, text in recipes.items():
        (place / f"{name}.yaml").write_text(text)
    (place / "latin.yaml").write_bytes("source: caf\xe9.jsonl\n".encode("latin-1"))
    return place


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file's bytes and every folder, hidden ones included."""
    return {
        str(entry.relative_to(folder)): hashlib.sha256(entry.read_bytes()).hexdigest()
        if entry.is_file()
        else "folder"
        for entry in sorted(folder.rglob("*"))
    }


LONG = "n" * 300

# name: (command line, what the sentence must say). OUT is a folder that does not exist, TOK a tokenizer.
BAD = {
    # sources
    "missing file": (f"prune god.jsonl {RANDOM} -o OUT", ["no such file", "good.jsonl"]),
    "standard input": (
        f"prune - {RANDOM} -o OUT",
        ["'-' is no source", "standard input is not read", "rows.jsonl"],
    ),
    "standard input beside a file": (f"prune good.jsonl - {RANDOM} -o OUT", ["standard input is not read"]),
    "standard input as target": (
        "prune good.jsonl --decontaminate - -o OUT",
        ["the test set", "standard input is not read"],
    ),
    "standard output": (f"prune good.jsonl {RANDOM} -o -", ["'-' is no output", "name a folder"]),
    "standard output of a comparison": (
        "compare good.jsonl --scorer random --scorer length --keep 0.5 -o -",
        ["'-' is no output"],
    ),
    "missing folder": (f"prune ./no/where {RANDOM} -o OUT", ["no such file", "where"]),
    "glob without a match": (f"prune 'x*.jsonl' {RANDOM} -o OUT", ["nothing matches"]),
    "name too long": (f"prune {LONG} {RANDOM} -o OUT", ["nnnn"]),
    "empty name": (f"prune '' {RANDOM} -o OUT", ["''"]),
    "unreachable hub name": (f"prune nobody/nothing {RANDOM} -o OUT", ["nobody/nothing", "hub"]),
    "empty file": (f"prune empty.jsonl {RANDOM} -o OUT", ["no rows"]),
    "blank file": (f"prune blank.jsonl {RANDOM} -o OUT", ["no rows"]),
    "empty folder": (f"prune nothing {RANDOM} -o OUT", ["no data files"]),
    "line cut in half": (f"prune cut.jsonl {RANDOM} -o OUT", ["line 5", "JSON"]),
    "list cut short": (f"prune cut.json {RANDOM} -o OUT", ["cut short"]),
    "lines without objects": (f"prune numbers.jsonl {RANDOM} -o OUT", ["line 1", "object"]),
    "list without objects": (f"prune numbers.json {RANDOM} -o OUT", ["line 1", "object"]),
    "invalid UTF-8": (f"prune latin.jsonl {RANDOM} -o OUT", ["UTF-8", "line 1"]),
    "invalid UTF-8 in CSV": (f"prune latin.csv {RANDOM} -o OUT", ["UTF-8"]),
    "half a character": (f"prune half.jsonl {RANDOM} -o OUT", ["surrogate", "line 2"]),
    "ragged CSV": (f"prune ragged.csv {RANDOM} -o OUT", ["line 3", "cells"]),
    "mixed types": (f"prune mixed.jsonl {RANDOM} -o OUT", ["line 2", "'text'"]),
    "no parquet": (f"prune noise.parquet {RANDOM} -o OUT", ["noise.parquet", "Parquet"]),
    "cut parquet": (f"prune cut.parquet {RANDOM} -o OUT", ["cut.parquet", "Parquet"]),
    "cut gzip": (f"prune cut.jsonl.gz {RANDOM} -o OUT", ["cut.jsonl.gz"]),
    "pickle": (f"prune rows.pkl {RANDOM} -o OUT", ["rows.pkl", "pickles"]),
    "text file": (f"prune notes.txt {RANDOM} -o OUT", ["notes.txt"]),
    "all-null column": (f"prune null.jsonl {RANDOM} --dedup -o OUT", ["no row has an answer", "'answer'"]),
    "no layout": (f"prune columns.jsonl {RANDOM} -o OUT", ["first, second", "--columns"]),
    "unknown split": (f"prune good.jsonl {RANDOM} --split tran -o OUT", ["no split 'tran'", "'train'?"]),
    "unknown layout": (f"prune good.jsonl {RANDOM} --layout sharegtp -o OUT", ["'sharegpt'?"]),
    "layout without its columns": (f"prune good.jsonl {RANDOM} --layout messages -o OUT", ["messages"]),
    "mapping to a missing column": (
        f"prune good.jsonl {RANDOM} --columns question=question,answer=answr -o OUT",
        ["'answr'", "'answer'?"],
    ),
    "mapping of an unknown role": (f"prune good.jsonl {RANDOM} --columns q=question -o OUT", ["'q'", "role"]),
    "mapping without a column": (f"prune good.jsonl {RANDOM} --columns question -o OUT", ["ROLE=COLUMN"]),
    "inspect of nothing": ("inspect nowhere.jsonl", ["no such file"]),
    # embeddings
    "missing embeddings": (f"prune good.jsonl {GIVEN} no.npy -o OUT", ["no.npy"]),
    "embeddings with a long name": (f"prune good.jsonl {GIVEN} {LONG}.npy -o OUT", ["nnnn"]),
    "embeddings that are a folder": (f"prune good.jsonl {GIVEN} nothing -o OUT", ["nothing"]),
    "an archive as embeddings": (f"prune good.jsonl {GIVEN} archive.npy -o OUT", ["archive.npy", ".npz"]),
    "half an archive as embeddings": (f"prune good.jsonl {GIVEN} zip.npy -o OUT", ["zip.npy"]),
    "embeddings of an absurd shape": (f"prune good.jsonl {GIVEN} absurd.npy -o OUT", ["absurd.npy"]),
    "an archive as divergences": (f"prune good.jsonl {PASER} --divergences archive.npy -o OUT", [".npz"]),
    "half an archive as divergences": (f"prune good.jsonl {PASER} --divergences zip.npy -o OUT", ["zip.npy"]),
    "a setting of 5,000 digits": (
        f"prune good.jsonl --scorer prototypes --set n_clusters={'9' * 5000} --keep 3 -o OUT",
        ["more digits"],
    ),
    "a setting that is nested without end": (
        f"prune good.jsonl --scorer prototypes --set n_clusters={'[' * 100_000} --keep 3 -o OUT",
        ["nested deeper"],
    ),
    "other length": (f"prune good.jsonl {GIVEN} short.npy -o OUT", ["11 vectors", "12 rows"]),
    "ragged embeddings": (f"prune good.jsonl {GIVEN} ragged.parquet -o OUT", ["row 6", "length 1"]),
    "missing vector": (f"prune good.jsonl {GIVEN} holes.parquet -o OUT", ["row 8", "no vector"]),
    "NaN": (f"prune good.jsonl {GIVEN} nan.npy -o OUT", ["Row 7", "NaN"]),
    "infinity": (f"prune good.jsonl {GIVEN} inf.npy -o OUT", ["Row 5", "infinity"]),
    "zero vector": (f"prune good.jsonl {GIVEN} zero.npy -o OUT", ["Row 4", "zeros"]),
    "one dimension": (f"prune good.jsonl {GIVEN} flat.npy -o OUT", ["(12,)"]),
    "three dimensions": (f"prune good.jsonl {GIVEN} cube.npy -o OUT", ["(12, 4, 1)"]),
    "words as embeddings": (f"prune good.jsonl {GIVEN} words.npy -o OUT", ["not numbers"]),
    "pickled embeddings": (f"prune good.jsonl {GIVEN} pickled.npy -o OUT", ["pickled.npy"]),
    "cut embeddings": (f"prune good.jsonl {GIVEN} cut.npy -o OUT", ["cut.npy"]),
    "noise as embeddings": (f"prune good.jsonl {GIVEN} noise.npy -o OUT", ["noise.npy"]),
    "damaged embeddings": (f"prune good.jsonl {GIVEN} noise.parquet -o OUT", ["noise.parquet"]),
    "text as embeddings": (f"prune good.jsonl {GIVEN} notes.txt -o OUT", ["notes.txt"]),
    # budgets
    "keep 0": ("prune good.jsonl --scorer random --keep 0 -o OUT", ["keep is 0"]),
    "keep 0.0": ("prune good.jsonl --scorer random --keep 0.0 -o OUT", ["keep is 0.0"]),
    "keep negative": ("prune good.jsonl --scorer random --keep -3 -o OUT", ["keep is -3"]),
    "keep NaN": ("prune good.jsonl --scorer random --keep nan -o OUT", ["keep is nan"]),
    "keep infinity": ("prune good.jsonl --scorer random --keep inf -o OUT", ["keep is inf"]),
    "keep above n": ("prune good.jsonl --scorer random --keep 13 -o OUT", ["13", "12"]),
    "keep 1.5": ("prune good.jsonl --scorer random --keep 1.5 -o OUT", ["1.5", "fraction"]),
    "keep abc": ("prune good.jsonl --scorer random --keep abc -o OUT", ["--keep", "abc"]),
    "no budget": ("prune good.jsonl --scorer random -o OUT", ["how much to keep"]),
    "two budgets": ("prune good.jsonl --scorer random --keep 3 --keep-tokens 9 -o OUT", ["not both"]),
    "keep-tokens 0": ("prune good.jsonl --scorer random --keep-tokens 0 -o OUT", ["--keep-tokens", "0"]),
    "keep-tokens above all": (
        "prune good.jsonl --scorer random --keep-tokens 99999 --tokenizer TOK -o OUT",
        ["99999", "supervised tokens"],
    ),
    "keep-tokens below any row": (
        "prune good.jsonl --scorer random --keep-tokens 1 --tokenizer TOK -o OUT",
        ["no row fits"],
    ),
    "unknown tokenizer": ("prune good.jsonl --scorer length --keep 3 --tokenizer no/one -o OUT", ["no/one"]),
    "unknown group column": (f"prune good.jsonl {RANDOM} --per-group topics -o OUT", ["'topic'?"]),
    "quota without groups": (f"prune good.jsonl {RANDOM} --quota a=2 -o OUT", ["--per-group"]),
    "unknown quota group": (f"prune good.jsonl {RANDOM} --per-group topic --quota c=2 -o OUT", ["'c'"]),
    "quota above its group": (
        "prune good.jsonl --scorer random --keep 9 --per-group topic --quota a=8 -o OUT",
        ["'a'", "8", "6"],
    ),
    "quota above keep": (f"prune good.jsonl {RANDOM} --per-group topic --quota a=4 -o OUT", ["4", "3"]),
    "quota without amount": (f"prune good.jsonl {RANDOM} --per-group topic --quota a -o OUT", ["name=value"]),
    "quota of words": (f"prune good.jsonl {RANDOM} --per-group topic --quota a=few -o OUT", ["few"]),
    "always-keep that is not boolean": (f"prune good.jsonl {RANDOM} --always-keep level -o OUT", ["'level'"]),
    "always-keep that is not there": (f"prune good.jsonl {RANDOM} --always-keep god -o OUT", ["'good'?"]),
    "always-keep above keep": (f"prune good.jsonl {RANDOM} --always-keep good -o OUT", ["always-kept", "4"]),
    "always and never": (
        f"prune good.jsonl {RANDOM} --always-keep good --never-keep bad -o OUT",
        ["row 0", "always and never"],
    ),
    "dedup leaves too few": (
        "prune same.jsonl --scorer random --keep 3 --dedup -o OUT",
        ["only 1 of 12"],
    ),
    "decontaminate without its file": (
        f"prune good.jsonl {RANDOM} --decontaminate test.jsonl -o OUT",
        ["test.jsonl"],
    ),
    "decontaminate leaves too few": (
        f"prune good.jsonl {RANDOM} --decontaminate good.jsonl -o OUT",
        ["cleaning"],
    ),
    "near threshold": (
        f"prune good.jsonl {RANDOM} --dedup --near-threshold 7 -o OUT",
        ["7.0 is no value for --near-threshold"],
    ),
    # targets
    "mapping without a target": (f"prune good.jsonl {MAPPED} -o OUT", ["feature_mapping", "--target"]),
    "target that nobody reads": (
        f"prune good.jsonl {RANDOM} --target good.jsonl -o OUT",
        ["--target is given"],
    ),
    "missing target": (
        f"prune good.jsonl {MAPPED} --target god.jsonl -o OUT",
        ["the target", "no such file"],
    ),
    "empty target": (f"prune good.jsonl {MAPPED} --target empty.jsonl -o OUT", ["the target", "no rows"]),
    "target without vectors": (
        f"prune good.jsonl {MAPPED} --target good.jsonl -o OUT",
        ["the target", "--target-embeddings"],
    ),
    "target of another width": (
        f"prune good.jsonl {MAPPED} --target good.jsonl --target-embeddings wide.npy -o OUT",
        ["5 numbers", "4", "same model"],
    ),
    "target of another length": (
        f"prune good.jsonl {MAPPED} --target good.jsonl --target-embeddings short.npy -o OUT",
        ["the target", "11 vectors", "12 rows"],
    ),
    "NaN in the target": (
        f"prune good.jsonl {MAPPED} --target good.jsonl --target-embeddings nan.npy -o OUT",
        ["the target", "Row 7", "NaN"],
    ),
    "no layout of the target": (
        f"prune good.jsonl {MAPPED} --target columns.jsonl -o OUT",
        ["the target", "--target-columns"],
    ),
    "selector without a graph": (
        f"prune good.jsonl {RANDOM} --selector message_passing -o OUT",
        ["neighbours", "d2"],
    ),
    # pruned models
    "pruned model without the dense one": (
        f"prune good.jsonl {PASER} --pruned-model dense -o OUT",
        ["--model with the dense model"],
    ),
    "dense model without the pruned one": (
        f"prune good.jsonl {PASER} --model dense -o OUT",
        ["--pruned-model", "--divergences"],
    ),
    "pruned model that nobody reads": (
        f"prune good.jsonl {RANDOM} --model dense --pruned-model dense -o OUT",
        ["--pruned-model is given", "paser"],
    ),
    "divergences that nobody reads": (
        f"prune good.jsonl {RANDOM} --divergences jsd.npy -o OUT",
        ["--divergences is given", "paser"],
    ),
    "divergences beside the pruned model": (
        f"prune good.jsonl {TWINS} dense --divergences jsd.npy -o OUT",
        ["measured or given"],
    ),
    "divergences where losses are read": (
        f"prune good.jsonl {PASER} --set degradation=loss --model dense --divergences jsd.npy -o OUT",
        ["pruned_log_ppl", "--pruned-model"],
    ),
    "missing divergences": (f"prune good.jsonl {PASER} --divergences no.npy -o OUT", ["no.npy"]),
    "divergences of another length": (
        f"prune good.jsonl {PASER} --divergences jsd-short.npy -o OUT",
        ["(11,)", "12 rows"],
    ),
    "vectors as divergences": (f"prune good.jsonl {PASER} --divergences E.npy -o OUT", ["(12, 4)"]),
    "NaN among divergences": (
        f"prune good.jsonl {PASER} --divergences jsd-nan.npy -o OUT",
        ["row 7 has nan"],
    ),
    "divergence above ln 2": (
        f"prune good.jsonl {PASER} --divergences jsd-high.npy -o OUT",
        ["row 5 has 0.7", "ln 2"],
    ),
    "divergence below 0": (
        f"prune good.jsonl {PASER} --divergences jsd-negative.npy -o OUT",
        ["row 4 has -0.01"],
    ),
    "pickled divergences": (
        f"prune good.jsonl {PASER} --divergences pickled.npy -o OUT",
        ["no divergences", "pickled.npy"],
    ),
    "divergences without their column": (
        f"prune good.jsonl {PASER} --divergences jsd-unnamed.parquet -o OUT",
        ["column jsd"],
    ),
    "noise as divergences": (
        f"prune good.jsonl {PASER} --divergences noise.parquet -o OUT",
        ["noise.parquet"],
    ),
    "text as divergences": (f"prune good.jsonl {PASER} --divergences notes.txt -o OUT", ["notes.txt"]),
    "function without trust": (
        f"prune good.jsonl {TWINS} pruning:make -o OUT",
        ["would run code of the module pruning", "--trust-code"],
    ),
    "pickle without trust": (
        f"prune good.jsonl {TWINS} twin.pt -o OUT",
        ["twin.pt", "pickle", "--trust-code"],
    ),
    "damage of a pickle without trust": (
        "damage good.jsonl --embeddings E.npy --model dense --pruned-model twin.pt",
        ["pickle", "--trust-code"],
    ),
    "recipe with a function": ("run function.yaml -o OUT", ["module pruning", "--trust-code"]),
    "recipe with a pickle": ("run unpickle.yaml -o OUT", ["pickle", "--trust-code"]),
    "recipe that trusts itself": ("run trusting.yaml -o OUT", ["trust_code"]),
    "missing pruned model": (f"prune good.jsonl {TWINS} ./no/where -o OUT", ["no/where"]),
    "pruned model that is a folder of other files": (f"prune good.jsonl {TWINS} holding -o OUT", ["holding"]),
    "twins of other vocabularies": (
        f"prune good.jsonl {TWINS} vocabulary -o OUT",
        ["predicts", "tokens and the pruned one", "compared"],
    ),
    "pruned model that reads fewer tokens": (
        f"prune good.jsonl {TWINS} shorter -o OUT",
        ["reads 64 tokens", "--max-length 64"],
    ),
    "unknown way of running twins": (
        f"prune good.jsonl {TWINS} dense --twins apart -o OUT",
        ["twins", "apart"],
    ),
    # scorers and selectors
    "unknown scorer": ("prune good.jsonl --scorer randon --keep 3 -o OUT", ["'random'?"]),
    "scorer twice": ("score good.jsonl --scorer random --scorer random -o OUT", ["random", "twice"]),
    "two scorers in prune": (f"prune good.jsonl {RANDOM} --scorer length -o OUT", ["one --scorer"]),
    "clusters for random": (f"prune good.jsonl {RANDOM} --n-clusters 3 -o OUT", ["--n-clusters"]),
    "no clusters": (f"prune good.jsonl {GIVEN} E.npy --n-clusters 0 -o OUT", ["k = 0"]),
    "negative clusters": (f"prune good.jsonl {GIVEN} E.npy --n-clusters -1 -o OUT", ["k = -1"]),
    "more clusters than rows": (f"prune good.jsonl {GIVEN} E.npy --n-clusters 13 -o OUT", ["k = 13", "12"]),
    "more clusters than distinct rows": (
        f"prune good.jsonl {GIVEN} same.npy -o OUT",
        ["k = 3", "1 distinct"],
    ),
    "malformed --set": (f"prune good.jsonl {GIVEN} E.npy --set temperature -o OUT", ["name=value"]),
    "unknown parameter": (f"prune good.jsonl {GIVEN} E.npy --set temperatur=1 -o OUT", ["'temperature'?"]),
    "parameter of the wrong type": (f"prune good.jsonl {GIVEN} E.npy --set temperature=hot -o OUT", ["hot"]),
    "parameter out of range": (f"prune good.jsonl {GIVEN} E.npy --set temperature=0 -o OUT", ["temperature"]),
    "parameter NaN": (f"prune good.jsonl {GIVEN} E.npy --set temperature=NaN -o OUT", ["temperature"]),
    "iterations 0": (f"prune good.jsonl {GIVEN} E.npy --set iterations=0 -o OUT", ["iterations"]),
    "parameter of another scorer": (
        f"prune good.jsonl {RANDOM} --set length.shortest=true -o OUT",
        ["length"],
    ),
    "unknown selector": (f"prune good.jsonl {RANDOM} --selector topkk -o OUT", ["'topk'?"]),
    "unknown selector parameter": (
        f"prune good.jsonl {RANDOM} --selector ccs --selector-set betta=0.1 -o OUT",
        ["'beta'?"],
    ),
    "selector parameter of the wrong type": (
        f"prune good.jsonl {RANDOM} --selector ccs --selector-set beta=big -o OUT",
        ["beta", "big"],
    ),
    "selector parameter out of range": (
        f"prune good.jsonl {RANDOM} --selector ccs --selector-set beta=1 -o OUT",
        ["beta"],
    ),
    "topk balance out of range": (
        f"prune good.jsonl {GIVEN} E.npy --selector topk --selector-set balance=2 -o OUT",
        ["balance"],
    ),
    "group_quota floor out of range": (
        f"prune good.jsonl {GIVEN} E.npy --selector group_quota --selector-set floor_share=-1 -o OUT",
        ["floor_share"],
    ),
    "selector parameter without selector": (
        f"prune good.jsonl {RANDOM} --selector-set a=1 -o OUT",
        ["--selector"],
    ),
    "selector without groups": (f"prune good.jsonl {RANDOM} --selector group_quota -o OUT", ["groups"]),
    "unknown format": (f"prune good.jsonl {RANDOM} --format csv -o OUT", ["csv", "parquet"]),
    "negative seed": (f"prune good.jsonl {RANDOM} --seed -1 -o OUT", ["seed"]),
    "unknown pooling": (f"prune good.jsonl {RANDOM} --pooling max -o OUT", ["pooling"]),
    # outputs
    "output folder with other files": (f"prune good.jsonl {RANDOM} -o holding", ["other files"]),
    "output with other files, --overwrite": (
        f"prune good.jsonl {RANDOM} -o holding --overwrite",
        ["other files"],
    ),
    "output with an earlier result": (f"prune good.jsonl {RANDOM} -o earlier", ["--overwrite"]),
    "output is a file": (f"prune good.jsonl {RANDOM} -o notes.txt", ["notes.txt", "file"]),
    "output below a file": (f"prune good.jsonl {RANDOM} -o notes.txt/out", ["notes.txt"]),
    "output name too long": (f"prune good.jsonl {RANDOM} -o {LONG}", ["nnnn"]),
    "scores over other files": ("score good.jsonl --scorer random -o holding", ["other files"]),
    "result with other files in it": (
        f"prune good.jsonl {RANDOM} -o enriched --overwrite",
        ["other files", "data/notes.txt"],
    ),
    "home of nobody": (f"prune good.jsonl {RANDOM} -o notes.txt/~nobody-here", ["notes.txt"]),
    "source in the home of nobody": (f"prune ~nobody-here/a.jsonl {RANDOM} -o OUT", ["nobody-here"]),
    "embeddings in the home of nobody": (
        f"prune good.jsonl {GIVEN} ~nobody-here/E.npy -o OUT",
        ["nobody-here"],
    ),
    "output over its source": (f"prune earlier {RANDOM} -o earlier --overwrite", ["replace earlier"]),
    "output over a part of its source": (
        f"prune earlier/data/train-00000-of-00001.parquet {RANDOM} -o earlier --overwrite",
        ["would replace"],
    ),
    "output over its source's glob": (
        f"prune 'earlier/data/*.parquet' {RANDOM} -o earlier --overwrite",
        ["would replace"],
    ),
    "output over its scores": ("select scores --keep 3 -o scores --overwrite", ["replace scores"]),
    "output over a recipe's source": ("run itself.yaml -o earlier --overwrite", ["would replace"]),
    # saved scores, recipes, results
    "select on other files": ("select holding --keep 3 -o OUT", ["no folder of scores"]),
    "select on nothing": ("select nowhere --keep 3 -o OUT", ["no folder of scores"]),
    "select on a long name": (f"select {LONG} --keep 3 -o OUT", ["nnnn"]),
    "select on damaged scores": ("select damaged --keep 3 -o OUT", ["damaged"]),
    "select on a foreign table": (
        "select headless --keep 3 -o OUT",
        ["scores.parquet", "not as it was written"],
    ),
    "select on damaged state": ("select stateless --keep 3 -o OUT", ["npz", "not as it was written"]),
    "select on a changed source": ("select outdated --keep 3 -o OUT", ["changed"]),
    "select without the data": ("select memory --keep 3 -o OUT", ["memory"]),
    "select with another scorer": ("select scores --scorer length --keep 3 -o OUT", ["'length'", "random"]),
    "select without tokens": ("select scores --keep-tokens 9 -o OUT", ["tokens"]),
    "select without a budget": ("select scores -o OUT", ["how much to keep"]),
    "select above n": ("select scores --keep 99 -o OUT", ["99", "12"]),
    "select as csv": ("select scores --keep 3 --format csv -o OUT", ["csv", "parquet"]),
    "missing recipe": ("run nowhere.yaml -o OUT", ["no recipe"]),
    "recipe with a long name": (f"run {LONG} -o OUT", ["nnnn"]),
    "recipe that is a folder": ("run holding -o OUT", ["holding"]),
    "damaged recipe": ("run broken.yaml -o OUT", ["not valid YAML", "line"]),
    "recipe that is a list": ("run list.yaml -o OUT", ["names and values"]),
    "recipe in Latin-1": ("run latin.yaml -o OUT", ["latin.yaml"]),
    "recipe with an unknown field": ("run unknown.yaml -o OUT", ["'keeep'", "'keep'?"]),
    "recipe with a wrong type": ("run wrong.yaml -o OUT", ["seed", "soon"]),
    "recipe without a source": ("run sourceless.yaml -o OUT", ["memory"]),
    "recipe with an unknown scorer": ("run scorer.yaml -o OUT", ["'random'?"]),
    "recipe with python in it": ("run python.yaml -o OUT", ["python.yaml"]),
    "recipe with keep NaN": ("run nan.yaml -o OUT", ["keep", "nan"]),
    "explain of other files": ("explain holding --row 1", ["no result"]),
    "explain of a long name": (f"explain {LONG} --row 1", ["nnnn"]),
    "explain of a damaged result": ("explain spoiled --row 1", ["damaged"]),
    "explain beyond the end": ("explain earlier --row 12", ["no row 12", "12 rows"]),
    "explain before the start": ("explain earlier --row -1", ["no row -1"]),
    # usage
    "unknown command": ("prun good.jsonl -o OUT", ["prun"]),
    "unknown option": (f"prune good.jsonl {RANDOM} --kep 3 -o OUT", ["--kep", "datapruner prune --help"]),
    "missing output": (f"prune good.jsonl {RANDOM}", ["--out"]),
    "missing source": (f"prune {RANDOM} -o OUT", ["source"]),
    "two sources": (f"prune good.jsonl good.jsonl {RANDOM} -o OUT", ["good.jsonl"]),
    "seed that is no number": (f"prune good.jsonl {RANDOM} --seed soon -o OUT", ["--seed", "integer"]),
    "row that is no number": ("explain earlier --row first", ["--row", "integer"]),
    "option without a value": ("prune good.jsonl -o OUT --keep", ["--keep"]),
    "escape in a name": (f"prune $'\\e[31m.jsonl' {RANDOM} -o OUT", ["\\x1b[31m.jsonl"]),
    "escape in a scorer": ("prune good.jsonl --scorer $'\\e[31m' --keep 3 -o OUT", ["\\x1b[31m"]),
    "escape in an option": (f"prune good.jsonl {RANDOM} $'--\\e[31m\\nx' -o OUT", ["\\x1b[31m"]),
    "escape in --set": (f"prune good.jsonl {RANDOM} --set $'\\e[31m\\nx' -o OUT", ["\\x1b[31m"]),
    "escape in an output": (f"prune good.jsonl {RANDOM} -o $'notes.txt/\\e[31m'", ["notes.txt"]),
}


def words(line: str, out: Path, tokenizer: Path) -> list[str]:
    """Split a command line as a shell does (with $'...'), and put OUT and TOK in."""
    line = re.sub(r"\$'(.*?)'", lambda m: shlex.quote(m[1].replace("\\e", "\x1b").replace("\\n", "\n")), line)
    return [{"OUT": str(out), "TOK": str(tokenizer)}.get(word, word) for word in shlex.split(line)]


def check_refused(ran: Ran, said: list[str] = []) -> None:  # noqa: B006
    """One sentence on standard error, exit code 2, nothing on standard output."""
    assert ran.code == 2, ran
    assert ran.out == ""
    assert "Traceback" not in ran.err
    assert ran.err.startswith("datapruner: ")
    assert ran.err.endswith("\n")
    assert len(ran.err.splitlines()) == 1, ran.err
    assert ran.err.rstrip("\n").isprintable()
    for word in said:
        assert word in ran.err + ran.err.lower(), ran.err  # older typers write an argument's name in capitals


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name, workplace, tokenizer, tmp_path, monkeypatch, run):
    line, said = BAD[name]
    monkeypatch.chdir(workplace)
    before = fingerprint(workplace)
    ran = run(*words(line, tmp_path / "out", tokenizer))
    check_refused(ran, said)
    assert fingerprint(workplace) == before
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_executed(workplace):
    assert not (workplace / "unpickled").exists()
    assert not (workplace / "executed").exists()


@pytest.mark.parametrize(
    "line", ["prune good.jsonl --scorer random --keep 0 -o OUT", "prun", "explain nowhere --row 1"]
)
def test_bad_input_in_a_process_of_its_own(line, workplace, tmp_path):
    command = [sys.executable, "-m", "datapruner", *words(line, tmp_path / "out", tmp_path)]
    ran = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=False, timeout=120)
    check_refused(Ran(ran.returncode, ran.stdout, without_progress(ran.stderr)))
    assert list(tmp_path.iterdir()) == []


def test_without_arguments_the_help_is_shown(run):
    ran = run()
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^  prune +Choose the rows", ran.out, re.MULTILINE)


def test_help_goes_to_standard_output(run):
    ran = run("prune", "--help")
    assert ran.code == 0
    assert ran.err == ""
    assert "--keep" in ran.out


def test_interrupt_is_one_sentence(workplace, tmp_path, monkeypatch, run):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("datapruner.running.selected", stop)
    ran = run("prune", workplace / "good.jsonl", "--scorer", "random", "--keep", 3, "-o", tmp_path / "out")
    assert ran.code == 130
    assert ran.err.startswith("datapruner: interrupted")
    assert len(ran.err.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_terminated_run_ends_as_an_interrupted_one(workplace, tmp_path, monkeypatch, run):
    held = []

    def stop(*_, **__):
        held.append(private_folder())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr("datapruner.running.selected", stop)
    before = signal.getsignal(signal.SIGTERM)
    ran = run("prune", workplace / "good.jsonl", "--scorer", "random", "--keep", 3, "-o", tmp_path / "out")
    assert ran.code == 143
    assert ran.err.startswith("datapruner: terminated")
    assert "goes on from there" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert signal.getsignal(signal.SIGTERM) is before


ENDED = """
import os, signal, sys
from datapruner import cli, running
from datapruner.files import temporary
def stop(*_, **__):
    (temporary.private_folder() / "spilled").write_text("x")
    try:
        os.kill(os.getpid(), {first})
        print("went on")
        raise SystemExit(7)
    finally:
        for number in {again}:
            os.kill(os.getpid(), number)
running.selected = stop
# Whoever runs the tests may ignore them: nohup, a shell's background.
usual = signal.default_int_handler if {first} == signal.SIGINT else signal.SIG_DFL
signal.signal({first}, signal.SIG_IGN if {ignored} else usual)
cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("name", "ignored", "code"),
    [("SIGINT", False, 130), ("SIGTERM", False, 143), ("SIGHUP", False, 129), ("SIGHUP", True, 7)],
)
def test_a_terminated_process_leaves_no_temporary_folder(workplace, tmp_path, name, ignored, code):
    """In a process of its own, since what it leaves goes when it ends; nohup ignores SIGHUP."""
    ran = ended(workplace, tmp_path, [name], ignored=ignored)
    assert (ran.returncode, ran.stdout) == (code, "went on\n" * ignored)
    told = {"SIGINT": "datapruner: interrupted;"}.get(name, "datapruner: terminated;")
    assert ran.stderr.startswith(told) != ignored
    assert len(ran.stderr.splitlines()) == (not ignored)
    assert list((tmp_path / "tmp").glob("datapruner*")) == []


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_second_ctrl_c_ends_at_once_without_a_traceback(workplace, tmp_path, name):
    """It comes while what the first one left is cleared up; that then goes with the next run."""
    ran = ended(workplace, tmp_path, [name, name])
    assert ran.returncode == -getattr(signal, name)
    assert (ran.stdout, ran.stderr) == ("", "")
    again = ended(workplace, tmp_path, [name])
    assert again.returncode == 128 + getattr(signal, name)
    assert list((tmp_path / "tmp").glob("datapruner*")) == []
    assert not (tmp_path / "out").exists()


def ended(workplace: Path, tmp_path: Path, names: list[str], ignored: bool = False):
    """Run a command that sends itself one signal in the middle, and another while it ends."""
    (tmp_path / "tmp").mkdir(exist_ok=True)
    first, *again = (int(getattr(signal, name)) for name in names)
    program = ENDED.format(first=first, again=again, ignored=ignored)
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, prune_line(workplace, tmp_path / "out", "-q"))],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


CLOSED = {
    "a pipe that nobody reads": (["scorers"], "pipe", None, 141),
    "help into one": (["prune", "--help"], "pipe", None, 141),
    "no standard output": (["scorers"], None, "kept", 0),
    "no standard error": (["inspect", "nothing.jsonl"], "kept", None, 2),
    "neither": (["scorers"], None, None, 0),
    "a full disk": (["scorers"], "/dev/full", "kept", 2),
    "a full disk for messages": (["inspect", "nothing.jsonl"], "kept", "/dev/full", 2),
}


@LINUX
@pytest.mark.parametrize("kind", CLOSED)
def test_output_that_goes_nowhere(workplace, tmp_path, kind):
    line, out, err, code = CLOSED[kind]
    ran = into(workplace, tmp_path, line, out, err)
    said = (tmp_path / "err").read_text()
    assert ran == code
    assert "Traceback" not in said
    assert len(said.splitlines()) == (out == "/dev/full")
    assert "No space left" in said or out != "/dev/full"


@pytest.mark.faults
@LINUX
@pytest.mark.parametrize(("out", "err"), [(None, None), ("kept", "/dev/full"), ("/dev/full", "kept")])
def test_a_result_is_whole_whatever_becomes_of_the_output(workplace, tmp_path, out, err):
    """A file that took the number of a closed output would have it in the middle."""
    code = into(workplace, tmp_path, prune_line(workplace, tmp_path / "out"), out, err)
    assert code == (2 if out == "/dev/full" else 0)
    assert len(dp.load_selection(tmp_path / "out").indices) == 3


def into(workplace: Path, tmp_path: Path, line: list, out: str | None, err: str | None) -> int:
    """Run a command whose outputs are kept, closed before it starts (None), a device or a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    (tmp_path / "err").touch()
    program = [sys.executable, "-c", "from datapruner.cli import main; main()", *map(str, line)]
    shell = f"exec {shlex.join(program)}"
    for number, place in ((1, out), (2, err)):
        if place not in ("kept", "pipe"):
            shell += f" {number}>{place or '&-'}"
    with (tmp_path / "err").open("wb") as kept:
        ran = subprocess.run(
            ["sh", "-c", shell],
            stdout=writer if out == "pipe" else subprocess.DEVNULL,
            stderr=kept,
            cwd=workplace,
            check=False,
            timeout=120,
        )
    os.close(writer)
    return ran.returncode


# What cannot be written


def prune_line(workplace: Path, out: object, *more: object) -> list[object]:
    return ["prune", workplace / "good.jsonl", "--scorer", "random", "--keep", 3, "-o", out, *more]


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["out", "new/parent/out"])
@pytest.mark.parametrize(
    "when", ["os.fsync", "datapruner.outputs.dataset.write_table", "pathlib.Path.rename"]
)
def test_disk_full(when, where, workplace, tmp_path, monkeypatch, run):
    monkeypatch.setattr(when, no_space)
    ran = run(*prune_line(workplace, tmp_path / where))
    monkeypatch.undo()
    check_refused(ran, ["No space left"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["parquet", "jsonl", "arrow"])
def test_file_size_limit(format, tmp_path, run):
    """The kernel's own refusal, in the middle of a file."""
    import resource

    source = write_lines(tmp_path / "long.jsonl", [{"text": os.urandom(4000).hex()} for _ in range(200)])
    line = [
        "prune",
        source,
        "--scorer",
        "random",
        "--keep",
        "150",
        "--format",
        format,
        "-o",
        tmp_path / "out",
    ]
    least, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, most))
    try:
        ran = run(*line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))
    check_refused(ran, ["cannot be written"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["long.jsonl"]


def test_a_failed_overwrite_leaves_the_earlier_result(workplace, tmp_path, monkeypatch, run):
    out = tmp_path / "out"
    assert run(*prune_line(workplace, out)).code == 0
    before = fingerprint(tmp_path)
    monkeypatch.setattr("datapruner.outputs.swap._exchange", no_space)
    ran = run(*prune_line(workplace, out, "--overwrite", "--seed", 1))
    monkeypatch.undo()
    check_refused(ran, ["No space left"])
    assert fingerprint(tmp_path) == before
    assert run(*prune_line(workplace, out, "--overwrite", "--seed", 1)).code == 0
    assert fingerprint(tmp_path) != before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_no_permission(workplace, tmp_path, monkeypatch, run):
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode, **more: Path(path) != tmp_path and access(path, mode, **more)
    )
    check_refused(run(*prune_line(workplace, tmp_path / "out")), ["no permission", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


@LINUX
@pytest.mark.parametrize("out", ["/proc/out", "/proc/new/out", "/dev/null", "/dev/null/out"])
def test_a_place_where_nobody_can_write(out, workplace, run):
    check_refused(run(*prune_line(workplace, out)), [out])


@LINUX
def test_a_cache_that_cannot_be_written(workplace, tmp_path, monkeypatch):
    class Encoder:
        identity = "two numbers"

        def encode(self, texts):
            return [[1.0, len(text)] for text in texts]

    monkeypatch.setenv("DATAPRUNER_CACHE", "/proc/cache")
    with pytest.raises(DataPrunerError, match=r"cache /proc/cache.*DATAPRUNER_CACHE"):
        dp.prune(
            str(workplace / "good.jsonl"), scorer="prototypes", embedder=Encoder(), keep=3, progress=False
        )


@pytest.mark.parametrize("name", ["big.jsonl", "big.parquet.gz"])
def test_a_temporary_folder_that_is_full(name, workplace, tmp_path, monkeypatch, run):
    monkeypatch.setattr(tables, "IN_MEMORY_BYTES", 10)
    monkeypatch.setattr("datapruner.files.temporary.new_folder", no_space)
    monkeypatch.setattr("datapruner.files.temporary._PRIVATE", {})
    source = tmp_path / name
    if name == "big.jsonl":
        write_lines(source, rows())
    else:
        source.write_bytes(gzip.compress((workplace / "good.parquet").read_bytes()))
    ran = run("prune", source, "--scorer", "random", "--keep", 3, "-o", tmp_path / "out")
    check_refused(ran, ["No space left", "TMPDIR"])
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


# The Python API says the same


@pytest.mark.parametrize(
    "arguments",
    [
        {"keep": True},
        {"keep": "0.3"},
        {"keep": [3]},
        {"keep": None},
        {"keep": float("nan")},
        {"keep": 3, "keep_tokens": 5},
        {"keep_tokens": "5"},
        {"keep_tokens": 2.5},
        {"keep_tokens": True},
        {"source": None},
        {"source": 5},
        {"source": {"text": ["a"]}},
        {"source": []},
        {"source": [1, 2]},
        {"source": [{}]},
        {"source": [{1: "a"}]},
        {"source": "a\0b"},
        {"source": Path("a\0b.jsonl")},
        {"embeddings": vectors()[0]},
        {"embeddings": vectors()[:, :, None]},
        {"embeddings": vectors()[:5]},
        {"embeddings": [[1.0]] * 11 + [[1.0, 2.0]]},
        {"embeddings": [["a"]] * N},
        {"embeddings": np.zeros((N, 0))},
        {"embeddings": "a\0b.npy"},
        {"embedder": 5},
        {"scorer": 5},
        {"scorer": Random},
        {"scorer": ""},
        {"selector": 5},
        {"selector": "top"},
        {"seed": "1"},
        {"seed": 1.5},
        {"seed": True},
        {"dedup": 5},
        {"dedup": "nearly"},
        {"dedup": ["nearly"]},
        {"per_group": 5},
        {"per_group": "topics"},
        {"per_group": "topic", "quotas": ["a"]},
        {"per_group": "topic", "quotas": {"a": "2"}},
        {"per_group": "topic", "quotas": {"a": None}},
        {"always_keep": [0, 99]},
        {"always_keep": [-1]},
        {"always_keep": ["a"]},
        {"always_keep": np.zeros(5, bool)},
        {"never_keep": np.ones(N, bool)},
        {"colums": {"text": "question"}},
        {"columns": {"question": 5}},
        {"columns": "question"},
        {"split": 5},
        {"layout": 5},
    ],
    ids=lambda arguments: re.sub(r"\s+", " ", ascii(arguments))[:50],
)
def test_wrong_types_from_python(arguments):
    given = {"source": rows(), "scorer": "prototypes", "embeddings": vectors(), "keep": 3} | arguments
    if "keep_tokens" in arguments and "keep" not in arguments:
        del given["keep"]
    if "embedder" in arguments:
        del given["embeddings"]
    with pytest.raises(DataPrunerError) as caught:
        dp.prune(given.pop("source"), progress=False, **given)
    assert "\n" not in str(caught.value)


def test_rows_beyond_the_end_from_python(tmp_path):
    selection = dp.prune(rows(), scorer="random", keep=3)
    for call in (
        lambda: selection.explain(N),
        lambda: selection.reason(-1),
        lambda: selection.rebudget(N + 1),
        lambda: selection.save(tmp_path / "out", format="csv"),
        lambda: explain(tmp_path, 0),
    ):
        with pytest.raises(DataPrunerError):
            call()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [np.int64(3), np.float64(0.25), np.float32(0.25)])
def test_numbers_of_numpy_are_numbers(keep, tmp_path):
    dp.prune(rows(), scorer="random", keep=keep).save(tmp_path / "out")
    assert len(load_dataset(str(tmp_path / "out"), split="train")) == 3


# Legal oddities


def load(out: Path, cache: Path, split: str = "train"):
    return load_dataset(str(out), split=split, cache_dir=str(cache))


@pytest.mark.parametrize("scorer", ["random", "length", "concept_complexity", "prototypes"])
def test_one_row(scorer, tokenizer, tmp_path, run):
    source = write_lines(tmp_path / "one.jsonl", [{"text": "all there is", "n": 1}])
    np.save(tmp_path / "E.npy", vectors(1))
    options = ["--embeddings", tmp_path / "E.npy", "--tokenizer", tokenizer]
    ran = run("prune", source, "--scorer", scorer, *options, "--keep", 1, "-o", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    assert load(tmp_path / "out", tmp_path).to_list() == [{"text": "all there is", "n": 1}]


PLANES = [
    "".join(chr(plane << 16 | low) for low in (0x20, 0xFF, 0x1234, 0xABCD, 0xFDD0, 0xFFFE, 0xFFFF))
    for plane in range(17)
]
ODD = [
    *PLANES,
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\u202eright to left\u2066",
    "\0 \x01 \x1b[31m \x7f \x85 \u2028 \u2029 \r\n \ufeff",
    "e\u0301" * 50,
    "",
    "---\n# | ` <script>alert(1)</script> {{ x }} {% y %}",
]


@pytest.mark.parametrize("format", ["parquet", "jsonl", "arrow"])
def test_every_plane_of_unicode(format, tmp_path, run):
    made = [{"text": text, "id": number} for number, text in enumerate(ODD)]
    source = write_lines(tmp_path / "odd.jsonl", made)
    options = ["--scorer", "random", "--keep", "1.0", "--format", format, "--on-empty", "keep"]
    ran = run("prune", source, *options, "-o", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    found = (
        load_from_disk(str(tmp_path / "out" / "data"))["train"]
        if format == "arrow"
        else load(tmp_path / "out", tmp_path / "cache")
    )
    assert found.to_list() == made


@pytest.mark.slow
def test_a_row_of_ten_megabytes(tmp_path, run):
    made = [{"text": "short"}, {"text": "long \U0001f600 " * 1_250_000}, {"text": "last"}]
    assert len(made[1]["text"].encode()) > 10_000_000
    source = write_lines(tmp_path / "big.jsonl", made)
    ran = run("prune", source, "--scorer", "random", "--keep", 3, "--dedup", "-o", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    assert load(tmp_path / "out", tmp_path / "cache").to_list() == made
    assert (tmp_path / "out" / "README.md").stat().st_size < 10_000


OURS = [
    "index",
    "kept",
    "reason",
    "score",
    "cluster",
    "row",
    "veto",
    "group",
    "centroid_distance",
    "num_tokens",
]
STRANGE = ["new\nline", "\x1b[31mred", "pipe|", "back`tick", "", " ", "é\u202e", "a.b", "question=answer"]


def test_columns_named_like_ours_or_worse(tmp_path, run):
    names = OURS + STRANGE
    made = [{"text": f"row {i}"} | {name: f"{name} {i}" for name in names} for i in range(N)]
    source = write_lines(tmp_path / "a.jsonl", made)
    np.save(tmp_path / "E.npy", vectors())
    for scorer in ("concept_complexity", "random"):
        options = ["--embeddings", tmp_path / "E.npy", "--scorer", scorer, "--keep", 5]
        ran = run("prune", source, *options, "-o", tmp_path / scorer)
        assert (ran.code, ran.err) == (0, "")
        table = pq.read_table(tmp_path / scorer / "selection.parquet")
        kept = table.column("index").to_numpy()[table.column("kept").to_numpy()]
        assert load(tmp_path / scorer, tmp_path / "cache").to_list() == [made[row] for row in kept]
        assert table.num_rows == N
        ran = run("explain", tmp_path / scorer, "--row", 3)
        assert (ran.code, ran.err) == (0, "")
    scores = tmp_path / "scores"
    options = ["--embeddings", tmp_path / "E.npy", "--scorer", "concept_complexity", "--scorer", "prototypes"]
    assert run("score", source, *options, "--no-count-tokens", "-o", scores).code == 0
    assert run("select", scores, "--scorer", "prototypes", "--keep", 5, "-o", tmp_path / "chosen").code == 0
    assert len(load(tmp_path / "chosen", tmp_path / "cache")) == 5


@pytest.mark.parametrize("column", STRANGE[:4])
def test_strange_columns_leave_card_and_terminal_whole(column, tmp_path, run):
    made = [{"text": f"row {i}", column: f"\x1b[3{i % 2}m|`\n#"} for i in range(N)]
    source = write_lines(tmp_path / "a.jsonl", made)
    options = ["--scorer", "random", "--keep", 4, "--per-group", column]
    ran = run("prune", source, *options, "-o", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    ran_explain = run("explain", tmp_path / "out", "--row", 0)
    ran_inspect = run("inspect", source)
    card = (tmp_path / "out" / "README.md").read_text()
    for text in (ran.out, ran_explain.out, ran_inspect.out, card):
        assert all(character.isprintable() or character == "\n" for character in text)
    assert "\nline" not in card
    assert all(line.count("|") in (0, 3, 5) for line in card.splitlines())
    assert all(line.count("`") % 2 == 0 for line in card.splitlines() if line != "```")
    assert len(load(tmp_path / "out", tmp_path / "cache")) == 4


@pytest.mark.parametrize("name", ["über.tägig", "a.b", "1", "Test2"])
def test_oddly_named_splits(name, tmp_path):
    data = DatasetDict({name: Dataset.from_list(rows()), "rest": Dataset.from_list(rows(4))})
    dp.prune(data, split=name, scorer="random", keep=5).save(tmp_path / "out")
    assert len(load(tmp_path / "out", tmp_path / "cache", name)) == 5
    assert load(tmp_path / "out", tmp_path / "cache", "rest").to_list() == rows(4)


@pytest.mark.parametrize("name", ["my split", "../../up", "a-b", "a|b", ""])
def test_splits_that_no_dataset_may_have(name, tmp_path):
    """`load_dataset` takes letters, digits, dots and underscores only; others are refused."""
    data = DatasetDict({name: Dataset.from_list(rows())})
    selection = dp.prune(data, split=name, scorer="random", keep=5)
    with pytest.raises(DataPrunerError, match="split"):
        selection.save(tmp_path / "down" / "there" / "out")
    assert list(tmp_path.iterdir()) == []


def test_rows_that_are_all_the_same(tmp_path, run):
    made = [{"text": "same"}] * N
    source = write_lines(tmp_path / "same.jsonl", made)
    np.save(tmp_path / "E.npy", np.ones((N, 4), np.float32))
    for scorer in ("random", "concept_complexity", "prototypes"):
        options = ["--scorer", scorer, "--embeddings", tmp_path / "E.npy", "--keep", 5]
        ran = run("prune", source, *options, "-o", tmp_path / scorer)
        assert (ran.code, ran.err) == (0, "")
        assert load(tmp_path / scorer, tmp_path / "cache").to_list() == made[:5]


@pytest.mark.parametrize("keep", [str(N), "1.0", "1e0"])
def test_everything_may_be_kept(keep, workplace, tmp_path, run):
    (tmp_path / "out").mkdir()  # a folder that exists and is empty is fine
    ran = run("prune", workplace / "good.jsonl", "--scorer", "random", "--keep", keep, "-o", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    assert load(tmp_path / "out", tmp_path / "cache").to_list() == rows()


@pytest.mark.parametrize(
    "name", ["new/parents/out", "a b", "ünï\U0001f600" * 12, "\x1b[31m", "-dash", "'\"$x`", "a\nb", "[ab]*"]
)
def test_odd_output_names(name, workplace, tmp_path, run):
    out = tmp_path / name
    ran = run(*prune_line(workplace, out))
    assert (ran.code, ran.err) == (0, "")
    assert all(character.isprintable() or character == "\n" for character in ran.out)
    assert pq.read_table(out / "data" / "train-00000-of-00001.parquet").num_rows == 3
    if not set(name) & set("[*"):  # which `load_dataset` takes for a glob
        assert len(load(out, tmp_path / "cache")) == 3
    assert run("explain", out, "--row", 0).code == 0
    again = tmp_path / "again"
    assert run("run", out / "recipe.yaml", "-o", again).code == 0
    assert (again / "selection.parquet").read_bytes() == (out / "selection.parquet").read_bytes()


@pytest.mark.parametrize("format", ["parquet", "jsonl", "arrow"])
def test_libraries_are_silent_and_left_as_they_were(format, workplace, tmp_path, run):
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    ran = run(*prune_line(workplace, tmp_path / "out", "--format", format, "--quiet"))
    assert ran == Ran(0, "", "")
    assert (not datasets.are_progress_bars_disabled()) == shown
