"""Hostile command lines: numbers without end, names that are no text, outputs that are no folders."""

# ruff: noqa: E501 - a case is a line
from __future__ import annotations

import os

from tests.faults.hostile_sources import Case, link, pipe, put

NINES = "9" * 5000


def nothing(place: object) -> None: ...


def given(*words: str) -> Case:
    return nothing, " ".join(("prune good.jsonl --scorer random --keep 3 -q -o out --overwrite", *words))


def clustered(*words: str) -> Case:
    return nothing, " ".join(
        ("prune good.jsonl --scorer prototypes --embeddings E.npy --keep 3 -q -o out --overwrite", *words)
    )


BAD = os.fsdecode(b"o-\xff")
ARGUMENTS: dict[str, Case] = {
    "a setting of 5,000 digits": clustered(f"--set n_clusters={NINES}"),
    "a setting of many levels": clustered(f"--set n_clusters={'[' * 50_000}"),
    "a setting of infinity": clustered("--set temperature=1e999"),
    "a setting that a terminal acts on": clustered("--set '\x1b[2J=\x07'"),
    "10^12 clusters": clustered("--n-clusters 1000000000000"),
    "clusters of 5,000 digits": clustered(f"--n-clusters {NINES}"),
    "keep 5,000 digits": given(f"--keep {NINES}"), "keep 1e-400": given("--keep 1e-400"), "keep 0x10": given("--keep 0x10"),
    "keep full-width digits": given("--keep \uff13"), "keep half a character": given(f"--keep {BAD}"),
    "a seed of 400 digits": given(f"--seed {'9' * 400}"), "a seed of 5,000 digits": given(f"--seed {NINES}"),
    "a quota of infinity": given("--per-group topic --quota a=inf"),
    "a group that a terminal acts on": given("--per-group '\x1b[2J\u202e'"),
    "words without end": given("--dedup --near-ngram 1000000000000"), "a threshold of NaN": given("--dedup --near-threshold nan"),
    "10^9 dimensions": given("--manifold-dimensions 1000000000"), "10^18 tokens": given("--max-length 1000000000000000000"),
    "a selector that a terminal acts on": given("--selector '\x1b[2J'"),
    "an option that a terminal acts on": given("'--\x1b[2J'"), "an option of 1 MB": given("--" + "x" * 100_000),
    "columns that a terminal acts on": given("--columns 'question=\x1b[2J'"), "columns of nothing": given("--columns ,=,=,"),
    "a split that a terminal acts on": given("--split '\x1b[2J'"), "a layout that a terminal acts on": given("--layout '\x1b[2J'"),
    "a limit of 5,000 digits": (nothing, f"DATAPRUNER_MAX_ROW_BYTES={NINES} prune good.jsonl W"),
    "a limit below zero": (nothing, "DATAPRUNER_MAX_ROW_BYTES=-1 prune good.jsonl W"),
    "a cache that is no UTF-8": (nothing, f"DATAPRUNER_CACHE={BAD} prune good.jsonl W"),
    "a source that is no UTF-8": (nothing, f"prune {BAD} W"), "a source of NUL's picture": (nothing, "prune '\u2400' W"),
    "a source of 100 kB": (nothing, f"prune {'n/' * 50_000} W"), "a source of marks": (nothing, f"prune '{'[' * 5000}*' W"),
    "a source of stars": (nothing, f"prune '{'*' * 2000}a' W"),
    "a source of folders": (nothing, f"prune '{'**/' * 200}a' W"),
    "an address as source": (nothing, "prune http://127.0.0.1:9/a.jsonl W"),
    "10,000 budgets": (nothing, f"compare good.jsonl --scorer random --scorer length --keep {','.join(['0.5'] * 10_000)} -q -o made"),
    "budgets of nothing": (nothing, "compare good.jsonl --scorer random --scorer length --keep nan,inf,, -q -o made"),
    "the output: no UTF-8": (nothing, f"prune good.jsonl --scorer random --keep 3 -q -o {BAD}"),
    "the output: a pipe": (pipe("p"), "prune good.jsonl --scorer random --keep 3 -q -o p --overwrite"),
    "the output: a loop": (link("l", "l"), "prune good.jsonl --scorer random --keep 3 -q -o l --overwrite"),
    "the output: a device": (nothing, "prune good.jsonl --scorer random --keep 3 -q -o /dev/null --overwrite"),
    "the output: below a file": (nothing, "prune good.jsonl --scorer random --keep 3 -q -o good.jsonl/a/b"),
    "the output: a process": (nothing, "prune good.jsonl --scorer random --keep 3 -q -o /proc/self/x"),
    "the output: a name of 300": (nothing, f"prune good.jsonl --scorer random --keep 3 -q -o {'n' * 300}"),
    "the output: the source's folder": (nothing, "prune good.jsonl --scorer random --keep 3 -q -o . --overwrite"),
    "the output: what it reads": (nothing, "prune out W"),
    "the output: a link to a result with a note": (
        lambda place: (put("mine", "out2/note.txt")(place), link("l", "out2")(place)),
        "prune good.jsonl --scorer random --keep 3 -q -o l --overwrite",
    ),
    "the output: what a terminal acts on": (nothing, "prune good.jsonl --scorer random --keep 3 -o 'made\x1b[2J\x07'"),
}  # fmt: skip

CASES = {"arguments and outputs": ARGUMENTS}
