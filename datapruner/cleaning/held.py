"""Rows of another set, which are kept: what the rows of a source are compared with, and never dropped themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, overload

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.choices import Match
from datapruner.cleaning.rows import aside_hashes, numbered
from datapruner.cleaning.steps.exact import digests_of
from datapruner.matching import match_form

if TYPE_CHECKING:
    from datapruner.cleaning.own_text import OwnText
    from datapruner.samples.samples import Samples


@dataclass(frozen=True, eq=False)
class Texts(Sequence[str]):
    """The texts of a set's rows, each read when it is asked for."""

    samples: Samples

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.samples)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        """Read one row's text, or those of some."""
        rows = np.arange(len(self))[place]
        found = self.samples.texts("both", np.atleast_1d(rows))
        return found if isinstance(place, slice) else found[0]


def same_as_held(
    held: Iterable[str], count: int, keys: Iterable[str], rows: Ints, match: Match
) -> tuple[Ints, Ints]:
    """Find rows that say what a row of another set says.

    Parameters
    ----------
    held : iterable of str
        The keys of that set's rows, see :meth:`datapruner.samples.samples.Samples.iter_keys`.
    count : int
        How many there are.
    keys : iterable of str
        Those of ``rows``.
    rows : ndarray, int64
    match : {"text", "exact", "loose"}

    Returns
    -------
    found : ndarray, int64
        Places in ``rows``.
    others : ndarray, int64
        For each the first row of the other set that says the same.
    """
    theirs = digests_of(held, np.arange(count), match)
    unique, first = np.unique(theirs.view([("", theirs.dtype)] * 2).reshape(-1), return_index=True)
    mine = digests_of(keys, rows, match).view([("", theirs.dtype)] * 2).reshape(-1)
    if not unique.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    place = np.minimum(np.searchsorted(unique, mine), unique.size - 1)
    found = np.flatnonzero(unique[place] == mine)
    return found, first[place[found]].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Beside:
    """Two sets of rows, one after the other, as near duplicates are looked for.

    Attributes
    ----------
    held : Samples
        All of its rows come first.
    samples : Samples
    rows : ndarray, int64
        Of the second set, those that are looked at.
    own : OwnText
        Of the second set; the first is read in the same way.
    """

    held: Samples
    samples: Samples
    rows: Ints
    own: OwnText

    def texts(self) -> Iterator[str]:
        """Read all rows as they are compared."""
        return chain(self.own.of(self.held).texts("both"), self.own.texts("both", self.rows))

    def whole(self) -> Iterator[str] | None:
        """Read them with what is left out of them, where anything is."""
        if not self.own.leaves_out:
            return None
        return chain(self.own.of(self.held).turns("both"), self.own.turns("both", self.rows))

    def apart(self, match: Match) -> Ints | None:
        """Give rows a number for what they are besides their texts; None where all are their texts alone."""
        from xxhash import xxh3_64_intdigest

        first = aside_hashes(self.held, np.arange(len(self.held)), match)
        second = aside_hashes(self.samples, self.rows, match)
        if first is None and second is None:
            return None
        nothing = np.uint64(xxh3_64_intdigest(match_form("", match).encode()))
        first = np.full(len(self.held), nothing) if first is None else first
        second = np.full(len(self.rows), nothing) if second is None else second
        return numbered(np.concatenate([first, second]))

    @property
    def is_held(self) -> Flags:
        """Mark the rows of the first set."""
        return np.arange(len(self.held) + len(self.rows)) < len(self.held)
