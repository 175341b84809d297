"""Content-addressed store of what was measured: caching, resume, growth and sharing in one mechanism.

A row's key is the hash of what was fed to the model and of everything that decides the result (the
*context*: model identity, maximum length, pooling, dtype, shapes, code version). Rows are written in
shards as they are computed, each under a temporary name, synced and renamed, and closed by a checksum:
a run killed at any moment loses one unwritten shard at most. Afterwards the rows of a run are compacted
once into dataset order, so that millions of rows are read sequentially.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

MAGIC = b"datapruner-shard-1\n"
KEY_BYTES = 16
DIGEST_BYTES = 16
FLUSH_ROWS = 4096
FLUSH_SECONDS = 5.0

Keys = NDArray[np.bytes_]
"""Dtype S16: fixed-width bytes compare exactly (padding is part of the value) and numpy can sort them."""
Batch = tuple[NDArray[np.int64], NDArray[np.float32]]
Compute = Callable[[NDArray[np.int64]], Iterator[Batch]]


def cache_folder() -> Path:
    """Where signals are kept: ``DATAPRUNER_CACHE``, else the user's cache folder."""
    named = os.environ.get("DATAPRUNER_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "datapruner"


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
        self.folder = (folder or cache_folder()) / "signals"
        self.computed = 0

    def fetch(
        self, keys: Keys, context: Mapping[str, object], width: int, compute: Compute
    ) -> NDArray[np.float32]:
        """Give one vector for every key, computing only those that are not stored.

        Parameters
        ----------
        keys : ndarray of S16, shape (n,)
            From :func:`row_keys`.
        context : mapping
            The context of the keys; names the subfolder.
        width : int
            Length of a row's vector.
        compute : callable
            Gets the positions (int64, ascending) of the first row of every missing key and yields
            (positions int64 [m], values float32 [m, width]) in any order.

        Returns
        -------
        numpy.memmap, float32, shape (n, width)
            Read-only, in dataset order.
        """
        shelf = _Shelf(self.folder / xxhash.xxh3_64_hexdigest(_canonical(context)), width)
        shelf.create(context)
        self.computed = 0
        name = xxhash.xxh3_128_hexdigest(keys.tobytes())
        found = shelf.open_compact(name)
        if found is not None:
            return found
        index = shelf.read_index()
        unique, first = np.unique(keys, return_index=True)
        missing = np.sort(first[~np.isin(unique, index.keys)])
        if missing.size:
            self.computed = int(missing.size)
            shelf.add(keys, compute(missing))
            index = shelf.read_index()
        return shelf.write_compact(name, keys, index)


@dataclass(frozen=True)
class _Index:
    """Where each stored row lies: keys ascending, with the shard and the offset of each."""

    keys: Keys
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    values: list[NDArray[np.float32]]


class _Shelf:
    """The folder of one context: shards, and compacted copies in dataset order."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self.width = width

    def create(self, context: Mapping[str, object]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        description = self.folder / "context.json"
        if not description.exists():
            atomic_write(description, [json.dumps(context, indent=1, sort_keys=True).encode()])
        for leftover in self.folder.glob("*.tmp-*"):
            if not _alive(leftover.name.rpartition("-")[2]):
                leftover.unlink(missing_ok=True)

    def add(self, keys: Keys, batches: Iterator[Batch]) -> None:
        """Write what is computed into shards of a few thousand rows, or what came in five seconds."""
        positions: list[NDArray[np.int64]] = []
        values: list[NDArray[np.float32]] = []
        waiting, since = 0, time.monotonic()
        for position, value in batches:
            positions.append(position)
            values.append(value)
            waiting += position.size
            if waiting >= FLUSH_ROWS or time.monotonic() - since > FLUSH_SECONDS:
                self._write_shard(keys[np.concatenate(positions)], np.concatenate(values))
                positions, values, waiting, since = [], [], 0, time.monotonic()
        if waiting:
            self._write_shard(keys[np.concatenate(positions)], np.concatenate(values))

    def _write_shard(self, keys: Keys, values: NDArray[np.float32]) -> None:
        header = MAGIC + json.dumps({"rows": len(keys), "width": self.width}).encode() + b"\n"
        body = np.ascontiguousarray(values, dtype="<f4")
        digest = xxhash.xxh3_128()
        parts = [header, keys.tobytes(), body.tobytes()]
        for part in parts:
            digest.update(part)
        name = xxhash.xxh3_64_hexdigest(keys.tobytes())
        atomic_write(self.folder / f"{name}.shard", [*parts, digest.digest()])

    def read_index(self) -> _Index:
        """Read and verify every shard; one that fails its checksum is removed and said."""
        keys: list[Keys] = []
        values: list[NDArray[np.float32]] = []
        for path in sorted(self.folder.glob("*.shard")):
            read = self._read_shard(path)
            if read is None:
                logger.warning("a stored shard is damaged (%s): its rows are computed again", path.name)
                path.unlink(missing_ok=True)
                continue
            keys.append(read[0])
            values.append(read[1])
        if not keys:
            return _Index(np.empty(0, f"S{KEY_BYTES}"), np.empty(0, np.int32), np.empty(0, np.int64), [])
        sizes = [len(k) for k in keys]
        shard = np.repeat(np.arange(len(keys), dtype=np.int32), sizes)
        offset = np.concatenate([np.arange(size, dtype=np.int64) for size in sizes])
        unique, first = np.unique(np.concatenate(keys), return_index=True)
        return _Index(unique, shard[first], offset[first], values)

    def _read_shard(self, path: Path) -> tuple[Keys, NDArray[np.float32]] | None:
        size = path.stat().st_size
        if size <= len(MAGIC) + DIGEST_BYTES:
            return None
        raw = np.memmap(path, dtype=np.uint8, mode="r")
        if xxhash.xxh3_128_digest(raw[:-DIGEST_BYTES].data) != raw[-DIGEST_BYTES:].tobytes():
            return None
        end = bytes(raw[:256]).index(b"\n", len(MAGIC)) + 1
        header = json.loads(bytes(raw[len(MAGIC) : end]))
        rows, width = int(header["rows"]), int(header["width"])
        if width != self.width:
            return None
        middle = end + rows * KEY_BYTES
        keys = np.frombuffer(raw[end:middle].tobytes(), dtype=f"S{KEY_BYTES}")
        values = np.memmap(path, dtype="<f4", mode="r", offset=middle, shape=(rows, width))
        return keys, values

    def write_compact(self, name: str, keys: Keys, index: _Index) -> NDArray[np.float32]:
        place = np.searchsorted(index.keys, keys)
        shard, offset = index.shard[place], index.offset[place]
        digest = xxhash.xxh3_128()

        def blocks() -> Iterator[bytes]:
            for start in range(0, len(keys), 8192):
                stop = min(start + 8192, len(keys))
                block = np.empty((stop - start, self.width), dtype="<f4")
                of = shard[start:stop]
                for number in np.unique(of):
                    here = of == number
                    block[here] = index.values[number][offset[start:stop][here]]
                data = block.tobytes()
                digest.update(data)
                yield data

        atomic_write(self.folder / f"{name}.rows", blocks())
        atomic_write(self.folder / f"{name}.sum", [digest.digest()])
        return self._map_compact(name, len(keys))

    def open_compact(self, name: str) -> NDArray[np.float32] | None:
        path, check = self.folder / f"{name}.rows", self.folder / f"{name}.sum"
        if not path.exists() or not check.exists():
            return None
        rows, rest = divmod(path.stat().st_size, 4 * self.width)
        digest = xxhash.xxh3_128()
        with path.open("rb") as handle:
            while chunk := handle.read(1 << 24):
                digest.update(chunk)
        if rest or digest.digest() != check.read_bytes():
            logger.warning("stored rows are damaged (%s): they are put together again", path.name)
            path.unlink(missing_ok=True)
            check.unlink(missing_ok=True)
            return None
        return self._map_compact(name, rows)

    def _map_compact(self, name: str, rows: int) -> NDArray[np.float32]:
        return np.memmap(self.folder / f"{name}.rows", dtype="<f4", mode="r", shape=(rows, self.width))


def atomic_write(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file under a temporary name, sync it, then rename it into place."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as handle:
            for part in parts:
                handle.write(part)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _canonical(context: Mapping[str, object]) -> bytes:
    return json.dumps(context, sort_keys=True).encode()


def _alive(pid: str) -> bool:
    """Tell whether a process runs, so that only a dead run's temporary files are cleared away."""
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
