"""The concept consistency graph: a row that brings two known concepts together for the first time is in conflict."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

Pair = tuple[int, int]


class ConceptGraph:
    """Concepts of accepted rows as vertices, with an edge between every two that met in one.

    *Published* (PASER, arXiv 2502.12594): a row is in conflict when two concepts of it that are already vertices have
    no edge between them; new concepts, and known ones that met before, are never in conflict. *Ours*: the pair is
    named, the first in the row's order.

    Concepts are numbers in [0, 2^32).
    """

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._edges: set[int] = set()

    def conflict(self, ids: Iterable[int]) -> Pair | None:
        """Find two known concepts that never met.

        Parameters
        ----------
        ids : iterable of int
            A row's concepts; repeated ones count once. An int64 array is fastest as ``.tolist()``.

        Returns
        -------
        (int, int) or None
            The first such pair in the row's order: its earlier concept is the earliest that has one, its later one
            the earliest for that. None for a row of one concept or none.
        """
        known = [concept for concept in _distinct(ids) if concept in self._known]
        for one, other in combinations(known, 2):
            if _edge(one, other) not in self._edges:
                return one, other
        return None

    def add(self, ids: Iterable[int]) -> None:
        """Make vertices of an accepted row's concepts, and edges of all its pairs.

        Parameters
        ----------
        ids : iterable of int
            As in :meth:`conflict`.
        """
        concepts = _distinct(ids)
        self._known.update(concepts)
        self._edges.update(_edge(one, other) for one, other in combinations(concepts, 2))


def _distinct(ids: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(int(concept) for concept in ids))


def _edge(one: int, other: int) -> int:
    """Pack a pair into one number, whichever comes first."""
    return one << 32 | other if one < other else other << 32 | one
