"""What cleaning and choosing hold of a row stays small: bytes a row, at two sizes, whatever the machine."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

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
    assert a_row(searched) < 30 * BANDS


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
    with pytest.raises(IndexError):
        said[5]
    codes = np.array([4, 0, 3, 1, 2, -1])
    column = encoded(codes, said)
    assert column.to_pylist() == [None if code < 0 else wanted[code] for code in codes.tolist()]
    assert column.dictionary.to_pylist() == list(dict.fromkeys(wanted))
