"""What cleaning and choosing hold of a row stays small: bytes a row, at two sizes, whatever the machine."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from datapruner.cleaning.crowd import Crowd
from datapruner.cleaning.minhash import shared_buckets
from datapruner.cleaning.near_search import NearSearch
from datapruner.cleaning.shingles import Sets
from datapruner.cleaning.vetoes import drops
from datapruner.files.spill import Spill
from datapruner.reasons import Reason
from datapruner.results.columns import encoded
from datapruner.results.sentences import Sentences

REASON = Reason("copy", "copy of row {other} ({measure:.2f})")
BANDS, SHINGLES = 32, 5


def peak(made: Callable[[], Any]) -> int:
    """Give the most bytes that were held at a time while something was made."""
    tracemalloc.start()
    try:
        made()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def a_row(made: Callable[[int], Callable[[], Any]], small: int = 4_000, large: int = 12_000) -> float:
    """Give the bytes that each further row adds to the peak."""
    made(2)()  # what is imported is held once
    return (peak(made(large)) - peak(made(small))) / (large - small)


def searched(rows: int) -> Callable[[], Any]:
    """Pairs of equal rows, which share all bands: each row is in as many buckets as there can be."""
    hashes = Spill(np.uint64)
    hashes.append(np.repeat(np.arange(rows // 2 * SHINGLES).reshape(-1, SHINGLES), 2, axis=0).reshape(-1))
    sets = Sets(hashes, np.arange(rows + 1) * SHINGLES)
    hashes[:1]  # one array from here on
    nothing, marks = np.zeros(rows, np.bool_), np.zeros(rows, np.int64)

    def bands() -> Iterator[np.ndarray]:
        for band in range(BANDS):
            yield (np.arange(rows) // 2 + band).astype(np.uint64)

    def search() -> None:
        buckets = shared_buckets(bands(), ~nothing)
        large = np.zeros(buckets.sizes.size, np.bool_)
        found = NearSearch(sets, None, 0.7, buckets, large, nothing, None, nothing, marks, marks).visit(
            np.arange(rows)
        )
        assert found.rows.tolist() == list(range(1, rows, 2))
        assert found.others.tolist() == list(range(0, rows, 2))

    return search


def test_buckets_of_near_duplicates_are_numbers():
    # Three numbers of four bytes for each band of a row, those of buckets (16 bytes a pair each), and some of a row.
    assert a_row(searched, 1_000, 3_000) < 30 * BANDS


def test_sentences_of_dropped_rows_are_made_when_asked_for():
    def told(rows: int) -> Callable[[], Any]:
        vetoes = drops(REASON, np.arange(rows), np.arange(rows) + 1, np.full(rows, 0.5))

        def tell() -> None:
            said = Sentences([vetoes]).also("kept")
            assert (said[0], said[rows - 1], said[-1]) == (
                "dropped: copy of row 1 (0.50)",
                f"dropped: copy of row {rows} (0.50)",
                "kept",
            )

        return tell

    assert a_row(told) < 1


def test_a_column_of_sentences_is_made_in_blocks(monkeypatch):
    monkeypatch.setattr("datapruner.results.columns.TEXTS", 500)

    def told(rows: int) -> Callable[[], Any]:
        vetoes = drops(REASON, np.arange(rows), np.arange(rows) + 1, np.full(rows, 0.5))
        codes = np.arange(rows)
        return lambda: encoded(codes, Sentences([vetoes]))

    assert a_row(told) < 60  # numbers; a sentence is 80 bytes of Python alone


@pytest.mark.parametrize("block", [1, 3, 100])
def test_sentences_are_those_of_the_vetoes(monkeypatch, block):
    monkeypatch.setattr("datapruner.results.columns.TEXTS", block)
    first = drops(REASON, [1, 3], [0, 0], [0.5, 0.5])  # the same sentence twice
    second = drops(REASON, [], [], [])
    third = drops(REASON, [4], [2], [1.0])
    said = Sentences([first, second, third]).also("kept", "over")
    wanted = [f"dropped: {text}" for vetoes in (first, second, third) for text in vetoes.reasons()]
    wanted += ["kept", "over"]
    assert list(said) == wanted == [said[place] for place in range(len(said))] == said[:]
    assert (said.index("kept"), len(said)) == (3, 5)
    assert said == wanted == Sentences([first, second, third]).also("kept", "over")
    assert said != wanted[:-1]
    assert said != [*wanted[:-1], "under"]
    assert repr(said).startswith(f"<5 reasons: {wanted[0]!r}")
    with pytest.raises(IndexError):
        said[5]
    codes = np.array([4, 0, 3, 1, 2, -1])
    column = encoded(codes, said)
    assert column.to_pylist() == [None if code < 0 else wanted[code] for code in codes.tolist()]
    assert column.dictionary.to_pylist() == list(dict.fromkeys(wanted))


def crowded(rows: int) -> Callable[[], Any]:
    """Rows of one template of many words, each with one of its own that another row has too."""
    template, words = 200, 8
    own = template + np.arange(rows)[:, None] // 2 * words + np.arange(words)
    held = np.concatenate([np.broadcast_to(np.arange(template), (rows, template)), own], axis=1)
    # Spread over all hashes, as hashes are.
    spread = np.sort(held.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15), axis=1)
    hashes = Spill(np.uint64, 1000)
    hashes.append(spread.reshape(-1))
    starts = np.arange(rows + 1) * (template + words)
    every, kept = np.arange(rows), np.ones(rows, np.bool_)

    def build() -> None:
        crowd = Crowd.build(hashes, starts, every, 0.99)
        assert crowd.candidates(0, kept).tolist() == [0, 1]

    return build


def test_crowds_are_held_by_what_few_rows_share(monkeypatch):
    monkeypatch.setattr("datapruner.cleaning.crowd.BLOCK", 20_000)
    monkeypatch.setattr("datapruner.cleaning.crowd.IN_MEMORY_BYTES", 1000)
    # And not each shingle of the template: fifty bytes each, 10 kB a row.
    assert a_row(crowded, 500, 2_000) < 500
