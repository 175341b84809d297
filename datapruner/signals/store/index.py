"""Which shard holds which row: sorted lists of keys, of which a search reads the few blocks that it needs.

A shelf's index is some *segments*, files that each list the rows of some shards in the order of their keys. Rows that
came since are read from their shards' heads, and are a further segment; segments of about one size are merged, so that
a row is written anew a few times for a millionfold growth, and there are never many. A segment is only a help: it is
made from the shards, and what it says is held against their heads when values are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints
from datapruner.files.cache import File, closing_digest, open_plain
from datapruner.files.objects import Ranges
from datapruner.signals.store.keys import KEY_BYTES, Keys
from datapruner.signals.store.places import each
from datapruner.signals.store.shard_format import DIGEST_BYTES, DamagedError, Shard, covered

MAGIC = b"datapruner-index-1\n"
SUFFIX = ".index"
BLOCK_ENTRIES = 1 << 10
READ_BLOCKS = 1 << 10
"""Blocks that are in memory together: a million entries."""
ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("shard", "<u4"), ("row", "<u4"), ("length", "<u4")])
"""A key's two halves, the number of its shard, its row there, and the record's length."""

Entries = NDArray[np.void]
Halves = NDArray[np.uint64]


class Wanted(NamedTuple):
    """Keys that are looked for, in ascending order of their first half.

    Attributes
    ----------
    at : ndarray, int64
        Their positions.
    high, low : ndarray, uint64
    """

    at: Ints
    high: Halves
    low: Halves

    @classmethod
    def of(cls, keys: Keys) -> Wanted:
        """Take all keys."""
        high, low = halves(keys)
        return cls(np.arange(len(keys)), high, low).take(np.argsort(high))

    def take(self, some: Ints | slice) -> Wanted:
        """Take some of them."""
        return Wanted(self.at[some], self.high[some], self.low[some])


def halves(keys: Keys) -> tuple[Halves, Halves]:
    """Give keys as two numbers each, which sort much faster than bytes."""
    pairs = np.ascontiguousarray(keys, dtype=f"S{KEY_BYTES}").view(">u8").reshape(-1, 2).astype(np.uint64)
    return pairs[:, 0], pairs[:, 1]


def entries_of(shard: Shard, number: int) -> Entries:
    """List the rows of a shard that is given a number, in its own order."""
    out = np.empty(len(shard.keys), dtype=ENTRY)
    out["high"], out["low"] = halves(shard.keys)
    out["shard"], out["row"], out["length"] = number, np.arange(len(out)), shard.lengths
    return out


def in_order(parts: Sequence[Entries]) -> Entries:
    """Put entries together in the order of their keys."""
    every = np.concatenate(parts)
    return every[np.argsort(every["high"], kind="stable")]


def search(entries: Entries, wanted: Wanted, live: Flags) -> tuple[Ints, Entries]:
    """Look keys up among sorted entries.

    Parameters
    ----------
    entries : ndarray of ENTRY
    wanted : Wanted
    live : ndarray, bool
        Which shards are there; a row that lies in several counts where it lies in one of them.

    Returns
    -------
    ndarray, int64
        Positions of the keys that are there.
    ndarray of ENTRY
        Where they lie.
    """
    high = np.ascontiguousarray(entries["high"])
    place, left = np.searchsorted(high, wanted.high), np.arange(len(wanted.at))
    found: list[tuple[Ints, Ints]] = []
    while len(left):
        here = place < len(high)
        here[here] = high[place[here]] == wanted.high[left[here]]
        left, place = left[here], place[here]
        same = (entries["low"][place] == wanted.low[left]) & live[entries["shard"][place]]
        found.append((wanted.at[left[same]], place[same]))
        left, place = left[~same], place[~same] + 1
    at, places = (
        np.concatenate([pair[side] for pair in found] or [np.empty(0, np.int64)]) for side in (0, 1)
    )
    return at, entries[places]


class Segment:
    """An open file of the index.

    Raises
    ------
    DamagedError
        It is not as it was written.
    OSError
        It cannot be read.
    """

    def __init__(self, path: File) -> None:
        self.path = path
        self.handle: IO[bytes] = open_plain(path)
        try:
            self._read_end()
        except BaseException:
            self.handle.close()
            raise

    def _read_end(self) -> None:
        if self.handle.read(len(MAGIC)) != MAGIC:
            raise DamagedError(self.path)
        size, closing = self.handle.seek(0, 2), 8 + DIGEST_BYTES
        if size < len(MAGIC) + closing:
            raise DamagedError(self.path)
        self.handle.seek(size - closing)
        raw = self.handle.read(closing)
        length = int.from_bytes(raw[:8], "little")
        if len(raw) < closing or length > size - closing - len(MAGIC):
            raise DamagedError(self.path)
        self.handle.seek(size - closing - length)
        end = self.handle.read(length)
        if closing_digest(MAGIC, end, raw[:8]) != raw[8:]:
            raise DamagedError(self.path)
        line, _, rest = end.partition(b"\n")
        try:
            told = json.loads(line)
            self.names = [str(name) for name in told["shards"]]
            blocks = int(told["blocks"])
            self.sizes = np.frombuffer(rest, "<u4", blocks).astype(np.int64)
            self.fences = np.frombuffer(rest, "<u8", blocks, 4 * blocks).astype(np.uint64)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise DamagedError(self.path) from None
        checks = rest[12 * blocks :]
        self.checks = [checks[place : place + DIGEST_BYTES] for place in range(0, len(checks), DIGEST_BYTES)]
        self.starts = np.append(0, np.cumsum(self.sizes))
        self.rows = int(self.starts[-1])
        if len(self.checks) != blocks or size != len(MAGIC) + self.rows * ENTRY.itemsize + length + closing:
            raise DamagedError(self.path)

    def blocks(self, first: int, last: int) -> Entries:
        """Read blocks that follow each other, and verify them."""
        begin, end = (int(self.starts[number]) * ENTRY.itemsize for number in (first, last))
        raw = self._read(len(MAGIC) + begin, len(MAGIC) + end)
        places = (self.starts[first : last + 1] * ENTRY.itemsize - begin).tolist()
        if len(raw) < end - begin:
            raise DamagedError(self.path)
        for number, start, stop in zip(range(first, last), places[:-1], places[1:], strict=True):
            if closing_digest(memoryview(raw)[start:stop]) != self.checks[number]:
                raise DamagedError(self.path)
        entries = np.frombuffer(raw, ENTRY)
        if len(entries) and entries["shard"].max() >= len(self.names):
            raise DamagedError(self.path)
        return entries

    def _read(self, begin: int, end: int) -> bytes:
        if isinstance(self.handle, Ranges):  # several threads read it
            return self.handle.part(begin, end)
        self.handle.seek(begin)
        return self.handle.read(end - begin)

    def search(self, wanted: Wanted, live: Flags) -> Iterator[tuple[Ints, Entries]]:
        """Look keys up, in the blocks that may hold them; as :func:`search`."""
        if not self.rows or not len(wanted.at):
            return
        first = np.maximum(np.searchsorted(self.fences, wanted.high) - 1, 0)
        last = np.searchsorted(self.fences, wanted.high, side="right")
        parts = [
            (start, min(start + READ_BLOCKS, end))
            for begin, end in covered(first, last, len(self.fences))
            for start in range(begin, end, READ_BLOCKS)
        ]
        read = each(lambda part: self.blocks(*part), parts, far=isinstance(self.handle, Ranges))
        for (start, stop), entries in zip(parts, read, strict=True):
            here = slice(np.searchsorted(last, start, side="right"), np.searchsorted(first, stop))
            yield search(entries, wanted.take(here), live)

    def between(self, low: int, high: int | None) -> Entries:
        """Read the entries whose keys' first half is at least ``low`` and below ``high``."""
        first = max(int(np.searchsorted(self.fences, np.uint64(low))) - 1, 0)
        last = len(self.fences) if high is None else int(np.searchsorted(self.fences, np.uint64(high)))
        entries = self.blocks(first, max(first, last))
        inside = entries["high"] >= np.uint64(low)
        if high is not None:
            inside &= entries["high"] < np.uint64(high)
        return entries[inside]

    def close(self) -> None:
        """Close the file."""
        self.handle.close()


