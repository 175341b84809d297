"""All signals under one folder: what is stored is found, what is missing is computed once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.files.cache import KEY, cache_at, keyed
from datapruner.files.notes import Notes
from datapruner.files.objects import ObjectFolder
from datapruner.ragged import Ragged
from datapruner.signals.store.copies import open_copy, write_copy
from datapruner.signals.store.finding import find
from datapruner.signals.store.keys import Keys, Kind
from datapruner.signals.store.rounds import Rounds, lacking
from datapruner.signals.store.shard_format import RaggedBatch, RowsMissingError
from datapruner.signals.store.shards import ATTEMPTS, Shelf

FLUSH_ROWS = 4096
FLUSH_SECONDS, FAR_FLUSH_SECONDS = 5.0, 30.0
"""On an object store, where every file costs requests, fewer and larger ones are put."""


UNKEYED: set[ObjectFolder] = set()
"""Stores of which it was said that their rows are not keyed."""

logger = logging.getLogger(__name__)

Batch = tuple[Ints, NDArray[np.float32]]
Compute = Callable[[Ints], Iterator[Batch]]


class SignalStore:
    """All signals under one folder; ask for the rows of one context with :meth:`fetch`.

    Parameters
    ----------
    folder : str or Path, optional
        Or an address such as ``s3://bucket/prefix``; default as :func:`cache_at` has it.
    flush_rows : int
        Rows that wait at most before they are written as a shard.
    flush_seconds : float, optional
        Seconds that they wait at most; default 5, on an object store 30.
    read_only : bool
        Notes are not written; whoever fetches rows writes all the same.

    Attributes
    ----------
    computed : int
        Rows that the last :meth:`fetch` had to compute.
    made : int
        Rows that all of them together had to compute.
    location : str
        What another process opens the same store with: a folder, or an address.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        flush_rows: int = FLUSH_ROWS,
        flush_seconds: float | None = None,
        read_only: bool = False,
    ) -> None:
        cache = cache_at(folder)
        if flush_seconds is None:
            flush_seconds = FLUSH_SECONDS if cache.far is None else FAR_FLUSH_SECONDS
        self.flush_rows, self.flush_seconds = flush_rows, flush_seconds
        self.location = str(cache.folder.absolute()) if cache.far is None else cache.far.url
        self.root = cache.folder
        self.folder = self.root / keyed("signals")
        self.far = None if cache.far is None else cache.far / keyed("signals")
        if cache.far is not None:
            _tell_unkeyed(cache.far)
        self.read_only = read_only
        self.computed = self.made = 0

    def fetch(
        self,
        keys: Keys,
        context: Mapping[str, object],
        width: int,
        compute: Compute,
        *,
        whole: bool = False,
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
            (positions int64 [m], values float32 [m, width]) in any order. It may be called several times, each
            for some of the rows, and closed before its end: where other runs compute rows of the same context, what
            is missing is shared among them.
        whole : bool
            All rows cost as much as one: ``compute`` is asked for all of them at once, or for none.

        Returns
        -------
        numpy.memmap, float32, shape (n, width)
            Read-only, in dataset order.

        Raises
        ------
        DataPrunerError
            ``compute`` leaves rows out or gives rows of another width, or the folder loses what is written.
        """
        found = self._fetch(keys, context, width, lambda rows: _evenly(compute(rows), width), whole=whole)
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

    def held_ragged(self, keys: Keys, context: Mapping[str, object]) -> Ragged | None:
        """Give what :meth:`fetch_ragged` would, where no record is missing; nothing is computed."""
        held = self.held_together([Kind(keys, context)])
        return None if held is None else held[0]

    def held_together(self, kinds: Sequence[Kind]) -> list[Ragged] | None:
        """Give what :meth:`fetch_together` would, where no record is missing; nothing is computed."""
        out = []
        for kind in kinds:
            shelf = self.shelf(kind)
            shelf.copies.tidy()  # a run that finds all there writes none, and would clear nothing
            found = open_copy(shelf, kind.name, len(kind.keys))
            if found is None:
                try:
                    found = write_copy(shelf, kind.name, kind.keys, find(shelf, kind.keys))
                except RowsMissingError:
                    return None
            out.append(found)
        self.computed = 0
        return out

    def missing(self, keys: Keys, context: Mapping[str, object], width: int | None) -> int:
        """Count the rows that :meth:`fetch` (without a width :meth:`fetch_ragged`) would compute; none is written."""
        return self.missing_together([Kind(keys, context, width)])

    def missing_together(self, kinds: Sequence[Kind]) -> int:
        """Count the rows that :meth:`fetch_together` would compute; none is written."""
        rows: set[int] = set()
        for kind in kinds:
            shelf = self.shelf(kind)
            if open_copy(shelf, kind.name, len(kind.keys)) is None:
                rows |= set(lacking(kind.keys, find(shelf, kind.keys, keep=False)).tolist())
        return len(rows)

    def shelf(self, kind: Kind) -> Shelf:
        """Give the shelf that records lie on."""
        return Shelf.of(self.folder, kind.context, kind.width, self.far)

    @property
    def notes(self) -> Notes:
        """Small facts beside the signals."""
        return Notes(self.root, read_only=self.read_only)

    def fetch_together(
        self,
        kinds: Sequence[Kind],
        compute: Callable[[Ints], Iterator[tuple[Ints, Sequence[Ragged]]]],
        beside: Sequence[Kind] = (),
        *,
        whole: bool = False,
    ) -> list[Ragged]:
        """Give the records of several kinds that one computation makes, computing the rows that lack one of them.

        Parameters
        ----------
        kinds : sequence of Kind
            Their keys are of the same rows.
        compute : callable
            As in :meth:`fetch_ragged`, but yields (positions, a :class:`Ragged` for each kind, and for each of
            ``beside``).
        beside : sequence of Kind
            Records that are found on the way, of whichever rows are computed: kept where they are not yet.
        whole : bool
            As in :meth:`fetch`.

        Returns
        -------
        list of Ragged, float32
            For each kind, in dataset order, memory-mapped and read-only.
        """
        every = [*kinds, *beside]
        shelves = [self.shelf(kind) for kind in every]
        for shelf, kind in zip(shelves, every, strict=True):
            shelf.prepare(kind.context)
        self.computed = 0
        out: dict[int, Ragged] = {}
        for number, kind in enumerate(kinds):
            if (held := open_copy(shelves[number], kind.name, len(kind.keys))) is not None:
                out[number] = held
        left = [number for number in range(len(kinds)) if number not in out]
        rounds = Rounds(shelves, every, left, (self.flush_rows, self.flush_seconds), whole=whole)
        for _ in range(ATTEMPTS):
            try:
                found = rounds.complete(compute, self._count)
                for number in left:
                    kind = kinds[number]
                    out[number] = write_copy(shelves[number], kind.name, kind.keys, found[number])
                return [out[number] for number in range(len(kinds))]
            except RowsMissingError:
                continue  # another run removed a damaged shard, or somebody the cache: that is computed again
        raise DataPrunerError(
            f"the cache {self.far or self.folder} does not hold what was written to it; name another folder with "
            "DATAPRUNER_CACHE"
        )

    def _count(self, rows: int) -> None:
        self.computed += rows
        self.made += rows

    def _fetch(
        self,
        keys: Keys,
        context: Mapping[str, object],
        width: int | None,
        compute: Callable[[Ints], Iterator[RaggedBatch]],
        *,
        whole: bool = False,
    ) -> Ragged:
        def together(rows: Ints) -> Iterator[tuple[Ints, Sequence[Ragged]]]:
            return ((at, [held]) for at, held in compute(rows))

        return self.fetch_together([Kind(keys, context, width)], together, whole=whole)[0]


def _tell_unkeyed(far: ObjectFolder) -> None:
    """Say once that what others can write is trusted."""
    if not os.environ.get(KEY) and far not in UNKEYED:
        UNKEYED.add(far)
        logger.warning(
            "the store %s is read without a key: whoever can write it can change what is computed from it; give all "
            "who share it the same secret with %s",
            far,
            KEY,
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
