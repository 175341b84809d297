"""All signals under one folder: what is stored is found, what is missing is computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.files.cache import cache_folder, keyed
from datapruner.files.notes import Notes
from datapruner.ragged import Ragged
from datapruner.signals.store.keys import Keys
from datapruner.signals.store.shard_format import RaggedBatch, RowsMissingError
from datapruner.signals.store.shards import ATTEMPTS, Shelf, Unwritten

FLUSH_ROWS = 4096
FLUSH_SECONDS = 5.0

Batch = tuple[Ints, NDArray[np.float32]]
Compute = Callable[[Ints], Iterator[Batch]]


class SignalStore:
    """All signals under one folder; ask for the rows of one context with :meth:`fetch`.

    Parameters
    ----------
    folder : Path, optional
        Default :func:`cache_folder`.
    flush_rows : int
        Rows that wait at most before they are written as a shard.
    flush_seconds : float
        Seconds that they wait at most.
    read_only : bool
        Notes are not written; whoever fetches rows writes all the same.

    Attributes
    ----------
    computed : int
        Rows that the last :meth:`fetch` had to compute.
    made : int
        Rows that all of them together had to compute.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        flush_rows: int = FLUSH_ROWS,
        flush_seconds: float = FLUSH_SECONDS,
        read_only: bool = False,
    ) -> None:
        self.flush_rows, self.flush_seconds = flush_rows, flush_seconds
        self.root = folder or cache_folder()
        self.folder = self.root / keyed("signals")
        self.read_only = read_only
        self.computed = self.made = 0

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
        compute: Callable[[Ints], Iterator[RaggedBatch]],
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

    def beside(self, keys: Keys, context: Mapping[str, object]) -> Unwritten:
        """Take records that are found on the way to others; :meth:`fetch_ragged` finds them then.

        Whoever puts them flushes what is returned at the end.
        """
        shelf = Shelf.of(self.folder, context, None)
        shelf.prepare(context)
        return Unwritten(shelf, keys, self.flush_rows, self.flush_seconds)

    def held_ragged(self, keys: Keys, context: Mapping[str, object]) -> Ragged | None:
        """Give what :meth:`fetch_ragged` would, where no record is missing; nothing is computed."""
        shelf = Shelf.of(self.folder, context, None)
        name = xxhash.xxh3_128_hexdigest(keys.tobytes())
        found = shelf.open_compact(name, len(keys))
        if found is None:
            try:
                found = shelf.write_compact(name, keys, shelf.read_index())
            except RowsMissingError:
                return None
        self.computed = 0
        return found

    def missing(self, keys: Keys, context: Mapping[str, object], width: int | None) -> int:
        """Count the rows that :meth:`fetch` (without a width :meth:`fetch_ragged`) would compute; none is written."""
        shelf = Shelf.of(self.folder, context, width)
        if shelf.open_compact(xxhash.xxh3_128_hexdigest(keys.tobytes()), len(keys)) is not None:
            return 0
        return int((~np.isin(np.unique(keys), shelf.read_index().keys)).sum())

    @property
    def notes(self) -> Notes:
        """Small facts beside the signals."""
        return Notes(self.root, read_only=self.read_only)

    def _fetch(
        self,
        keys: Keys,
        context: Mapping[str, object],
        width: int | None,
        compute: Callable[[Ints], Iterator[RaggedBatch]],
    ) -> Ragged:
        shelf = Shelf.of(self.folder, context, width)
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
                    self.made += int(missing.size)
                    shelf.add(keys, missing, compute(missing), self.flush_rows, self.flush_seconds)
                    index = shelf.read_index()
                return shelf.write_compact(name, keys, index)
            except RowsMissingError:
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
