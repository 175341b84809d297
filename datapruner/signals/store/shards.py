"""A shelf of the store: the folder of one context, where files are written, or aside where it is not ours."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import xxhash

from datapruner.errors import DataPrunerError
from datapruner.files.cache import (
    FORBIDDEN,
    discard,
    file_mode,
    is_ours,
    make_folder,
    open_plain,
    write_plain,
)
from datapruner.files.temporary import MARK, private_folder, sweep, whole_file
from datapruner.ragged import Ragged
from datapruner.signals.store.keys import Keys, canonical
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

ASIDE: dict[tuple[int, Path], Path] = {}
"""By process and shelf: the folder of files that cannot lie on the shelf; it goes with the process."""
BARRED: set[Path] = set()
"""Shelves that are not ours to write."""
TOLD: set[Path] = set()
"""Caches of which it was said that they cannot be written."""


class Shelf:
    """The folder of one context: shards, their index, and copies in dataset order.

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
    def places(self) -> list[Path]:
        """Give the folders that files are looked for in."""
        aside = ASIDE.get((os.getpid(), self.folder))
        return [self.folder] if aside is None else [self.folder, aside]

    def write(self, name: str, fill: Callable[[IO[bytes]], None]) -> Path:
        """Write a file on the shelf, or aside where the shelf is not ours to write or something lies in its place."""
        path = self.folder / name
        if self.folder not in BARRED and path not in self.unreadable and is_ours(path):
            for _ in range(ATTEMPTS):
                try:
                    make_folder(self.folder, self.root)
                    with whole_file(path, file_mode(self.root)) as handle:
                        fill(handle)
                    return path
                except FileNotFoundError:  # the cache has just been removed
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
            with whole_file(aside / name, 0o600) as handle:
                fill(handle)
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
        path = self.folder / f"{name}{SUFFIX}"
        if path in self.unreadable or not is_ours(path):
            name += f"-{secrets.token_hex(4)}"
        self.write(f"{name}{SUFFIX}", lambda handle: handle.writelines(parts))

    def files(self) -> dict[str, Path]:
        """List what lies on the shelf and aside and can be read, by name; what lies aside counts."""
        found = {}
        for place in self.places:
            try:
                with os.scandir(place) as listed:
                    found.update({entry.name: place / entry.name for entry in listed})
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                self.pass_over(place, error)
        return {name: path for name, path in found.items() if path not in self.unreadable}

    def shards(self, files: Mapping[str, Path] | None = None) -> dict[str, Path]:
        """Give the shards among the files that lie there, by name, in its order."""
        listed = self.files() if files is None else files
        return {name: path for name, path in sorted(listed.items()) if path.suffix in (SUFFIX, WHOLE_SUFFIX)}

    def read_shard(self, path: Path) -> Shard | None:
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

    def remove(self, path: Path) -> bool:
        """Remove a file, or where it is not ours to remove pass over it from now on; whether it is gone."""
        gone = discard(path)
        if not gone:
            self.unreadable.add(path)
        return gone

    def damaged(self, path: Path) -> None:
        """Say that a shard is not as it was written, and remove it."""
        gone = self.remove(path)
        logger.warning(
            "a stored shard is damaged (%s): its rows are computed again%s",
            safe_text(path.name),
            "" if gone else "; it is not ours to remove, and stays",
        )

    def pass_over(self, path: Path, error: OSError) -> None:
        """Say that what lies there cannot be read; it stays as it is."""
        if path not in self.unreadable:
            self.unreadable.add(path)
            logger.warning(
                "a file of the cache cannot be read (%s: %s): it stays, and what it should hold is made again",
                safe_text(str(path)),
                error.strerror or error,
            )


def _unwritable(folder: Path, error: OSError) -> DataPrunerError:
    return DataPrunerError(
        f"the cache {safe_text(str(folder))} cannot be written: {error.strerror or error}; free some space, or "
        "name another folder with DATAPRUNER_CACHE"
    )
