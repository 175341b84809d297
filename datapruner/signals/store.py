"""Content-addressed store of what was measured: caching, resume, growth and sharing in one mechanism.

A row's key is the hash of what was fed to the model and of everything that decides the result (the
*context*: model identity, maximum length, pooling, dtype, shapes, code version). A context's records lie in
a folder of their own, and so do those of each width, so that none is ever read, or judged damaged, as one of
another shape. Rows are written in
shards as they are computed, each under a temporary name, synced and renamed, and closed by a checksum:
a run killed at any moment loses one unwritten shard at most. Afterwards the rows of a run are compacted
once into dataset order, so that millions of rows are read sequentially. Where the folder is not ours to write, what
it lacks is computed and laid aside for as long as the process lasts.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import xxhash
from numpy.typing import NDArray

from datapruner.cache import (
    FORBIDDEN,
    cache_folder,
    discard,
    file_mode,
    hasher,
    is_ours,
    keyed,
    make_folder,
    open_plain,
    write_plain,
)
from datapruner.errors import DataPrunerError
from datapruner.notes import Notes
from datapruner.ragged import Ragged, offsets_of
from datapruner.temporary import MARK, private_folder, sweep, whole_file
from datapruner.text import safe_text

logger = logging.getLogger(__name__)

MAGIC = b"datapruner-shard-1\n"
KEY_BYTES = 16
DIGEST_BYTES = 16
FLUSH_ROWS = 4096
FLUSH_SECONDS = 5.0
KEPT_COPIES = 4
ATTEMPTS = 3
"""Rounds of computing what is missing; a second one is needed only where a shard vanishes under our hands."""

_ASIDE: dict[tuple[int, Path], Path] = {}
"""By process and shelf: the folder of files that cannot lie on the shelf; it goes with the process."""
_BARRED: set[Path] = set()
"""Shelves that are not ours to write."""
_TOLD: set[Path] = set()

Keys = NDArray[np.bytes_]
"""Dtype S16: fixed-width bytes compare exactly (padding is part of the value) and numpy can sort them."""
Batch = tuple[NDArray[np.int64], NDArray[np.float32]]
Compute = Callable[[NDArray[np.int64]], Iterator[Batch]]
RaggedBatch = tuple[NDArray[np.int64], Ragged]


def row_keys(contents: Iterable[bytes], context: Mapping[str, object]) -> Keys:
    """Hash each row's content together with the context into a 16-byte key.

    Parameters
    ----------
    contents : iterable of bytes
        What is fed to the model for each row.
    context : mapping
        Everything else that decides the result; must be JSON.

    Returns
    -------
    ndarray of S16, shape (n,)
    """
    seed = xxhash.xxh3_64_intdigest(_canonical(context))
    digests = b"".join(xxhash.xxh3_128_digest(content, seed=seed) for content in contents)
    return np.frombuffer(digests, dtype=f"S{KEY_BYTES}")


class SignalStore:
    """All signals under one folder; ask for the rows of one context with :meth:`fetch`.

    Parameters
    ----------
    folder : Path, optional
        Default :func:`cache_folder`.

    Attributes
    ----------
    computed : int
        Rows that the last :meth:`fetch` had to compute.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.root = folder or cache_folder()
        self.folder = self.root / keyed("signals")
        self.computed = 0

    def fetch(
        self, keys: Keys, context: Mapping[str, object], width: int, compute: Compute
    ) -> NDArray[np.float32]:
        """Give one vector of the same length for every key, computing only those that are not stored.

        Parameters
        ----------
        keys : ndarray of S16, shape (n,)
            From :func:`row_keys`.
        context : mapping
            The context of the keys; names the subfolder, together with the width.
        width : int
            Length of a row's vector. Records of another width are others, whatever the context says.
        compute : callable
            Gets the positions (int64, ascending) of the first row of every missing key and yields
            (positions int64 [m], values float32 [m, width]) in any order.

        Returns
        -------
        numpy.memmap, float32, shape (n, width)
            Read-only, in dataset order.

        Raises
        ------
        DataPrunerError
            ``compute`` leaves rows out or gives rows of another width, or the folder loses what is written.
        """
        found = self._fetch(keys, context, width, lambda rows: _evenly(compute(rows), width))
        return found.values.reshape(len(keys), width)

    def fetch_ragged(
        self,
        keys: Keys,
        context: Mapping[str, object],
        compute: Callable[[NDArray[np.int64]], Iterator[RaggedBatch]],
    ) -> Ragged:
        """Give one record of any length for every key, computing only those that are not stored.

        Parameters
        ----------
        keys, context
            As in :meth:`fetch`.
        compute : callable
            As in :meth:`fetch`, but yields (positions int64 [m], float32 :class:`Ragged` of m rows).

        Returns
        -------
        Ragged, float32
            In dataset order, its values memory-mapped and read-only.
        """
        return self._fetch(keys, context, None, compute)

    def held_ragged(self, keys: Keys, context: Mapping[str, object]) -> Ragged | None:
        """Give what :meth:`fetch_ragged` would, where no record is missing; nothing is computed."""
        shelf = _Shelf.of(self.folder, context, None)
        name = xxhash.xxh3_128_hexdigest(keys.tobytes())
        found = shelf.open_compact(name, len(keys))
        if found is None:
            try:
                found = shelf.write_compact(name, keys, shelf.read_index())
            except _RowsMissingError:
                return None
        self.computed = 0
        return found

    @property
    def notes(self) -> Notes:
        """Small facts beside the signals."""
        return Notes(self.root)

    def _fetch(
        self,
        keys: Keys,
        context: Mapping[str, object],
        width: int | None,
        compute: Callable[[NDArray[np.int64]], Iterator[RaggedBatch]],
    ) -> Ragged:
        shelf = _Shelf.of(self.folder, context, width)
        shelf.prepare(context)
        self.computed = 0
        name = xxhash.xxh3_128_hexdigest(keys.tobytes())
        found = shelf.open_compact(name, len(keys))
        if found is not None:
            return found
        unique, first = np.unique(keys, return_index=True)
        for _ in range(ATTEMPTS):
            index = shelf.read_index()
            missing = np.sort(first[~np.isin(unique, index.keys)])
            try:
                if missing.size:
                    self.computed += int(missing.size)
                    shelf.add(keys, missing, compute(missing))
                    index = shelf.read_index()
                return shelf.write_compact(name, keys, index)
            except _RowsMissingError:
                continue  # another run removed a damaged shard, or somebody the cache: that is computed again
        raise DataPrunerError(
            f"the cache {self.folder} does not hold what was written to it; name another folder with "
            "DATAPRUNER_CACHE"
        )


