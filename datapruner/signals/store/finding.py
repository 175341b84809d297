"""Finds rows on a shelf, and keeps the index that it finds them by."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.files.cache import File, discard
from datapruner.signals.store import index
from datapruner.signals.store.index import (
    Entries,
    Segment,
    Wanted,
    entries_of,
    in_order,
    merged,
    search,
    segment_parts,
)
from datapruner.signals.store.keys import Keys
from datapruner.signals.store.shard_format import DamagedError, RowsMissingError
from datapruner.signals.store.shards import Shelf
from datapruner.text import safe_text

logger = logging.getLogger(__name__)

LEAST_SHARDS = 32
"""Fewer heads are read sooner than an index of them is written."""
TOGETHER_ROWS = 1 << 22
"""Rows that are sorted in memory together."""
LISTED_AGAIN = 4
"""Segments that were there when the shelf was listed may be merged by another run before they are opened."""


class Found(NamedTuple):
    """Where rows lie.

    Attributes
    ----------
    shard : ndarray, int32
        Number of the shard; -1 for a row that is not stored.
    row, length : ndarray, int64
        Its place there, and the values of its record.
    files : mapping
        The shards, name -> path, in the order of their numbers.
    segments : list of File
        Of the index that said so.
    """

    shard: NDArray[np.int32]
    row: Ints
    length: Ints
    files: dict[str, File]
    segments: list[File]

    @property
    def missing(self) -> Ints:
        """Positions of the rows that are not stored."""
        return np.flatnonzero(self.shard < 0)


def find(shelf: Shelf, keys: Keys, *, keep: bool = True) -> Found:
    """Find rows on a shelf, by its index and the heads of the shards that came since.

    Parameters
    ----------
    shelf : Shelf
    keys : ndarray of S16, shape (n,)
    keep : bool
        Write what makes the next search shorter.
    """
    for _ in range(LISTED_AGAIN):
        try:
            with ExitStack() as stack:
                return _Search(shelf, stack, keep=keep).find(keys)
        except FileNotFoundError:
            continue
        except DamagedError as error:
            _damaged(shelf, error.args[0])
    with ExitStack() as stack:
        return _Search(shelf, stack, keep=False, indexed=False).find(keys)


class _Search:
    """One look at a shelf: its shards, and what lists their rows."""

    def __init__(self, shelf: Shelf, stack: ExitStack, *, keep: bool, indexed: bool = True) -> None:
        self.shelf, self.stack, self.keep = shelf, stack, keep
        files = shelf.files()
        self.files = shelf.shards(files)
        self.numbers = {name: number for number, name in enumerate(self.files)}
        self.segments: list[Segment] = []
        self.held: list[tuple[list[str], Entries]] = []
        if indexed:
            self._open([path for path in files.values() if path.suffix == index.SUFFIX])
        self._read_new()
        if self.keep:
            self._merge()

    def _open(self, paths: list[File]) -> None:
        """Open the segments, the largest first; those that add nothing go."""
        opened = [segment for path in paths if (segment := self._segment(path)) is not None]
        seen: set[str] = set()
        for segment in sorted(opened, key=lambda one: (-one.rows, one.path.name)):
            here = self.numbers.keys() & set(segment.names)
            if here - seen:
                self.segments.append(segment)
                seen |= here
            elif self.keep:
                discard(segment.path)

    def _segment(self, path: File) -> Segment | None:
        try:
            segment = Segment(path)
        except FileNotFoundError:
            raise  # merged meanwhile into one that was not listed
        except OSError as error:
            self.shelf.pass_over(path, error)
            return None
        except DamagedError:
            _damaged(self.shelf, path)
            return None
        self.stack.callback(segment.close)
        return segment

    def _read_new(self) -> None:
        """Read the heads of shards that no segment lists."""
        listed = {name for segment in self.segments for name in segment.names}
        names: list[str] = []
        parts: list[Entries] = []
        rows = 0
        new = {name: path for name, path in self.files.items() if name not in listed}
        for name, shard in zip(new, self.shelf.read_shards(new.values()), strict=True):
            if shard is None:
                continue
            parts.append(entries_of(shard, len(names)))
            names.append(name)
            rows += len(parts[-1])
            if rows >= TOGETHER_ROWS:
                self._take(names, parts)
                names, parts, rows = [], [], 0
        if names:
            self._take(names, parts)

    def _take(self, names: list[str], parts: list[Entries]) -> None:
        entries = in_order(parts)
        if not (self.keep and len(names) >= LEAST_SHARDS and self._write(names, [entries])):
            self.held.append((names, entries))

    def _write(self, names: list[str], parts: Iterable[Entries]) -> bool:
        """Write a segment and open it; whether that could be done, since the rows are found without it too."""
        name = f"{xxhash.xxh3_64_hexdigest(os.fsencode('/'.join(names)))}{index.SUFFIX}"
        try:
            path = self.shelf.write(name, lambda handle: handle.writelines(segment_parts(names, parts)))
        except (DataPrunerError, RowsMissingError):
            return False
        segment = self._segment(path)
        if segment is not None:
            self.segments.append(segment)
        return segment is not None

    def _merge(self) -> None:
        """Merge the smallest segments, as long as the next is not much larger than those before it together."""
        ordered = sorted(self.segments, key=lambda one: (one.rows, one.path.name))
        together, rows = ordered[:1], sum(one.rows for one in ordered[:1])
        for segment in ordered[1:]:
            if segment.rows > 2 * rows:
                break
            together.append(segment)
            rows += segment.rows
        if len(together) < 2:
            return
        names: dict[str, int] = {}
        numbers = []
        for segment in together:
            number = np.full(len(segment.names), -1, dtype=np.int64)
            for place, name in enumerate(segment.names):
                if name in self.files and name not in names:
                    number[place] = names[name] = len(names)
            numbers.append(number)
        if self._write(list(names), merged(together, numbers)):
            for segment in together:
                self.segments.remove(segment)
                if segment.path != self.segments[-1].path:
                    discard(segment.path)

    def find(self, keys: Keys) -> Found:
        """Look rows up."""
        shard = np.full(len(keys), -1, dtype=np.int32)
        row, length = np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.int64)
        wanted = Wanted.of(keys)
        sources: list[tuple[list[str], Segment | Entries]] = [
            *((segment.names, segment) for segment in self.segments),
            *self.held,
        ]
        for names, source in sources:
            number = np.array([self.numbers.get(name, -1) for name in names], dtype=np.int32)
            live = number >= 0
            hits = (
                source.search(wanted, live) if isinstance(source, Segment) else [search(source, wanted, live)]
            )
            for at, entries in hits:
                shard[at], row[at], length[at] = number[entries["shard"]], entries["row"], entries["length"]
            wanted = wanted.take(np.flatnonzero(shard[wanted.at] < 0))
        return Found(shard, row, length, self.files, [one.path for one in self.segments])


def _damaged(shelf: Shelf, path: File) -> None:
    """Say that a segment is not as it was written, and remove it."""
    shelf.remove(path)
    logger.warning("a stored index is damaged (%s): it is made again", safe_text(path.name))
