"""The upkeep of a store: what lies there, making it smaller, and reading all of it once.

A run may be at work meanwhile: it computes again what goes, and what a lease says is being computed stays.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.files.cache import (
    File,
    cache_at,
    discard,
    is_ours,
    keyed,
    open_plain,
    size_and_age,
)
from datapruner.guards.limits import size_of
from datapruner.signals.store import index
from datapruner.signals.store.claims import Claims
from datapruner.signals.store.copies import holds_copy
from datapruner.signals.store.leases import FOLDER
from datapruner.signals.store.places import CONTEXT, ObjectPlace, each
from datapruner.signals.store.shard_format import (
    HEADER_BYTES,
    MAGIC,
    SUFFIX,
    WHOLE_SUFFIX,
    DamagedError,
    open_shard,
)
from datapruner.signals.store.shards import Shelf
from datapruner.text import safe_text

logger = logging.getLogger(__name__)

Root = str | Path | None

LIMIT = "DATAPRUNER_CACHE_LIMIT"
SHARDS, COPIES = (SUFFIX, WHOLE_SUFFIX, index.SUFFIX), (".rows", ".sum")
_NAME = re.compile(r"[0-9a-f]{16}(?:-([0-9]{1,9}))?")
_MOST_CONTEXT = 1 << 20


@dataclass(frozen=True)
class Held:
    """A shelf, and what lies on it.

    Attributes
    ----------
    shelf : Shelf
    context : mapping
        What its rows were measured with.
    files : mapping
        Path -> bytes, of the shards and their index.
    copies : mapping
        Path -> bytes, of rows in a dataset's order, which the shards can make again.
    used : float
        When it was last written or read from, seconds since 1970.
    """

    shelf: Shelf
    context: dict[str, object]
    files: dict[File, int]
    copies: dict[File, int]
    used: float

    @property
    def bytes(self) -> int:
        """Of all of it."""
        return sum(self.files.values()) + sum(self.copies.values())

    @property
    def rows(self) -> int:
        """Rows that the shards say they hold; those that lie in several count in each."""
        shards = [path for path in self.files if path.suffix != index.SUFFIX]
        return sum(each(_rows, shards, far=self.shelf.is_far))

    @property
    def busy(self) -> bool:
        """Whether somebody computes rows of it."""
        return bool(Claims(self.shelf).others())


@dataclass
class Done:
    """What was, or would be, removed.

    Attributes
    ----------
    looked_at : int
        Files.
    removed : dict
        Path -> bytes.
    left : list of Path
        What should go, and is not ours to remove.
    """

    looked_at: int = 0
    removed: dict[File, int] = field(default_factory=dict)
    left: list[File] = field(default_factory=list)

    def remove(self, path: File, size: int, *, dry_run: bool) -> None:
        """Remove a file, or say that it would go."""
        if is_ours(path) if dry_run else discard(path):
            self.removed[path] = size
        else:
            self.left.append(path)

    @property
    def bytes(self) -> int:
        """Of what was removed."""
        return sum(self.removed.values())


def survey(root: Root = None) -> list[Held]:
    """List the shelves of a store, those used last first; of what else lies there nothing is touched.

    Parameters
    ----------
    root : str or Path, optional
        As :func:`cache_at` takes it.

    Raises
    ------
    DataPrunerError
        It cannot be listed.
    """
    cache = cache_at(root)
    folder = cache.folder / keyed("signals")
    names, far = set[str](), None
    try:
        names |= {one.name for one in folder.iterdir() if one.is_dir() and not one.is_symlink()}
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DataPrunerError(
            f"the store {safe_text(str(folder))} cannot be listed: {error.strerror}"
        ) from error
    if cache.far is not None:
        far = cache.far / keyed("signals")
        names |= {path.partition("/")[0] for path in far.tree() if "/" in path}
    found = []
    for name in sorted(names):
        if (named := _NAME.fullmatch(name)) is not None:
            width = None if named[1] is None else int(named[1])
            found.append(_held(Shelf(folder / name, width, None if far is None else far / name)))
    return sorted(found, key=lambda held: -held.used)


def prune(
    root: Root = None,
    *,
    to: int | None = None,
    unused_days: float | None = None,
    dry_run: bool = False,
) -> Done:
    """Make a store smaller: copies that shards can make again go first, then shelves, those used longest ago first.

    Parameters
    ----------
    root : str or Path, optional
        As :func:`cache_at` takes it.
    to : int, optional
        Bytes that may stay.
    unused_days : float, optional
        What nobody used for so long goes, however much room there is.
    dry_run : bool
        Only say what would go.
    """
    done = Done()
    held = sorted(survey(root), key=lambda one: one.used)
    idle = [one for one in held if not one.busy]
    limit = time.time() - 86400 * unused_days if unused_days is not None else None
    left = sum(one.bytes for one in held)
    done.looked_at = sum(len(one.files) + len(one.copies) for one in held)
    for copies in (True, False):
        for one in idle:
            if (limit is not None and one.used < limit) or (to is not None and left - done.bytes > to):
                for path, size in (one.copies if copies else one.files).items():
                    done.remove(path, size, dry_run=dry_run)
    if not dry_run:
        for one in idle:
            _tidy(one)
    return done


def limit_of() -> int | None:
    """Give the bytes that ``DATAPRUNER_CACHE_LIMIT`` lets stay after a run; None where it is not set.

    Raises
    ------
    DataPrunerError
        It says no size.
    """
    said = os.environ.get(LIMIT)
    return size_of(said, LIMIT) if said else None


def keep_within(root: Root = None) -> None:
    """Make a store smaller at the end of a run, where that is asked for."""
    limit = limit_of()
    if limit is None:
        return
    try:
        done = prune(root, to=limit)
    except DataPrunerError as error:  # the run has its result
        logger.warning("%s: nothing went: %s", LIMIT, error)
        return
    if done.removed:
        logger.info("%s: %s files of the cache went, used longest ago", LIMIT, f"{len(done.removed):,}")


def verify(root: Root = None, *, dry_run: bool = False) -> Done:
    """Read every file of a store, and remove what is not as it was written: the next run computes it again.

    Parameters
    ----------
    root : str or Path, optional
        As :func:`cache_at` takes it.
    dry_run : bool
        Only say what would go.
    """
    done = Done()
    for held in survey(root):
        for path, size in [*held.files.items(), *held.copies.items()]:
            if isinstance(path, Path) and path.suffix == ".sum" and path.with_suffix(".rows") in held.copies:
                continue  # read with what it belongs to
            done.looked_at += 1
            try:
                if _holds(held.shelf, path):
                    continue
            except FileNotFoundError:  # a run has just removed it
                if isinstance(path, Path) and path.is_symlink():
                    done.left.append(path)
                continue
            except OSError:
                done.left.append(path)
                continue
            done.remove(path, size, dry_run=dry_run)
            if isinstance(path, Path) and path.suffix == ".rows":
                done.remove(path.with_suffix(".sum"), 0, dry_run=dry_run)
    return done


def _held(shelf: Shelf) -> Held:
    files: dict[File, int] = {}
    copies: dict[File, int] = {}
    used = 0.0
    listed = shelf.files()
    for _, path in sorted(listed.items()):
        kind = files if path.suffix in SHARDS else copies if path.suffix in COPIES else None
        if kind is not None and path.parent in (shelf.folder, shelf.place.folder):
            with suppress(OSError):
                kind[path], written = size_and_age(path)
                used = max(used, written)
    context: object = {}
    said = listed.get(CONTEXT, shelf.folder / CONTEXT)
    with suppress(OSError, ValueError, RecursionError), open_plain(said) as handle:
        context = json.loads(handle.read(_MOST_CONTEXT))
    return Held(shelf, context if isinstance(context, dict) else {}, files, copies, used)


def _rows(path: File) -> int:
    """Give the rows that a shard's header names."""
    try:
        with open_plain(path) as handle:
            handle.readline(len(MAGIC))
            return max(int(json.loads(handle.readline(HEADER_BYTES))["rows"]), 0)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0


