"""Rows whose text was seen before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.arrays import Flags, Ints
from datapruner.choices import Match
from datapruner.cleaning.rows import checked_rows, text_blocks
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.matching import match_form
from datapruner.reasons import Reason

if TYPE_CHECKING:
    from datapruner.recipe import Recipe

EXACT = Reason(
    "exact_duplicate",
    "exact duplicate of row {other}",
    "exact duplicate",
    label="dropped as exact duplicates",
)


@dataclass(frozen=True)
class Exact(CleaningStep):
    """Copies: rows that agree in roles, turns, texts and tools.

    See :func:`exact_duplicates`.

    Attributes
    ----------
    match : {"text", "exact", "loose"}
        What counts as the same text.
    """

    name = "exact"
    reasons = (EXACT,)
    order = 40
    switch = "--dedup"

    match: Match = "text"

    @classmethod
    def switched_on(cls, recipe: Recipe) -> Self | None:
        """Where ``dedup`` says so."""
        return cls(recipe.match) if "exact" in recipe.dedup else None

    def clean(self, left: Remaining) -> Vetoes:
        """Drop all but the first of rows that say the same."""
        return exact_duplicates(left.samples.iter_keys(left.rows), left.rows, left.protected, self.match)


def exact_duplicates(
    texts: Iterable[str],
    rows: ArrayLike,
    protected: Flags | None = None,
    match: Match = "text",
) -> Vetoes:
    """Drop every row whose text was seen before; the first row stays.

    What counts as the same text is ours: see :func:`~datapruner.matching.match_form`. A conversation is passed
    as :meth:`Sample.key`, which tells roles, turns and tools apart. Texts are compared by their 128-bit xxh3
    hash, 16 bytes a row.

    Parameters
    ----------
    texts
        One text for every entry of ``rows``, in that order; streamed.
    rows
        int64 [m], strictly ascending: the source rows that are still alive.
    protected
        bool [n] by source position: rows that are always kept. A protected row is never vetoed and
        wins over an unprotected one; two protected copies both stay.
    match
        ``exact``: byte for byte; ``text``: but for white space and Unicode form, where indentation counts in
        code; ``loose``: but for case and punctuation too.

    Returns
    -------
    Vetoes
        Kind ``exact_duplicate``, measure 1.0.
    """
    alive = checked_rows(rows, protected)
    digests = digests_of(texts, alive, match)
    safe = np.zeros(alive.size, dtype=bool) if protected is None else protected[alive]
    # Copies become neighbours, the protected ones first, each part in source order: the head is kept.
    order = np.lexsort((~safe, digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    head = np.ones(alive.size, dtype=bool)
    head[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    keeper = np.empty_like(order)
    keeper[order] = order[np.flatnonzero(head)[np.cumsum(head) - 1]]
    dropped = np.flatnonzero((keeper != np.arange(alive.size)) & ~safe)
    return drops(EXACT, alive[dropped], alive[keeper[dropped]], np.ones(dropped.size))


def digests_of(texts: Iterable[str], rows: Ints, match: Match) -> NDArray[np.uint64]:
    """Hash texts, of which two that count as the same have the same: uint64 (m, 2)."""
    from xxhash import xxh3_128_digest

    digests = np.empty((rows.size, 2), dtype=np.uint64)
    done = 0
    for block, _ in text_blocks(texts, rows):
        packed = b"".join(
            xxh3_128_digest(match_form(text, match).encode("utf-8", "surrogatepass")) for text in block
        )
        digests[done : done + len(block)] = np.frombuffer(packed, dtype=np.uint64).reshape(-1, 2)
        done += len(block)
    return digests
