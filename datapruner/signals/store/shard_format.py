"""Shards: files of a few thousand rows, whose head lists keys and lengths apart from the values.

A head is closed by a checksum of its own and holds one for every block of the values, so that an index reads heads
alone, and of the values those blocks are read, and verified, that hold rows which somebody wants. Shards of the first
format (``.shard``: one checksum for all) are read whole. The formats have names of their own, since a version that
knows only the first would call the second damaged, and remove it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.files.cache import File, closing_digest, open_plain
from datapruner.files.objects import Ranges
from datapruner.ragged import Ragged, offsets_of
from datapruner.signals.store.keys import KEY_BYTES, Keys

MAGIC = b"datapruner-shard-2\n"
WHOLE_MAGIC = b"datapruner-shard-1\n"
SUFFIX, WHOLE_SUFFIX = ".shard2", ".shard"
DIGEST_BYTES = 16
BLOCK_VALUES = 1 << 14
"""Values a checksum: 64 KiB."""
HEADER_BYTES = 1 << 12
GAP_BLOCKS = 16
"""On an object store as much is sooner read than asked for apart."""

RaggedBatch = tuple[Ints, Ragged]


class RowsMissingError(Exception):
    """Not every row of a run is in the shards."""


class DamagedError(Exception):
    """A file of the store is not as it was written."""


def covered(first: Ints, last: Ints, blocks: int) -> list[tuple[int, int]]:
    """Give the runs of blocks that lie in one of some ranges, each from its first block to before its last."""
    change = np.zeros(blocks + 2, dtype=np.int64)
    np.add.at(change, first + 1, 1)
    np.add.at(change, last + 1, -1)
    edges = np.flatnonzero(np.diff(np.cumsum(change) > 0)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def joined(runs: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Make one of runs that lie no further apart."""
    out: list[tuple[int, int]] = []
    for start, stop in runs:
        if out and start - out[-1][1] <= gap:
            out[-1] = out[-1][0], stop
        else:
            out.append((start, stop))
    return out


@dataclass(frozen=True)
class Shard:
    """What a shard's head says; the values are read from the open file.

    Attributes
    ----------
    keys : ndarray of S16, shape (n,)
    lengths : ndarray, int64, shape (n,)
    checks : list of bytes
        Of each block of the values.
    block : int
        Values a block.
    first : int
        Byte at which the values start.
    held : NDArray, optional
        The values, where the shard was read whole.
    """

    keys: Keys
    lengths: Ints
    checks: list[bytes]
    block: int
    first: int
    held: NDArray[np.float32] | None = None

    @cached_property
    def offsets(self) -> Ints:
        """Where each row's values start; int64 (n + 1,)."""
        return offsets_of(self.lengths)

    def take(self, handle: IO[bytes], rows: Ints) -> Ragged:
        """Read some rows, in the order asked for.

        Read and not mapped: a shard that somebody cuts short meanwhile would end the process with SIGBUS.

        Raises
        ------
        DamagedError
            A block that holds one of them is not as it was written.
        """
        values = self.held if self.held is not None else self._blocks(handle, rows)
        low, high = int(self.lengths.min()), int(self.lengths.max())
        if low == high:  # without a number for the place of every value
            taken = values.reshape(len(self.lengths), high)[rows].reshape(-1)
            return Ragged(taken, np.arange(len(rows) + 1) * high)
        return Ragged(values, self.offsets).take(rows)

    def _blocks(self, handle: IO[bytes], rows: Ints) -> NDArray[np.float32]:
        """Read the blocks of some rows into their places among all values; elsewhere stands anything."""
        values = np.empty(int(self.offsets[-1]), dtype="<f4")
        room = values.view(np.uint8).data
        full = rows[self.lengths[rows] > 0]
        first, last = self.offsets[full] // self.block, (self.offsets[full + 1] - 1) // self.block + 1
        size = 4 * self.block
        runs = covered(first, last, len(self.checks))
        if isinstance(handle, Ranges):
            runs = joined(runs, GAP_BLOCKS)
        for start, stop in runs:
            begin, end = start * size, min(stop * size, len(room))
            handle.seek(self.first + begin)
            if handle.readinto(room[begin:end]) < end - begin:  # type: ignore[attr-defined]
                raise DamagedError
            for number in range(start, stop):
                if closing_digest(room[number * size : (number + 1) * size]) != self.checks[number]:
                    raise DamagedError
        return values


