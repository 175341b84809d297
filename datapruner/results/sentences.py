"""The reasons of rows, by their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from datapruner.cleaning.vetoes import Vetoes


class Sentences(Sequence[str]):
    """Those of dropped rows, a sentence each, and then others.

    A sentence of a dropped row is made when it is asked for: held, those of millions of rows fill the memory.

    Parameters
    ----------
    dropped : sequence of Vetoes
    others : sequence of str, optional
    """

    def __init__(self, dropped: Sequence[Vetoes], others: Sequence[str] = ()) -> None:
        self._dropped, self._others = dropped, list(others)
        self._starts = np.cumsum([0, *map(len, dropped)])

    def __len__(self) -> int:
        """Count them."""
        return int(self._starts[-1]) + len(self._others)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Say one, or some."""
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        step = int(np.searchsorted(self._starts, number, side="right")) - 1
        within = number - int(self._starts[step])
        if step == len(self._dropped):
            return self._others[within]
        return f"dropped: {self._dropped[step].said(within)}"

    def __iter__(self) -> Iterator[str]:
        """Say one after the other."""
        for vetoes in self._dropped:
            yield from (f"dropped: {vetoes.said(place)}" for place in range(len(vetoes)))
        yield from self._others

    def __eq__(self, other: object) -> bool:
        """Whether a sequence says the same."""
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the first of them."""
        return f"<{len(self):,} reasons: {', '.join(map(repr, self[:3]))}{', ...' if len(self) > 3 else ''}>"

    def also(self, *others: str) -> Sentences:
        """Give them with more at their end."""
        return Sentences(self._dropped, [*self._others, *others])
