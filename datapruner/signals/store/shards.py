"""A shelf of the store: the folder of one context, where files are written, or aside where it is not ours."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import xxhash

from datapruner.errors import DataPrunerError
from datapruner.files.cache import FORBIDDEN, File, discard, is_ours, open_plain
from datapruner.files.objects import ObjectFolder
from datapruner.files.temporary import private_folder, whole_file
from datapruner.ragged import Ragged
from datapruner.signals.store.keys import Keys, canonical
from datapruner.signals.store.places import LocalPlace, ObjectPlace, each
from datapruner.signals.store.shard_format import (
    SUFFIX,
    WHOLE_SUFFIX,
    RowsMissingError,
    Shard,
    open_shard,
    shard_parts,
)
from datapruner.text import safe_text

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Rounds of computing what is missing; a second one is needed only where a shard vanishes under our hands."""

Folder = Path | ObjectFolder

ASIDE: dict[tuple[int, Folder], Path] = {}
"""By process and place: the folder of files that cannot lie there; it goes with the process."""
BARRED: set[Folder] = set()
"""Places that are not ours to write."""
TOLD: set[Folder] = set()
"""Caches of which it was said that they cannot be written."""


class Shelf:
    """The folder of one context: shards, their index, and copies in dataset order.

    Rows have ``width`` values each, or any number where that is None; then a shard and a copy hold the lengths too.

    Parameters
    ----------
    folder : Path
        On this machine.
    width : int, optional
    far : ObjectFolder, optional
        Where shards, index and leases lie instead; copies, which are mapped, lie in ``folder`` all the same.
    """

    def __init__(self, folder: Path, width: int | None, far: ObjectFolder | None = None) -> None:
        self.folder = folder
        self.copies = LocalPlace(folder, folder.parent.parent)
        self.place: LocalPlace | ObjectPlace = self.copies if far is None else ObjectPlace(far)
        self.width = width
        self.unreadable: set[File | Folder] = set()

    @classmethod
    def of(
        cls,
        folder: Path,
        context: Mapping[str, object],
        width: int | None,
        far: ObjectFolder | None = None,
    ) -> Shelf:
        """Give the shelf of a context and a width in a store's folder."""
        name = xxhash.xxh3_64_hexdigest(canonical(context))
        if width is not None:
            name += f"-{width}"
        return cls(folder / name, width, None if far is None else far / name)

    @property
    def is_far(self) -> bool:
        """Whether reading it takes requests."""
        return isinstance(self.place, ObjectPlace)

    def prepare(self, context: Mapping[str, object]) -> None:
        """Get ready to write, and clear the shelf of leftovers."""
        self.place.prepare(context)

    @property
    def places(self) -> list[Folder]:
        """Give the folders that files are looked for in."""
        own = dict.fromkeys([self.place.folder, self.folder])
        return [*own, *(ASIDE[key] for folder in own if (key := (os.getpid(), folder)) in ASIDE)]

    def write(
        self, name: str, fill: Callable[[IO[bytes]], None], place: LocalPlace | ObjectPlace | None = None
    ) -> File:
        """Write a file on the shelf, or aside where that is not ours to write or something lies in its place."""
        place = place or self.place
        path = place.file(name)
        if place.folder not in BARRED and path not in self.unreadable and is_ours(path):
            for _ in range(ATTEMPTS):
                try:
                    return place.put(name, fill)
                except FileNotFoundError:  # the cache has just been removed
                    continue
                except OSError as error:
                    if error.errno not in FORBIDDEN:
                        raise _unwritable(place.folder, error) from error
                    _bar(place, error)
                    break
            else:
                raise RowsMissingError
        aside = ASIDE.setdefault((os.getpid(), place.folder), private_folder())
        try:
            with whole_file(aside / name, 0o600) as handle:
                fill(handle)
        except FileNotFoundError:
            raise RowsMissingError from None
        except OSError as error:
            raise _unwritable(aside, error) from error
        return aside / name

    def write_shard(self, keys: Keys, values: list[Ragged]) -> None:
        """Write rows as one shard, under another name where its own is taken by something that is not ours."""
        parts = shard_parts(keys, values, self.width)
        name = xxhash.xxh3_64_hexdigest(keys.tobytes())
        path = self.place.file(f"{name}{SUFFIX}")
        if path in self.unreadable or not is_ours(path):
            name += f"-{secrets.token_hex(4)}"
        self.write(f"{name}{SUFFIX}", lambda handle: handle.writelines(parts))

    def files(self) -> dict[str, File]:
        """List what lies on the shelf and aside and can be read, by name; what lies aside counts."""
        found: dict[str, File] = {}
        for place in self.places:
            try:
                if isinstance(place, ObjectFolder):
                    found.update(place.files())
                    continue
                with os.scandir(place) as listed:
                    found.update({entry.name: place / entry.name for entry in listed})
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                self.pass_over(place, error)
        return {name: path for name, path in found.items() if path not in self.unreadable}

    def shards(self, files: Mapping[str, File] | None = None) -> dict[str, File]:
        """Give the shards among the files that lie there, by name, in its order."""
        listed = self.files() if files is None else files
        return {name: path for name, path in sorted(listed.items()) if path.suffix in (SUFFIX, WHOLE_SUFFIX)}

    def read_shards(self, paths: Iterable[File]) -> Iterator[Shard | None]:
        """Read the heads of shards; as :meth:`read_shard`."""
        return each(self.read_shard, paths, far=self.is_far)

    def read_shard(self, path: File) -> Shard | None:
        """Read a shard's head; None where it is gone, cannot be read, or is damaged, which is said."""
        try:
            with open_plain(path) as handle:
                shard = open_shard(handle, self.width)
        except FileNotFoundError:
            return None  # another run has just removed it
        except OSError as error:
            self.pass_over(path, error)
            return None
        if shard is None:
            self.damaged(path)
        return shard

    def remove(self, path: File) -> bool:
        """Remove a file, or where it is not ours to remove pass over it from now on; whether it is gone."""
        gone = discard(path)
        if not gone:
            self.unreadable.add(path)
        return gone

    def damaged(self, path: File) -> None:
        """Say that a shard is not as it was written, and remove it."""
        gone = self.remove(path)
        logger.warning(
            "a stored shard is damaged (%s): its rows are computed again%s",
            safe_text(path.name),
            "" if gone else "; it is not ours to remove, and stays",
        )

    def pass_over(self, path: File | Folder, error: OSError) -> None:
        """Say that what lies there cannot be read; it stays as it is."""
        if path not in self.unreadable:
            self.unreadable.add(path)
            logger.warning(
                "a file of the cache cannot be read (%s: %s): it stays, and what it should hold is made again",
                safe_text(str(path)),
                error.strerror or error,
            )


def _bar(place: LocalPlace | ObjectPlace, error: OSError) -> None:
    """Write no more there, and say so once a cache."""
    BARRED.add(place.folder)
    if place.root not in TOLD:
        TOLD.add(place.root)
        logger.warning(
            "the cache %s cannot be written (%s): what it lacks is computed and not kept; name another folder with "
            "DATAPRUNER_CACHE to keep it",
            safe_text(str(place.root)),
            error.strerror,
        )


def _unwritable(folder: Folder, error: OSError) -> DataPrunerError:
    return DataPrunerError(
        f"the cache {safe_text(str(folder))} cannot be written: {error.strerror or error}; free some space, or "
        "name another folder with DATAPRUNER_CACHE"
    )
