"""Rounds of computing what is missing: one, unless other runs compute rows of the same context at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.signals.store.claims import Claims
from datapruner.signals.store.filling import Filling
from datapruner.signals.store.finding import Found, find
from datapruner.signals.store.keys import Keys, Kind
from datapruner.signals.store.shard_format import RowsMissingError
from datapruner.signals.store.shards import Shelf

Compute = Callable[[Ints], Iterator[tuple[Ints, Sequence[Ragged]]]]


class Rounds:
    """Computes rows of several kinds until none is missing.

    Parameters
    ----------
    shelves : sequence of Shelf
    kinds : sequence of Kind
        What lies on them.
    wanted : list of int
        Numbers of those that must be complete; of the others, what comes is kept.
    flush : tuple
        Rows, and seconds, that wait at most before they are written.
    whole : bool
        All rows cost as much as one.
    """

    def __init__(
        self,
        shelves: Sequence[Shelf],
        kinds: Sequence[Kind],
        wanted: list[int],
        flush: tuple[int, float],
        *,
        whole: bool,
    ) -> None:
        self.shelves, self.kinds, self.wanted, self.flush, self.whole = shelves, kinds, wanted, flush, whole

    def complete(self, compute: Compute, count: Callable[[int], None]) -> dict[int, Found]:
        """Compute what is missing, and give where the rows of each wanted kind lie.

        Raises
        ------
        RowsMissingError
            What was written is not there.
        """
        found = self._found()
        missing = self._missing(found)
        if not missing.size:
            return found
        keys = self.kinds[0].keys
        tried = np.zeros(len(keys), dtype=np.bool_)
        with Claims(self.shelves[0], whole=self.whole) as claims:
            while missing.size:
                if tried[missing].any():
                    raise RowsMissingError
                ours = missing[claims.claim(keys[missing])]
                if not ours.size:
                    claims.wait(keys[missing])
                else:
                    if self._grew(found):  # others may have written some of them before they gave them up
                        found = self._found()
                        ours = np.intersect1d(ours, self._missing(found))
                    if ours.size:
                        tried[self._compute(compute, ours, found, claims, count)] = True
                found = self._found()
                missing = self._missing(found)
        return found

    def _found(self) -> dict[int, Found]:
        return {number: find(self.shelves[number], self.kinds[number].keys) for number in self.wanted}

    def _missing(self, found: dict[int, Found]) -> Ints:
        """Give the rows that lack one of the kinds; ascending."""
        each = [lacking(self.kinds[number].keys, found[number]) for number in self.wanted]
        return np.unique(np.concatenate([*each, np.empty(0, np.int64)]))

    def _grew(self, found: dict[int, Found]) -> bool:
        return any(
            self.shelves[number].shards().keys() != found[number].files.keys() for number in self.wanted
        )

    def _compute(
        self,
        compute: Compute,
        ours: Ints,
        found: dict[int, Found],
        claims: Claims,
        count: Callable[[int], None],
    ) -> Ints:
        """Compute rows, all of them or until others ask for a share; give those that came."""
        filled: dict[int, Filling] = {}
        for number, kind in enumerate(self.kinds):
            there = found[number] if number in found else find(self.shelves[number], kind.keys)
            rows = (
                np.intersect1d(lacking(kind.keys, there), ours)
                if number in found
                else lacking(kind.keys, there)
            )
            filled[number] = Filling(self.shelves[number], kind.keys, rows, *self.flush)
        came = np.zeros(len(self.kinds[0].keys), dtype=np.bool_)
        work, shared = compute(ours), False
        try:
            for positions, records in work:
                for number, filling in filled.items():
                    filling.put(positions, records[number])
                came[positions] = True
                if shared := claims.came(len(positions)):
                    break
        except Exception:  # a row on which the model fails: those before it are kept
            with suppress(DataPrunerError, RowsMissingError):
                for filling in filled.values():
                    filling.write()
            raise
        if shared and (close := getattr(work, "close", None)) is not None:
            close()
        for number, filling in filled.items():
            filling.write()
            if number in found and not shared:
                filling.check()
        done = ours[came[ours]]
        count(len(done))
        return done


def lacking(keys: Keys, found: Found) -> Ints:
    """Give the position of the first row of every key that is not stored; ascending."""
    missing = found.missing
    first = np.unique(keys[missing], return_index=True)[1]
    return np.sort(missing[first]).astype(np.int64)