def _holds(shelf: Shelf, path: File) -> bool:
    """Whether a file is as it was written."""
    if path.suffix == index.SUFFIX:
        try:
            segment = index.Segment(path)
        except DamagedError:
            return False
        try:
            for first in range(0, len(segment.sizes), index.READ_BLOCKS):
                segment.blocks(first, min(first + index.READ_BLOCKS, len(segment.sizes)))
        except DamagedError:
            return False
        finally:
            segment.close()
        return True
    if path.suffix in SHARDS:
        with open_plain(path) as handle:
            try:
                shard = open_shard(handle, shelf.width)
                if shard is not None:
                    shard.take(handle, np.arange(len(shard.keys)))
            except DamagedError:
                return False
            return shard is not None
    if path.suffix == ".sum" or not isinstance(path, Path):
        return False  # of nothing
    return holds_copy(path)


def _tidy(held: Held) -> None:
    """Remove a shelf's folder where nothing is left on it but what says what lay there."""
    place = held.shelf.place
    if isinstance(place, ObjectPlace):
        left = place.folder.tree()
        if {name.partition("/")[0] for name in left} <= {CONTEXT, FOLDER}:
            for name in left:
                place.folder.discard(name)
    folder = held.shelf.folder
    with suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {CONTEXT, FOLDER}:
            with suppress(FileNotFoundError):
                (folder / FOLDER).rmdir()
            if discard(folder / CONTEXT):
                folder.rmdir()
