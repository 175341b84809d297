"""Rows put together in a dataset's order, so that millions are read one after the other, memory-mapped."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from datapruner.arrays import Ints
from datapruner.files.cache import File, discard, hasher, open_plain
from datapruner.files.objects import ObjectFile, ObjectFolder
from datapruner.ragged import Ragged, offsets_of
from datapruner.signals.store.finding import Found
from datapruner.signals.store.keys import Keys
from datapruner.signals.store.places import AT_ONCE, each
from datapruner.signals.store.shard_format import (
    DIGEST_BYTES,
    DamagedError,
    RowsMissingError,
    Shard,
    open_shard,
)
from datapruner.signals.store.shards import Shelf

logger = logging.getLogger(__name__)

KEPT_COPIES = 4
READ_BYTES = 1 << 28
"""Of shards that are read from an object store together."""


def write_copy(shelf: Shelf, name: str, keys: Keys, found: Found) -> Ragged:
    """Put rows together in the order of their keys, write them, and map what was written.

    Raises
    ------
    RowsMissingError
        One is not where it was found, or not as it was written: what is damaged is removed by then, and said.
    """
    if not len(keys):
        return Ragged(np.empty(0, dtype=np.float32), np.zeros(1, dtype=np.int64))
    if (found.shard < 0).any():
        raise RowsMissingError
    closing = b""

    def fill(handle: IO[bytes]) -> None:
        nonlocal closing
        if shelf.width is None:
            handle.write(found.length.astype("<i8").tobytes())
        _gather(shelf, keys, found, handle)
        handle.flush()
        with Path(handle.name).open("rb") as written:
            closing = _digest(written, name)

    path = shelf.write(f"{name}.rows", fill, shelf.copies)
    try:
        shelf.write(f"{name}.sum", lambda handle: handle.writelines([closing]), shelf.copies)
        _trim(shelf)
        with open_plain(path) as handle:
            return _mapped(shelf, handle, len(keys))
    except FileNotFoundError:
        raise RowsMissingError from None


def _gather(shelf: Shelf, keys: Keys, found: Found, handle: IO[bytes]) -> None:
    """Go through the shards once, and write each one's rows where they belong."""
    places = handle.tell() + 4 * offsets_of(found.length)
    order = np.argsort(found.shard, kind="stable")
    numbers, firsts = np.unique(found.shard[order], return_index=True)
    files, rows = list(found.files.values()), np.split(order, firsts[1:])

    def taken_from(part: int) -> Ragged | None:
        return _taken(shelf, files[numbers[part]], keys, found, rows[part])

    largest = max((file.size for file in files if isinstance(file, ObjectFile)), default=0)
    at_once = min(max(READ_BYTES // max(largest, 1), 1), AT_ONCE)
    read = each(taken_from, range(len(numbers)), far=shelf.is_far, at_once=at_once)
    whole = True
    for here, taken in zip(rows, read, strict=True):
        if taken is None:
            whole = False
            continue
        # Rows that follow each other there are written as one.
        cuts = np.flatnonzero(np.diff(here) != 1)
        room = memoryview(np.ascontiguousarray(taken.values, dtype="<f4").view(np.uint8).data)
        firsts_, lasts = np.append(0, cuts + 1), np.append(cuts, len(here) - 1) + 1
        for to, begin, end in zip(
            places[here[firsts_]].tolist(),
            (4 * taken.offsets[firsts_]).tolist(),
            (4 * taken.offsets[lasts]).tolist(),
            strict=True,
        ):
            handle.seek(to)
            handle.write(room[begin:end])
    if not whole:
        raise RowsMissingError


def _taken(shelf: Shelf, path: File, keys: Keys, found: Found, here: Ints) -> Ragged | None:
    """Read rows from the shard that they lie in; None where it does not hold them, which is mended."""
    try:
        with open_plain(path) as source:
            shard = open_shard(source, shelf.width)
            if shard is None:
                raise DamagedError
            if _says(shard, keys, found, here):
                return shard.take(source, found.row[here])
            for segment in found.segments:  # they are made again
                shelf.remove(segment)
    except FileNotFoundError:  # another run has just removed it
        pass
    except OSError as error:
        shelf.pass_over(path, error)
    except DamagedError:
        shelf.damaged(path)
    return None


def _says(shard: Shard, keys: Keys, found: Found, here: Ints) -> bool:
    """Whether a shard holds what an index says of it."""
    rows = found.row[here]
    return bool(
        rows.max() < len(shard.keys)
        and (shard.keys[rows] == keys[here]).all()
        and (shard.lengths[rows] == found.length[here]).all()
    )


def _trim(shelf: Shelf) -> None:
    """Keep the copies that were used last: each is as large as its dataset, and the shards can make it again."""
    copies = []
    with suppress(OSError):  # what is no folder, or one with too long a name
        for path in shelf.folder.glob("*.rows"):
            with suppress(OSError):  # another run trims too
                copies.append((path.lstat().st_mtime_ns, path))
    for _, path in sorted(copies)[:-KEPT_COPIES]:
        if discard(path):
            discard(path.with_suffix(".sum"))


def open_copy(shelf: Shelf, name: str, rows: int) -> Ragged | None:
    """Map rows that were put together before; None where they are not there, or not as written."""
    for place in shelf.places:
        if isinstance(place, ObjectFolder):
            continue
        found = _opened(shelf, place / f"{name}.rows", rows)
        if found is not None:
            return found
    return None


def _opened(shelf: Shelf, path: Path, rows: int) -> Ragged | None:
    check = path.with_suffix(".sum")
    try:
        expected = _expected(check)
    except OSError as error:
        shelf.pass_over(check, error)
        return None
    if expected is None:
        return None
    try:
        with open_plain(path) as handle:
            size = os.fstat(handle.fileno()).st_size
            fits = shelf.width is None or size == 4 * shelf.width * rows
            if fits and _digest(handle, path.stem) == expected:
                with suppress(OSError):  # a folder that is only read
                    os.utime(path)
                return _mapped(shelf, handle, rows)
    except FileNotFoundError:
        return None  # another run has just trimmed it
    except OSError as error:
        shelf.pass_over(path, error)
        return None
    logger.warning("stored rows are damaged (%s): they are put together again", path.name)
    if discard(path):
        discard(check)
    return None


def holds_copy(path: Path) -> bool:
    """Whether rows that were put together are as they were written.

    Raises
    ------
    OSError
        They are gone, or cannot be read.
    """
    expected = _expected(path.with_suffix(".sum"))
    with open_plain(path) as handle:
        return expected is not None and _digest(handle, path.stem) == expected


def _expected(check: Path) -> bytes | None:
    """Read the digest beside a copy; None where there is none."""
    try:
        with open_plain(check) as handle:
            return handle.read(DIGEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _digest(handle: IO[bytes], name: str) -> bytes:
    """Read a copy to its end, and give the digest that closes it."""
    digest = hasher(name.encode())
    while chunk := handle.read(1 << 24):
        digest.update(chunk)
    return digest.digest()


def _mapped(shelf: Shelf, handle: IO[bytes], rows: int) -> Ragged:
    handle.seek(0)
    if shelf.width is None:
        lengths = np.frombuffer(handle.read(8 * rows), dtype="<i8").astype(np.int64)
    else:
        lengths = np.full(rows, shelf.width, dtype=np.int64)
    offsets = offsets_of(lengths)
    head = 8 * rows if shelf.width is None else 0
    if not offsets[-1]:
        return Ragged(np.empty(0, dtype=np.float32), offsets)
    return Ragged(np.memmap(handle, dtype="<f4", mode="r", offset=head, shape=(int(offsets[-1]),)), offsets)
