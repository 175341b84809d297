"""Finding rows: the index against a plain table, its damage, and shards of the first format."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.ragged import Ragged
from datapruner.signals.store import SignalStore, finding, index, row_keys, shard_format
from datapruner.signals.store.finding import find
from datapruner.signals.store.shards import Shelf

CONTEXT = {"signal": "test"}
WIDTH = 3


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """An index of any shards at all, in blocks of a few rows."""
    monkeypatch.setattr(finding, "LEAST_SHARDS", 1)
    monkeypatch.setattr(index, "BLOCK_ENTRIES", 4)
    monkeypatch.setattr(index, "READ_BLOCKS", 2)


def value(row: int) -> np.ndarray:
    return np.arange(WIDTH, dtype=np.float32) + 10 * row


def keys_of(rows) -> np.ndarray:
    return row_keys((f"row {row}".encode() for row in rows), CONTEXT)


def fetch(root: Path, rows, flush_rows: int = 5) -> int:
    """Fetch rows, hold them to what they must be, and say how many were computed."""
    rows = list(rows)
    store = SignalStore(root, flush_rows=flush_rows)

    def compute(positions):
        for at in positions:
            yield np.array([at]), value(rows[at])[None]

    with mock.patch.object(os, "fsync"):
        got = store.fetch(keys_of(rows), CONTEXT, WIDTH, compute)
    np.testing.assert_array_equal(got, np.stack([value(row) for row in rows]))
    return store.computed


def forget_copies(root: Path) -> None:
    for path in [*root.rglob("*.rows"), *root.rglob("*.sum")]:
        path.unlink()


def segments(root: Path) -> list[Path]:
    return sorted(root.rglob("*.index"))


# --- against a plain table ----------------------------------------------------------------------------------

# Few first halves, so that equal ones meet in blocks and across them.
KEY = st.tuples(st.integers(0, 3), st.integers(0, 5)).map(
    lambda halves: b"".join(half.to_bytes(8, "big") for half in halves)
)
STEP = st.one_of(
    st.tuples(st.just("write"), st.lists(st.tuples(KEY, st.integers(0, 6)), min_size=1, max_size=12)),
    st.tuples(st.just("remove"), st.integers(0, 100)),
    st.tuples(st.just("find"), st.lists(KEY, max_size=12)),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(STEP, max_size=14), st.integers(1, 12))
def test_what_is_found_is_what_the_shards_hold(steps, together):
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(os, "fsync"),
        mock.patch.object(finding, "TOGETHER_ROWS", together),
        mock.patch.multiple(index, BLOCK_ENTRIES=4, READ_BLOCKS=2),
        mock.patch.object(finding, "LEAST_SHARDS", 1),
    ):
        shelf = Shelf.of(Path(name) / "signals", CONTEXT, None)
        shelf.prepare(CONTEXT)
        every = ("find", [a + b for a in map(_half, range(4)) for b in map(_half, range(6))])
        for step in [*steps, every]:
            shards = sorted(shelf.folder.glob("*.shard2"))
            if step[0] == "write":
                keys = np.array([key for key, _ in step[1]], dtype="S16")
                rows = [np.full(length, length, np.float32) for _, length in step[1]]
                shelf.write_shard(keys, [Ragged.from_rows(rows)])
            elif step[0] == "remove":
                if shards:
                    shards[step[1] % len(shards)].unlink()
            else:
                table: dict[bytes, set[tuple[Path, int, int]]] = {}
                for path in shards:
                    shard = shelf.read_shard(path)
                    for row, key in enumerate(shard.keys):
                        table.setdefault(key.ljust(16, b"\0"), set()).add((path, row, shard.lengths[row]))
                found = find(shelf, np.array(step[1], dtype="S16"))
                for at, key in enumerate(step[1]):
                    if found.shard[at] < 0:
                        assert key not in table
                    else:
                        told = list(found.files.values())[found.shard[at]], found.row[at], found.length[at]
                        assert told in table[key]


def _half(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_there_are_few_segments_and_a_row_is_written_anew_a_few_times(tmp_path, monkeypatch):
    written = []
    real = finding.segment_parts
    monkeypatch.setattr(
        finding, "segment_parts", lambda names, parts: (written.append(len(names)), real(names, parts))[1]
    )
    shelf = Shelf.of(tmp_path / "signals", CONTEXT, WIDTH)
    shelf.prepare(CONTEXT)
    keys = keys_of(range(640))
    with mock.patch.object(os, "fsync"):
        for first in range(0, 640, 5):
            shelf.write_shard(
                keys[first : first + 5], [Ragged(np.zeros(5 * WIDTH, np.float32), np.arange(6) * WIDTH)]
            )
            find(shelf, keys[:1])
    assert len(segments(tmp_path)) <= 8  # each more than twice as large as the smaller ones together
    assert sum(written) <= 8 * 128
    assert not find(shelf, keys).missing.size


def test_a_search_reads_the_blocks_that_may_hold_a_row_and_no_others(tmp_path, monkeypatch):
    fetch(tmp_path, range(400))
    fetch(tmp_path, [0])
    assert len(segments(tmp_path)) == 1
    read = []
    real = index.Segment.blocks
    monkeypatch.setattr(
        index.Segment,
        "blocks",
        lambda held, first, last: (read.append(last - first), real(held, first, last))[1],
    )
    monkeypatch.setattr(Shelf, "read_shard", lambda *_: pytest.fail("a shard's head is read"))
    assert SignalStore(tmp_path).missing(keys_of([7, 1000, 1001]), CONTEXT, WIDTH) == 2
    assert sum(read) <= 6


def test_nothing_is_written_where_rows_are_only_counted(tmp_path):
    fetch(tmp_path, range(60))
    forget_copies(tmp_path)
    for path in segments(tmp_path):
        path.unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert SignalStore(tmp_path).missing(keys_of(range(50, 70)), CONTEXT, WIDTH) == 10
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


# --- an index that is not as it was -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "place"),
    [
        *(("flip", place) for place in (0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.98, -1)),
        *(("cut", place) for place in (0.01, 0.3, 0.9, -1)),
        ("empty", 0),
        ("append", 0),
        ("folder", 0),
    ],
)
def test_a_damaged_index_costs_no_row_and_is_said(tmp_path, caplog, how, place):
    fetch(tmp_path, range(60))
    fetch(tmp_path, range(61))
    forget_copies(tmp_path)
    path = max(segments(tmp_path), key=lambda one: one.stat().st_size)
    raw = bytearray(path.read_bytes())
    at = int(place * len(raw)) if place >= 0 else len(raw) - 1
    if how == "flip":
        raw[at] ^= 4
    path.write_bytes(
        {"cut": bytes(raw[:at]), "empty": b"", "append": bytes(raw) + b"\0"}.get(how, bytes(raw))
    )
    if how == "folder":
        path.unlink()
        path.mkdir()
    assert fetch(tmp_path, range(61)) == 0
    (said,) = [record.getMessage() for record in caplog.records]
    assert path.name in said
    caplog.clear()
    forget_copies(tmp_path)
    assert fetch(tmp_path, range(61)) == 0
    assert not caplog.records


def test_an_index_of_other_shards_under_these_names_gives_no_other_rows(tmp_path, caplog):
    """Shards change places under an index that is whole: it is made again, and the rows are still there."""
    fetch(tmp_path, range(60))
    fetch(tmp_path, range(1))
    assert segments(tmp_path)
    forget_copies(tmp_path)
    one, two = sorted(tmp_path.rglob("*.shard2"))[:2]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert fetch(tmp_path, range(60)) == 0
    assert not caplog.records


def test_a_row_that_lies_in_two_shards_is_found_where_one_of_them_goes(tmp_path):
    fetch(tmp_path, range(20), flush_rows=4)
    shutil.copytree(tmp_path, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        if path.is_file():
            path.unlink()
    fetch(tmp_path / "copy", range(20), flush_rows=7)
    for path in (tmp_path / "copy").rglob("*.shard2"):
        shutil.copy(path, next(tmp_path.glob("signals/*")))
    shutil.rmtree(tmp_path / "copy")
    fetch(tmp_path, [0])
    for path in sorted(tmp_path.rglob("*.shard2")):
        kept = path.read_bytes()
        path.unlink()
        forget_copies(tmp_path)
        assert fetch(tmp_path, range(20)) == 0
        path.write_bytes(kept)


@pytest.mark.parametrize("times", [1, 100])
def test_segments_that_another_run_merges_meanwhile(tmp_path, monkeypatch, times):
    fetch(tmp_path, range(60))
    fetch(tmp_path, [0])
    forget_copies(tmp_path)
    real, left = Shelf.files, [times]

    def list_then_lose(shelf):
        listed = real(shelf)
        if left[0]:
            left[0] -= 1
            for path in segments(tmp_path):
                path.unlink()
            listed[f"{left[0]}.index"] = shelf.folder / f"{left[0]}.index"
        return listed

    monkeypatch.setattr(Shelf, "files", list_then_lose)
    assert fetch(tmp_path, range(60)) == 0


def test_an_index_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    real = Shelf.write

    def full(shelf, name, fill, *place):
        if name.endswith(".index"):
            raise shard_format.RowsMissingError
        return real(shelf, name, fill, *place)

    monkeypatch.setattr(Shelf, "write", full)
    fetch(tmp_path, range(60))
    forget_copies(tmp_path)
    assert fetch(tmp_path, range(60)) == 0


# --- values are verified when they are read -----------------------------------------------------------------


def test_of_a_shard_those_blocks_are_read_and_verified_that_are_wanted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(shard_format, "BLOCK_VALUES", 2 * WIDTH)
    fetch(tmp_path, range(30), flush_rows=30)
    forget_copies(tmp_path)
    (path,) = tmp_path.rglob("*.shard2")
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # of the last row
    path.write_bytes(raw)
    assert fetch(tmp_path, range(28)) == 0
    assert not caplog.records
    assert fetch(tmp_path, range(30)) == 30
    assert len(caplog.records) == 1
    assert fetch(tmp_path, range(29)) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 8), st.data())
def test_rows_of_any_length_are_taken_from_blocks_of_any_size(lengths, block, data):
    table = Ragged.from_rows([np.full(length, row, np.float32) for row, length in enumerate(lengths)])
    keys = keys_of(range(len(lengths)))
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1)), dtype=np.int64)
    with tempfile.TemporaryDirectory() as name, mock.patch.object(shard_format, "BLOCK_VALUES", block):
        path = Path(name) / "x.shard2"
        path.write_bytes(b"".join(shard_format.shard_parts(keys, [table], None)))
        with path.open("rb") as handle:
            shard = shard_format.open_shard(handle, None)
            got = shard.take(handle, rows)
    want = table.take(rows)
    np.testing.assert_array_equal(got.offsets, want.offsets)
    np.testing.assert_array_equal(got.values, want.values)


def forged(header: dict[str, object], keys: bytes, lengths: bytes, values: bytes) -> bytes:
    """A shard whose checksums are all right."""
    head = shard_format.MAGIC + json.dumps(header).encode() + b"\n" + keys + lengths
    head += xxhash.xxh3_128_digest(values) if values else b""
    return head + xxhash.xxh3_128_digest(head) + values


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": 0},
        {"rows": -1},
        {"rows": 10**30},
        {"rows": "many"},
        {"width": 5},
        {"width": WIDTH},
        {"values": 5},
        {"values": -1},
        {"block": 0},
        {"block": 1},
        {"block": None},
        {"lengths": [2, 2]},
        {"lengths": [-1, 7]},
        {"lengths": [2**62, 6 - 2**62]},
        {"lengths": [2**63 - 1, 7]},
        {},
    ],
)
def test_a_forged_head_is_not_trusted(tmp_path, caplog, changed):
    shelf = Shelf.of(tmp_path / "signals", CONTEXT, None)
    shelf.prepare(CONTEXT)
    keys = keys_of([0, 1])
    header = {"rows": 2, "width": None, "values": 6, "block": 8, **changed}
    lengths = np.array(header.pop("lengths", [3, 3]), dtype="<i8").tobytes()
    path = shelf.folder / "x.shard2"
    path.write_bytes(forged(header, keys.tobytes(), lengths, b"\0" * 24))
    found = find(shelf, keys)
    assert (found.shard >= 0).all() == (not changed)
    assert path.exists() == (not changed)
    assert len(caplog.records) == bool(changed)


# --- the first format ---------------------------------------------------------------------------------------


def first_format(keys: np.ndarray, values: Ragged, width: int | None) -> bytes:
    """What earlier versions wrote."""
    body = b"datapruner-shard-1\n" + json.dumps({"rows": len(keys), "width": width}).encode() + b"\n"
    body += keys.tobytes() + (values.lengths.astype("<i8").tobytes() if width is None else b"")
    body += values.values.astype("<f4").tobytes()
    return body + xxhash.xxh3_128_digest(body)


@pytest.mark.parametrize("width", [WIDTH, None])
def test_shards_of_the_first_format_are_read_and_stay(tmp_path, caplog, width):
    rng = np.random.default_rng(0)
    table = Ragged.from_rows([rng.random(width or row % 4, dtype=np.float32) for row in range(40)])
    keys = keys_of(range(40))
    shelf = Shelf.of(tmp_path / "signals", CONTEXT, width)
    shelf.prepare(CONTEXT)
    for first in (0, 10, 20):
        part = np.arange(first, first + 10)
        (shelf.folder / f"{first}.shard").write_bytes(first_format(keys[part], table.take(part), width))

    def fetched() -> int:
        store = SignalStore(tmp_path, flush_rows=4)
        order = rng.permutation(40)
        kind = store_kind(keys[order], width)
        (got,) = store.fetch_together([kind], lambda rows: iter([(rows, [table.take(order[rows])])]))
        want = table.take(order)
        np.testing.assert_array_equal(got.values, want.values)
        np.testing.assert_array_equal(got.offsets, want.offsets)
        return store.computed

    assert fetched() == 10
    assert fetched() == 0
    assert sorted(path.name for path in shelf.folder.glob("*.shard")) == ["0.shard", "10.shard", "20.shard"]
    old = shelf.folder / "10.shard"
    raw = bytearray(old.read_bytes())
    raw[-20] ^= 1
    old.write_bytes(raw)
    with caplog.at_level(logging.WARNING):
        assert fetched() == 10
    assert len(caplog.records) == 1
    assert not old.exists()
    assert fetched() == 0


def store_kind(keys: np.ndarray, width: int | None):
    from datapruner.signals.store import Kind

    return Kind(keys, CONTEXT, width)
