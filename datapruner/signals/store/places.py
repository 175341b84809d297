"""Where the files of a shelf lie: in a folder on a disk, or on an object store."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from datapruner.files.cache import file_mode, make_folder, write_plain
from datapruner.files.objects import ObjectFile, ObjectFolder
from datapruner.files.temporary import MARK, sweep, whole_file

T = TypeVar("T")
R = TypeVar("R")

CONTEXT = "context.json"
AT_ONCE = 16
"""Requests that are under way together."""


class LocalPlace:
    """A folder of the cache.

    Parameters
    ----------
    folder : Path
    root : Path
        Of the cache: it says who may read what is written.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root

    def prepare(self, context: Mapping[str, object]) -> None:
        """Make the folder, and clear it of leftovers; where that fails, writing into it says so."""
        description = self.folder / CONTEXT
        with suppress(OSError):
            make_folder(self.folder, self.root)
            if not os.path.lexists(description):
                write_plain(description, self.root, described(context))
            self.tidy()

    def tidy(self) -> None:
        """Remove what a run left here that died as it wrote."""
        with suppress(OSError):
            sweep(self.folder.glob(f"*{MARK}*"))

    def file(self, name: str) -> Path:
        """Give the place of a file."""
        return self.folder / name

    def put(self, name: str, fill: Callable[[IO[bytes]], None]) -> Path:
        """Write a file whole, in place of what lies there under its name."""
        path = self.folder / name
        make_folder(self.folder, self.root)
        with whole_file(path, file_mode(self.root)) as handle:
            fill(handle)
        return path


class ObjectPlace:
    """A folder of an object store, which there is as soon as a file is put into it.

    Parameters
    ----------
    folder : ObjectFolder
    """

    def __init__(self, folder: ObjectFolder) -> None:
        self.folder = folder
        self.root = folder.parent.parent
        self.context: bytes | None = None

    def prepare(self, context: Mapping[str, object]) -> None:
        """Note what is said beside the first file that is put."""
        self.context = described(context)

    def file(self, name: str) -> ObjectFile:
        """Give the place of a file."""
        return ObjectFile(self.folder, name)

    def put(self, name: str, fill: Callable[[IO[bytes]], None]) -> ObjectFile:
        """Put a file whole, in place of what lies there under its name."""
        if self.context is not None:
            self.folder.put_bytes(CONTEXT, self.context)
            self.context = None
        return self.folder.put(name, fill)


def described(context: Mapping[str, object]) -> bytes:
    """Give the bytes of the file that says what a shelf's rows were measured with."""
    return json.dumps(context, indent=1, sort_keys=True).encode()


def each(do: Callable[[T], R], items: Iterable[T], *, far: bool, at_once: int = AT_ONCE) -> Iterator[R]:
    """Do something with each of some items, in their order; on an object store with several at a time, ahead."""
    if not far:
        yield from map(do, items)
        return
    with ThreadPoolExecutor(at_once) as pool:
        running: deque[Future[R]] = deque()
        try:
            for item in items:
                running.append(pool.submit(do, item))
                if len(running) >= at_once:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