def segment_parts(names: Sequence[str], sorted_parts: Iterable[Entries]) -> Iterator[bytes]:
    """Give the bytes of a segment that lists the rows of these shards; its parts follow each other in order."""
    yield MAGIC
    sizes, fences, checks = [], [], []
    for entries in sorted_parts:
        raw = entries.tobytes()
        for start in range(0, len(entries), BLOCK_ENTRIES):
            stop = min(start + BLOCK_ENTRIES, len(entries))
            sizes.append(stop - start)
            fences.append(int(entries["high"][start]))
            checks.append(closing_digest(memoryview(raw)[start * ENTRY.itemsize : stop * ENTRY.itemsize]))
        yield raw
    end = json.dumps({"shards": list(names), "blocks": len(sizes)}).encode() + b"\n"
    end += np.array(sizes, "<u4").tobytes() + np.array(fences, "<u8").tobytes() + b"".join(checks)
    length = len(end).to_bytes(8, "little")
    yield from (end, length, closing_digest(MAGIC, end, length))


def merged(segments: Sequence[Segment], numbers: Sequence[Ints]) -> Iterator[Entries]:
    """Merge segments, a part of the keys at a time.

    Parameters
    ----------
    segments : sequence of Segment
    numbers : sequence of ndarray, int64
        For each, the new number of each of its shards; -1 for one that is gone.
    """
    cuts = max(segments, key=lambda segment: segment.rows).fences[READ_BLOCKS::READ_BLOCKS].tolist()
    for low, high in pairwise([0, *cuts, None]):
        parts = []
        for segment, number in zip(segments, numbers, strict=True):
            entries = segment.between(low, high)
            shard = number[entries["shard"]]
            entries = entries[shard >= 0]
            entries["shard"] = shard[shard >= 0]
            parts.append(entries)
        yield in_order(parts)