def shard_parts(keys: Keys, values: Sequence[Ragged], width: int | None) -> list[bytes | memoryview]:
    """Give the bytes of a shard; its rows have ``width`` values each, or any number, which then stand in it."""
    body = np.concatenate([np.asarray(part.values, dtype="<f4") for part in values])
    room = body.view(np.uint8).data
    header = {"rows": len(keys), "width": width, "values": len(body), "block": BLOCK_VALUES}
    parts = [MAGIC + json.dumps(header).encode() + b"\n", keys.tobytes()]
    if width is None:
        parts += [part.lengths.astype("<i8").tobytes() for part in values]
    size = 4 * BLOCK_VALUES
    parts += [closing_digest(room[start : start + size]) for start in range(0, len(room), size)]
    return [*parts, closing_digest(*parts), room]


def read_shard(path: File, width: int | None) -> Shard | None:
    """Read a shard's head; None where the file is not as written."""
    with open_plain(path) as handle:
        return open_shard(handle, width)


def open_shard(handle: IO[bytes], width: int | None) -> Shard | None:
    """Read the head of an open shard; None where the file is not as written."""
    magic = handle.read(len(MAGIC))  # not the whole of any file that bears such a name
    if magic == WHOLE_MAGIC:
        return _read_whole(magic + handle.read(), width)
    if magic != MAGIC:
        return None
    size = handle.seek(0, 2)
    handle.seek(len(MAGIC))
    line = handle.readline(HEADER_BYTES)
    try:
        header = json.loads(line)
        rows, total, block = (int(header[name]) for name in ("rows", "values", "block"))
        held = header["width"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    blocks = -(-total // block) if block > 0 else -1
    numbers = len(magic) + len(line)
    checks = KEY_BYTES * rows + (8 * rows if width is None else 0)
    first = numbers + checks + DIGEST_BYTES * (blocks + 1)
    if held != width or rows < 1 or total < 0 or blocks < 0 or size != first + 4 * total:
        return None
    raw = handle.read(first - numbers)
    end = len(raw) - DIGEST_BYTES
    if len(raw) < first - numbers or closing_digest(magic, line, raw[:end]) != raw[end:]:
        return None
    lengths = _lengths(raw, rows, width, total)
    if lengths is None:
        return None
    listed = [raw[place : place + DIGEST_BYTES] for place in range(checks, end, DIGEST_BYTES)]
    return Shard(np.frombuffer(raw, f"S{KEY_BYTES}", rows), lengths, listed, block, first)


def _read_whole(raw: bytes, width: int | None) -> Shard | None:
    """Take a shard of the first format apart: a header, keys, lengths and values, and one checksum."""
    body = memoryview(raw)[:-DIGEST_BYTES]
    if closing_digest(body) != raw[-DIGEST_BYTES:]:
        return None
    end = raw.find(b"\n", len(WHOLE_MAGIC)) + 1
    try:
        header = json.loads(raw[len(WHOLE_MAGIC) : end])
        rows, held = int(header["rows"]), header["width"]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    first = end + rows * KEY_BYTES + (8 * rows if width is None else 0)
    if held != width or rows < 1 or len(body) < first or (len(body) - first) % 4:
        return None
    lengths = _lengths(raw[end:first], rows, width, (len(body) - first) // 4)
    if lengths is None:
        return None
    values = np.frombuffer(body, "<f4", offset=first)
    return Shard(np.frombuffer(raw, f"S{KEY_BYTES}", rows, end), lengths, [], 0, first, values)


def _lengths(raw: bytes, rows: int, width: int | None, total: int) -> Ints | None:
    """Give the lengths that stand behind the keys; None where they do not sum up to ``total``."""
    if width is None:
        lengths = np.frombuffer(raw, "<i8", rows, KEY_BYTES * rows).astype(np.int64)
    else:
        lengths = np.full(rows, width, dtype=np.int64)
    # Each first: what does not fit could sum up to anything.
    fits = not ((lengths < 0) | (lengths > total)).any() and lengths.sum(dtype=np.float64) == total
    return lengths if fits else None
