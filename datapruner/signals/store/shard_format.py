"""Shards: files of a few thousand rows' keys and values, closed by a checksum."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.files.cache import hasher, open_plain
from datapruner.ragged import Ragged, offsets_of
from datapruner.signals.store.keys import KEY_BYTES, Keys

MAGIC = b"datapruner-shard-1\n"
DIGEST_BYTES = 16

RaggedBatch = tuple[Ints, Ragged]


class RowsMissingError(Exception):
    """Not every row of a run is in the shards."""


@dataclass(frozen=True)
class Index:
    """Where each stored row lies: keys ascending, with the shard, the start and the length of each.

    Shards are opened when they are read: a long run leaves thousands, more than a process may hold open.
    """

    keys: Keys
    shard: NDArray[np.int32]
    start: Ints
    length: Ints
    files: list[tuple[Path, int, int]]
    """Path, first byte of the values, number of values."""


def shard_parts(keys: Keys, values: Sequence[Ragged], width: int | None) -> list[bytes]:
    """Give the bytes of a shard; its rows have ``width`` values each, or any number, which then stand in it."""
    parts = [MAGIC + json.dumps({"rows": len(keys), "width": width}).encode() + b"\n", keys.tobytes()]
    if width is None:
        parts += [part.lengths.astype("<i8").tobytes() for part in values]
    parts += [np.ascontiguousarray(part.values, dtype="<f4").tobytes() for part in values]
    digest = hasher()
    for part in parts:
        digest.update(part)
    return [*parts, digest.digest()]


def read_shard(path: Path, width: int | None) -> tuple[Keys, Ints, int] | None:
    """Give a shard's keys, its rows' lengths and where its values start; None where it is not as written."""
    with open_plain(path) as handle:
        raw = handle.read(len(MAGIC))  # not the whole of any file that bears such a name
        if raw != MAGIC:
            return None
        raw += handle.read()
    body = memoryview(raw)[:-DIGEST_BYTES]
    digest = hasher()
    digest.update(body)
    if digest.digest() != raw[-DIGEST_BYTES:]:
        return None
    end = raw.find(b"\n", len(MAGIC)) + 1
    try:
        header = json.loads(raw[len(MAGIC) : end])
        rows, held = int(header["rows"]), header["width"]
    except (ValueError, KeyError, TypeError):
        return None
    middle = end + rows * KEY_BYTES
    if held != width or rows < 1 or len(body) < middle + (8 * rows if width is None else 0):
        return None
    keys = np.frombuffer(raw[end:middle], dtype=f"S{KEY_BYTES}")
    if width is None:
        lengths = np.frombuffer(raw[middle : middle + 8 * rows], dtype="<i8").astype(np.int64)
        middle += 8 * rows
    else:
        lengths = np.full(rows, width, dtype=np.int64)
    if (lengths < 0).any() or len(body) != middle + 4 * int(lengths.sum()):
        return None
    return keys, lengths, middle


def gather(
    files: list[tuple[Path, int, int]],
    shard: NDArray[np.int32],
    start: Ints,
    length: Ints,
) -> bytes:
    """Read some rows from their shards, in order.

    Read and not mapped: a shard that somebody cuts short meanwhile would end the process with SIGBUS.
    """
    to = offsets_of(length)
    block = np.empty(int(to[-1]), dtype="<f4")
    room = block.view(np.uint8).data
    for number in np.unique(shard):
        path, first, size = files[number]
        if not size:
            continue
        here = np.flatnonzero(shard == number)
        # Rows that follow each other there and here are read as one.
        joined = (start[here][1:] == (start[here] + length[here])[:-1]) & (np.diff(here) == 1)
        cuts = np.flatnonzero(~joined)
        firsts, lasts = here[np.append(0, cuts + 1)], here[np.append(cuts, len(here) - 1)]
        spans = zip((4 * to[firsts]).tolist(), (4 * to[lasts + 1]).tolist(), strict=True)
        with open_plain(path) as handle:
            for place, (begin, end) in zip((first + 4 * start[firsts]).tolist(), spans, strict=True):
                handle.seek(place)
                if handle.readinto(room[begin:end]) < end - begin:
                    raise RowsMissingError
    return block.tobytes()