def _evenly(batches: Iterator[Batch], width: int) -> Iterator[RaggedBatch]:
    """Take vectors of one length as rows of that length."""
    for positions, values in batches:
        if values.shape != (len(positions), width):
            raise DataPrunerError(
                f"an array of shape {values.shape} was computed for {len(positions)} rows; "
                f"{(len(positions), width)} was expected"
            )
        yield positions, Ragged(values.reshape(-1), np.arange(len(positions) + 1) * width)


class _RowsMissingError(Exception):
    """Not every row of a run is in the shards."""


@dataclass(frozen=True)
class _Index:
    """Where each stored row lies: keys ascending, with the shard, the start and the length of each.

    Shards are opened when they are read: a long run leaves thousands, more than a process may hold open.
    """

    keys: Keys
    shard: NDArray[np.int32]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    files: list[tuple[Path, int, int]]
    """Path, first byte of the values, number of values."""


class _Shelf:
    """The folder of one context: shards, and compacted copies in dataset order.

    Rows have ``width`` values each, or any number where that is None; then a shard and a copy hold the lengths too.
    """

    def __init__(self, folder: Path, width: int | None) -> None:
        self.folder = folder
        self.root = folder.parent.parent
        self.width = width
        self.unreadable: set[Path] = set()

    @classmethod
    def of(cls, folder: Path, context: Mapping[str, object], width: int | None) -> _Shelf:
        """Give the shelf of a context and a width in a store's folder."""
        name = xxhash.xxh3_64_hexdigest(_canonical(context))
        return cls(folder / (name if width is None else f"{name}-{width}"), width)

    def prepare(self, context: Mapping[str, object]) -> None:
        """Make the folder, and clear it of leftovers; where that fails, writing into it says so."""
        description = self.folder / "context.json"
        with suppress(OSError):
            make_folder(self.folder, self.root)
            if not os.path.lexists(description):
                write_plain(description, self.root, json.dumps(context, indent=1, sort_keys=True).encode())
            sweep(self.folder.glob(f"*{MARK}*"))

    @property
    def _places(self) -> list[Path]:
        """Give the folders that files are looked for in."""
        aside = _ASIDE.get((os.getpid(), self.folder))
        return [self.folder] if aside is None else [self.folder, aside]

    def _write(self, name: str, parts: Callable[[], Iterable[bytes]]) -> Path:
        """Write a file on the shelf, or aside where the shelf is not ours to write or something lies in its place."""
        path = self.folder / name
        if self.folder not in _BARRED and path not in self.unreadable and is_ours(path):
            for _ in range(ATTEMPTS):
                try:
                    make_folder(self.folder, self.root)
                    atomic_write(path, parts(), file_mode(self.root))
                    return path
                except FileNotFoundError:  # the cache has just been removed, or a shard that is copied from
                    continue
                except OSError as error:
                    if error.errno not in FORBIDDEN:
                        raise _unwritable(self.folder, error) from error
                    self._bar(error)
                    break
            else:
                raise _RowsMissingError
        aside = _ASIDE.setdefault((os.getpid(), self.folder), private_folder())
        try:
            atomic_write(aside / name, parts())
        except FileNotFoundError:
            raise _RowsMissingError from None
        except OSError as error:
            raise _unwritable(aside, error) from error
        return aside / name

    def _bar(self, error: OSError) -> None:
        _BARRED.add(self.folder)
        if self.root not in _TOLD:
            _TOLD.add(self.root)
            logger.warning(
                "the cache %s cannot be written (%s): what it lacks is computed and not kept; name another folder with "
                "DATAPRUNER_CACHE to keep it",
                safe_text(str(self.root)),
                error.strerror,
            )

    def add(self, keys: Keys, wanted: NDArray[np.int64], batches: Iterator[RaggedBatch]) -> None:
        """Write what is computed into shards of a few thousand rows, or what came in five seconds."""
        done = np.zeros(len(keys), dtype=np.bool_)
        positions: list[NDArray[np.int64]] = []
        values: list[Ragged] = []
        waiting, since = 0, time.monotonic()
        for position, value in batches:
            done[position] = True
            positions.append(position)
            values.append(value)
            waiting += position.size
            if waiting >= FLUSH_ROWS or time.monotonic() - since > FLUSH_SECONDS:
                self._write_shard(keys[np.concatenate(positions)], values)
                positions, values, waiting, since = [], [], 0, time.monotonic()
        if waiting:
            self._write_shard(keys[np.concatenate(positions)], values)
        if not done[wanted].all():
            row = int(wanted[np.argmin(done[wanted])])
            raise DataPrunerError(f"no value was computed for row {row}")

    def _write_shard(self, keys: Keys, values: list[Ragged]) -> None:
        header = MAGIC + json.dumps({"rows": len(keys), "width": self.width}).encode() + b"\n"
        digest = hasher()
        parts = [header, keys.tobytes()]
        if self.width is None:
            parts += [part.lengths.astype("<i8").tobytes() for part in values]
        parts += [np.ascontiguousarray(part.values, dtype="<f4").tobytes() for part in values]
        for part in parts:
            digest.update(part)
        name = xxhash.xxh3_64_hexdigest(keys.tobytes())
        path = self.folder / f"{name}.shard"
        if path in self.unreadable or not is_ours(path):
            name += f"-{secrets.token_hex(4)}"
        self._write(f"{name}.shard", lambda: [*parts, digest.digest()])

    def read_index(self) -> _Index:
        """Read and verify every shard; one that fails its checksum is removed and said."""
        keys: list[Keys] = []
        lengths: list[NDArray[np.int64]] = []
        files: list[tuple[Path, int, int]] = []
        for path in self._shards():
            try:
                read = self._read_shard(path)
            except FileNotFoundError:
                continue  # another run has just removed it
            except OSError as error:
                self._pass_over(path, error)
                continue
            if read is None:
                left = "" if discard(path) else "; it is not ours to remove, and stays"
                logger.warning(
                    "a stored shard is damaged (%s): its rows are computed again%s",
                    safe_text(path.name),
                    left,
                )
                continue
            keys.append(read[0])
            lengths.append(read[1])
            files.append((path, read[2], int(read[1].sum())))
        if not keys:
            none = np.empty(0, np.int64)
            return _Index(np.empty(0, f"S{KEY_BYTES}"), np.empty(0, np.int32), none, none, [])
        shard = np.repeat(np.arange(len(keys), dtype=np.int32), [len(k) for k in keys])
        start = np.concatenate([offsets_of(length)[:-1] for length in lengths])
        unique, first = np.unique(np.concatenate(keys), return_index=True)
        return _Index(unique, shard[first], start[first], np.concatenate(lengths)[first], files)

    def _shards(self) -> list[Path]:
        found = []
        for place in self._places:
            try:
                found += sorted(path for path in place.iterdir() if path.suffix == ".shard")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                self._pass_over(place, error)
        return found

    def _pass_over(self, path: Path, error: OSError) -> None:
        """Say that what lies there cannot be read; it stays as it is."""
        if path not in self.unreadable:
            self.unreadable.add(path)
            logger.warning(
                "a file of the cache cannot be read (%s: %s): it stays, and what it should hold is made again",
                safe_text(str(path)),
                error.strerror or error,
            )

    def _read_shard(self, path: Path) -> tuple[Keys, NDArray[np.int64], int] | None:
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
            rows, width = int(header["rows"]), header["width"]
        except (ValueError, KeyError, TypeError):
            return None
        middle = end + rows * KEY_BYTES
        if width != self.width or rows < 1 or len(body) < middle + (8 * rows if width is None else 0):
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

    def write_compact(self, name: str, keys: Keys, index: _Index) -> Ragged:
        if not len(keys):
            return Ragged(np.empty(0, dtype=np.float32), np.zeros(1, dtype=np.int64))
        place = np.searchsorted(index.keys, keys)
        if not len(index.keys) or (index.keys[np.minimum(place, len(index.keys) - 1)] != keys).any():
            raise _RowsMissingError
        shard, start, length = index.shard[place], index.start[place], index.length[place]
        digest = hasher()

        def blocks() -> Iterator[bytes]:
            if self.width is None:
                yield length.astype("<i8").tobytes()
            for first in range(0, len(keys), 8192):
                rows = slice(first, first + 8192)
                yield self._gather(index.files, shard[rows], start[rows], length[rows])

        def hashed() -> Iterator[bytes]:
            nonlocal digest
            digest = hasher(name.encode())
            for block in blocks():
                digest.update(block)
                yield block

        path = self._write(f"{name}.rows", hashed)
        try:
            self._write(f"{name}.sum", lambda: [digest.digest()])
            self._trim()
            with open_plain(path) as handle:
                return self._map_compact(handle, len(keys))
        except FileNotFoundError:
            raise _RowsMissingError from None

    def _gather(
        self,
        files: list[tuple[Path, int, int]],
        shard: NDArray[np.int32],
        start: NDArray[np.int64],
        length: NDArray[np.int64],
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
                        raise _RowsMissingError
        return block.tobytes()

    def _trim(self) -> None:
        """Keep the copies that were used last: each is as large as its dataset, and the shards can make it again."""
        copies = []
        with suppress(OSError):  # what is no folder, or one with too long a name
            for path in self.folder.glob("*.rows"):
                with suppress(OSError):  # another run trims too
                    copies.append((path.lstat().st_mtime_ns, path))
        for _, path in sorted(copies)[:-KEPT_COPIES]:
            if discard(path):
                discard(path.with_suffix(".sum"))

    def open_compact(self, name: str, rows: int) -> Ragged | None:
        for place in self._places:
            found = self._open_compact(place / f"{name}.rows", rows)
            if found is not None:
                return found
        return None

    def _open_compact(self, path: Path, rows: int) -> Ragged | None:
        digest, size = hasher(path.stem.encode()), 0
        check = path.with_suffix(".sum")
        try:
            with open_plain(check) as handle:
                expected = handle.read(DIGEST_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._pass_over(check, error)
            return None
        try:
            with open_plain(path) as handle:
                while chunk := handle.read(1 << 24):
                    digest.update(chunk)
                    size += len(chunk)
                fits = self.width is None or size == 4 * self.width * rows
                if fits and digest.digest() == expected:
                    with suppress(OSError):  # a folder that is only read
                        os.utime(path)
                    return self._map_compact(handle, rows)
        except FileNotFoundError:
            return None  # another run has just trimmed it
        except OSError as error:
            self._pass_over(path, error)
            return None
        logger.warning("stored rows are damaged (%s): they are put together again", path.name)
        if discard(path):
            discard(check)
        return None

    def _map_compact(self, handle: IO[bytes], rows: int) -> Ragged:
        handle.seek(0)
        if self.width is None:
            lengths = np.frombuffer(handle.read(8 * rows), dtype="<i8").astype(np.int64)
        else:
            lengths = np.full(rows, self.width, dtype=np.int64)
        offsets = offsets_of(lengths)
        head = 8 * rows if self.width is None else 0
        if not offsets[-1]:
            return Ragged(np.empty(0, dtype=np.float32), offsets)
        return Ragged(
            np.memmap(handle, dtype="<f4", mode="r", offset=head, shape=(int(offsets[-1]),)), offsets
        )


def atomic_write(path: Path, parts: Iterable[bytes], mode: int = 0o600) -> None:
    """Write a file under a temporary name, sync it, then rename it into place."""
    with whole_file(path, mode) as handle:
        for part in parts:
            handle.write(part)


def _canonical(context: Mapping[str, object]) -> bytes:
    return json.dumps(context, sort_keys=True).encode()


def _unwritable(folder: Path, error: OSError) -> DataPrunerError:
    return DataPrunerError(
        f"the cache {safe_text(str(folder))} cannot be written: {error.strerror or error}; free some space, or "
        "name another folder with DATAPRUNER_CACHE"
    )
