"""A shelf of the store: the folder of one context, its shards, and copies of them in a dataset's order."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import xxhash

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.files.cache import (
    FORBIDDEN,
    discard,
    file_mode,
    hasher,
    is_ours,
    make_folder,
    open_plain,
    write_plain,
)
from datapruner.files.temporary import MARK, atomic_write, private_folder, sweep
from datapruner.ragged import Ragged, offsets_of
from datapruner.signals.store.keys import KEY_BYTES, Keys, canonical
from datapruner.signals.store.shard_format import (
    DIGEST_BYTES,
    Index,
    RowsMissingError,
    gather,
    read_shard,
    shard_parts,
)
from datapruner.text import safe_text

logger = logging.getLogger(__name__)

KEPT_COPIES = 4
ATTEMPTS = 3
"""Rounds of computing what is missing; a second one is needed only where a shard vanishes under our hands."""

ASIDE: dict[tuple[int, Path], Path] = {}
"""By process and shelf: the folder of files that cannot lie on the shelf; it goes with the process."""
BARRED: set[Path] = set()
"""Shelves that are not ours to write."""
TOLD: set[Path] = set()
"""Caches of which it was said that they cannot be written."""


class Shelf:
    """The folder of one context: shards, and compacted copies in dataset order.

    Rows have ``width`` values each, or any number where that is None; then a shard and a copy hold the lengths too.
    """

    def __init__(self, folder: Path, width: int | None) -> None:
        self.folder = folder
        self.root = folder.parent.parent
        self.width = width
        self.unreadable: set[Path] = set()

    @classmethod
    def of(cls, folder: Path, context: Mapping[str, object], width: int | None) -> Shelf:
        """Give the shelf of a context and a width in a store's folder."""
        name = xxhash.xxh3_64_hexdigest(canonical(context))
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
        aside = ASIDE.get((os.getpid(), self.folder))
        return [self.folder] if aside is None else [self.folder, aside]

    def _write(self, name: str, parts: Callable[[], Iterable[bytes]]) -> Path:
        """Write a file on the shelf, or aside where the shelf is not ours to write or something lies in its place."""
        path = self.folder / name
        if self.folder not in BARRED and path not in self.unreadable and is_ours(path):
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
                raise RowsMissingError
        aside = ASIDE.setdefault((os.getpid(), self.folder), private_folder())
        try:
            atomic_write(aside / name, parts())
        except FileNotFoundError:
            raise RowsMissingError from None
        except OSError as error:
            raise _unwritable(aside, error) from error
        return aside / name

    def _bar(self, error: OSError) -> None:
        BARRED.add(self.folder)
        if self.root not in TOLD:
            TOLD.add(self.root)
            logger.warning(
                "the cache %s cannot be written (%s): what it lacks is computed and not kept; name another folder with "
                "DATAPRUNER_CACHE to keep it",
                safe_text(str(self.root)),
                error.strerror,
            )

    def write_shard(self, keys: Keys, values: list[Ragged]) -> None:
        """Write rows as one shard, under another name where its own is taken by something that is not ours."""
        parts = shard_parts(keys, values, self.width)
        name = xxhash.xxh3_64_hexdigest(keys.tobytes())
        path = self.folder / f"{name}.shard"
        if path in self.unreadable or not is_ours(path):
            name += f"-{secrets.token_hex(4)}"
        self._write(f"{name}.shard", lambda: parts)

    def read_index(self) -> Index:
        """Read and verify every shard; one that fails its checksum is removed and said."""
        keys: list[Keys] = []
        lengths: list[Ints] = []
        files: list[tuple[Path, int, int]] = []
        for path in self.shards():
            try:
                read = read_shard(path, self.width)
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
            return Index(np.empty(0, f"S{KEY_BYTES}"), np.empty(0, np.int32), none, none, [])
        shard = np.repeat(np.arange(len(keys), dtype=np.int32), [len(k) for k in keys])
        start = np.concatenate([offsets_of(length)[:-1] for length in lengths])
        unique, first = np.unique(np.concatenate(keys), return_index=True)
        return Index(unique, shard[first], start[first], np.concatenate(lengths)[first], files)

    def shards(self) -> list[Path]:
        """Find the shards, on the shelf and aside."""
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

    def write_compact(self, name: str, keys: Keys, index: Index) -> Ragged:
        """Put rows together in the order of their keys, write them, and map what was written."""
        if not len(keys):
            return Ragged(np.empty(0, dtype=np.float32), np.zeros(1, dtype=np.int64))
        place = np.searchsorted(index.keys, keys)
        if not len(index.keys) or (index.keys[np.minimum(place, len(index.keys) - 1)] != keys).any():
            raise RowsMissingError
        shard, start, length = index.shard[place], index.start[place], index.length[place]
        digest = hasher()

        def blocks() -> Iterator[bytes]:
            if self.width is None:
                yield length.astype("<i8").tobytes()
            for first in range(0, len(keys), 8192):
                rows = slice(first, first + 8192)
                yield gather(index.files, shard[rows], start[rows], length[rows])

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
            raise RowsMissingError from None

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
        """Map rows that were put together before; None where they are not there, or not as written."""
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


def _unwritable(folder: Path, error: OSError) -> DataPrunerError:
    return DataPrunerError(
        f"the cache {safe_text(str(folder))} cannot be written: {error.strerror or error}; free some space, or "
        "name another folder with DATAPRUNER_CACHE"
    )
