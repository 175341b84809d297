"""Forty flipped bits in every kind of file of a result that is read again: refused, or nothing changes.

Never read again by us, and hence not here: the card, `report.html`, the tables and pictures of `compare`, of its
stability and of `damage`. The files of saved scores stand in `tests/outputs/test_checksums.py`.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

import datapruner as dp

ROWS, FLIPS = 200, 40
pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    rows = (
        f'{{"instruction": "ask {i}", "output": "say {i % 7}", "kind": "{i % 3}"}}\n' for i in range(ROWS)
    )
    (folder / "rows.jsonl").write_text("".join(rows))
    np.save(folder / "vectors.npy", rng.normal(size=(ROWS, 8)).astype(np.float32))
    for name, format in (("out", "parquet"), ("arrow", "arrow"), ("lines", "jsonl")):
        selection = dp.prune(
            folder / "rows.jsonl",
            scorer="prototypes",
            embeddings=str(folder / "vectors.npy"),
            keep=0.3,
            progress=False,
            cache=folder / "cache",
        )
        selection.save(folder / name, format=format)
    damage = dp.damage(
        folder / "rows.jsonl", divergences=rng.uniform(0, 0.6, size=ROWS), by="kind", progress=False
    )
    damage.save(folder / "damage")
    return folder


def told(folder):
    """What a selection says of every row."""
    selection = dp.load_selection(folder)
    return (
        selection.kept.tolist(),
        [selection.reason(row) for row in range(ROWS)],
        [str(selection.explain(row)) for row in range(0, ROWS, 10)],
    )


def rows_of(folder):
    return dp.load_samples(str(folder)).dataset.to_list()


def saved_rows(folder):
    return rows_of(folder / "data")


def run_again(folder):
    return dp.run(folder / "recipe.yaml", progress=False).kept.tolist()


def recovered(folder):
    return dp.prune(
        folder.parent / "rows.jsonl",
        scorer="paser",
        embeddings=str(folder.parent / "vectors.npy"),
        divergences=str(folder / "rows.parquet"),
        keep=20,
        progress=False,
    ).kept.tolist()


@pytest.mark.parametrize(
    ("folder", "name", "read"),
    # A list of digests is longer than what one reader asks of it: fewer flips matter.
    [
        ("out", "selection.parquet", told),
        ("out", "recipe.yaml", run_again),
        ("out", "data/*.parquet", rows_of),
        ("out", "checksums.txt", told),
        ("arrow", "**/*.arrow", rows_of),
        ("arrow", "**/state.json", saved_rows),
        ("arrow", "**/dataset_info.json", saved_rows),
        ("arrow", "**/dataset_dict.json", saved_rows),
        ("lines", "data/*.jsonl", rows_of),
        ("damage", "rows.parquet", recovered),
    ],
)
def test_a_flipped_bit_is_refused_or_changes_nothing(results, folder, name, read):
    file = next(path for path in (results / folder).glob(name) if path.is_file())
    kept, raw, rng = read(results / folder), file.read_bytes(), random.Random(0)
    other, refused = [], 0
    for _ in range(FLIPS):
        place, bit = rng.randrange(len(raw)), rng.randrange(8)
        changed = bytearray(raw)
        changed[place] ^= 1 << bit
        file.write_bytes(bytes(changed))
        try:
            if read(results / folder) != kept:
                other.append((place, bit))
        except dp.DataPrunerError:
            refused += 1
    file.write_bytes(raw)
    assert other == []
    # Where hardly anything is refused nothing was looked at.
    assert refused >= (8 if name == "checksums.txt" else 30)
    assert read(results / folder) == kept
