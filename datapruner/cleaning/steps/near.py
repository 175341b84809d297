"""Rows that share most of their words with an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.arrays import Flags, Ints
from datapruner.choices import Match
from datapruner.cleaning.blanks import without_fillings
from datapruner.cleaning.crowd import Crowd
from datapruner.cleaning.grams import MULTIPLIER, hashed_ngrams
from datapruner.cleaning.minhash import band_keys, bands_for, permutations_of, shared_buckets
from datapruner.cleaning.near_search import Found, NearSearch
from datapruner.cleaning.rows import checked_rows, text_blocks
from datapruner.cleaning.shingles import Rarity, Sets
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.telling import tell_numbers
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.errors import DataPrunerError
from datapruner.files.spill import IN_MEMORY_BYTES, Spill
from datapruner.matching import nesting
from datapruner.reasons import Reason
from datapruner.words import numbers_of, words_of

if TYPE_CHECKING:
    from datapruner.recipe import Recipe

CROWDED = 64
"""Rows from which a bucket says little about its members."""
RARE = 0.6
"""Of 770 planted copies, edited in a word, in a sentence or put into another template, 765 are above; of the 73 natural
pairs of three sets 17 of the 35 that a reader called copies, and 3 of the 38 that she did not."""
NEAR = Reason(
    "near_duplicate",
    "near-duplicate of row {other} (Jaccard {measure:.2f})",
    "near duplicate",
    label="dropped as near duplicates",
    way_out="raise --near-threshold if these are different rows",
)


@dataclass(frozen=True)
class Near(CleaningStep):
    """Rows that share most of their words with an earlier one.

    See :func:`near_duplicates`.

    Attributes
    ----------
    threshold : float
        Jaccard similarity from which a row goes, in (0, 1].
    ngram : int
        Words a shingle.
    numbers : bool
        Rows of other numbers are kept apart.
    blanks : bool
        So are rows of one template that fill in its blanks otherwise, see
        :func:`~datapruner.cleaning.blanks.without_fillings`, and rows that are alike by what many rows have, see
        ``rare`` of :func:`near_duplicates`.
    match : {"text", "exact", "loose"}
        What counts as the same where rows are more than their texts.
    """

    name = "near"
    reasons = (NEAR,)
    order = 50
    switch = "--dedup"

    threshold: float = 0.7
    ngram: int = 3
    numbers: bool = False
    match: Match = "text"
    blanks: bool = False

    @classmethod
    def switched_on(cls, recipe: Recipe) -> Self | None:
        """Where ``dedup`` says so."""
        if "near" not in recipe.dedup:
            return None
        return cls(
            recipe.near_threshold, recipe.near_ngram, recipe.near_numbers, recipe.match, recipe.near_blanks
        )

    def clean(self, left: Remaining) -> Vetoes:
        """Compare the words of all turns but the system's, without what many rows share."""

        def fillings(found: Vetoes) -> Vetoes:
            return without_fillings(
                found, lambda rows: left.texts("both", rows), ngram=self.ngram, threshold=self.threshold
            )

        return near_duplicates(
            left.texts(),
            left.rows,
            threshold=self.threshold,
            ngram=self.ngram,
            seed=left.seed,
            protected=left.protected,
            numbers=self.numbers,
            apart=left.apart(self.match),
            whole=left.own.turns("both", left.rows) if left.own.leaves_out else None,
            rare=RARE if self.blanks else 0.0,
            taken_back=fillings if self.blanks else None,
        )

    def tell(self, left: Remaining, found: Vetoes) -> None:
        """Say how many differ in their numbers alone."""
        if not self.numbers:
            tell_numbers(left.samples, found)


def near_duplicates(
    texts: Iterable[str],
    rows: ArrayLike,
    *,
    threshold: float = 0.7,
    ngram: int = 3,
    num_perm: int = 128,
    seed: int = 0,
    protected: Flags | None = None,
    numbers: bool = False,
    apart: ArrayLike | None = None,
    whole: Iterable[str] | None = None,
    rare: float = 0.0,
    taken_back: Callable[[Vetoes], Vetoes] | None = None,
) -> Vetoes:
    """Drop a row when an earlier, kept row shares most of its word shingles.

    *Published*: MinHash (Broder 1997) in b bands of r values, so that a pair of Jaccard similarity s
    becomes a candidate with probability 1 - (1 - s^r)^b (Leskovec, Rajaraman, Ullman, chapter 3). Prefix
    and position filter (Bayardo, Ma, Srikant 2007; Xiao et al. 2008): two sets that similar share one of
    their few rarest members. *Ours*: r is the largest number of values a band for which that probability
    is at least 0.995 at the threshold; a bucket of more than 64 rows is a crowd, mostly of one template,
    and its rows are compared only where they share a rare shingle, which loses no pair; a candidate
    counts only when its **exact** Jaccard similarity reaches the threshold; rows are visited in source
    order and only kept rows suppress later ones; two texts of the same shingles that nest lines of code
    otherwise are no duplicates. Roles and tools are not seen. The permutations are datasketch's (scheme
    ``affine32``), applied to many rows at once.

    Parameters
    ----------
    texts
        One text for every entry of ``rows``, in that order; streamed.
    rows
        int64 [m], strictly ascending: the source rows that are still alive.
    threshold
        Jaccard similarity of the shingle sets, in (0, 1], from which a row is a duplicate.
    ngram
        Words a shingle. A text of fewer words is one shingle; a text without words has none and is
        never a near-duplicate. See :func:`~datapruner.words.words_of` for scripts without spaces.
    num_perm
        Values in a MinHash signature.
    seed
        Seed of the permutations.
    protected
        bool [n] by source position: rows that are always kept; they are visited first.
    numbers
        Rows whose numbers are not the same, in order, are no duplicates: who teaches arithmetic wants them all.
    apart
        int64 [m]: rows of different numbers are never duplicates, whatever their texts.
    whole
        The rows with what was left out of ``texts``, where something was: a pair must be as similar there, so
        that leaving out drops no row that would have stayed.
    rare
        Jaccard similarity that a pair must reach too when every shingle counts log(rows / rows that have it), in
        [0, 1] (*ours*): two requests under one long description are alike by what many rows have. A row that stays for
        it is held once more against the kept rows and the others of its kind.
    taken_back
        What is found -> what is left of it, before that.

    Returns
    -------
    Vetoes
        Kind ``near_duplicate``; other = the kept row of highest Jaccard similarity among the
        candidates (the lowest row number of equals), measure = that similarity.

    Notes
    -----
    Shingles and band keys beyond 128 MB each go to a temporary file: 1.1 GB for a million rows of 100 words. In
    memory stay some 40 bytes a row, and 12 bytes for each bucket that a row shares with another (some 25 of 32 where it
    has a near duplicate); for a row in a crowd up to 1.7 kB, where all that it does not share with the template
    is another's too, and 0.1 kB where nothing is. At the defaults one changed word in twenty is found, one in fifteen
    is not; a text below twenty words may be lost by a single change.

    Time is close to linear, for rows of one template too. What stays quadratic: many kept rows that a row
    resembles above the threshold, each of which is compared to find the nearest (a template that fills
    about 80 % of rows of several lengths), and own words from so small a choice that the rare shingles are
    not rare either (ten words). Figures: ``benchmarks/duplicates.md``.
    """
    _check(threshold, ngram, num_perm)
    alive = checked_rows(rows, protected)
    safe = np.zeros(alive.size, dtype=bool) if protected is None else protected[alive]
    if not alive.size:
        return drops(NEAR, alive)
    search = _prepared(texts, alive, safe, threshold, ngram, num_perm, seed, numbers, apart, whole)

    def vetoes_of(pairs: Found) -> Vetoes:
        return drops(NEAR, alive[pairs.rows], alive[pairs.others], pairs.measures)

    # Stable: protected rows first, each part in source order.
    found = vetoes_of(search.visit(np.argsort(~safe, kind="stable")))
    if taken_back is not None:
        found = taken_back(found)
    if rare <= 0:
        return found
    rarity = Rarity(search.sets, rare, np.flatnonzero(np.diff(search.buckets.begin)))
    places = [np.searchsorted(alive, of) for of in (found.rows, found.others)]
    weak = np.array([not rarity.holds(i, np.array([j]))[0] for i, j in zip(*places, strict=True)], np.bool_)
    again = vetoes_of(search.visit(np.sort(places[0][weak]), rarity))
    return drops(
        NEAR,
        np.concatenate([found.rows[~weak], again.rows]),
        np.concatenate([found.others[~weak], again.others]),
        np.concatenate([found.measures[~weak], again.measures]),
    )


def near_held(
    texts: Iterable[str],
    held: Flags,
    *,
    threshold: float = 0.7,
    ngram: int = 3,
    num_perm: int = 128,
    seed: int = 0,
    numbers: bool = False,
    apart: ArrayLike | None = None,
    whole: Iterable[str] | None = None,
) -> Found:
    """Find rows that are near duplicates of rows of another set, as :func:`near_duplicates` finds those of one set.

    Parameters
    ----------
    texts, apart, whole
        Of all rows of both sets.
    held : ndarray, bool
        Which of them are the other set's: they are compared with none, and no other row is compared with.
    threshold, ngram, num_perm, seed, numbers
        As for :func:`near_duplicates`.

    Returns
    -------
    found : ndarray, int64
        Places of rows that are near duplicates.
    others : ndarray, int64
        Of each the place of the other set's row that it is most like.
    measures : ndarray, float64
        Their Jaccard similarities.
    """
    _check(threshold, ngram, num_perm)
    every = np.arange(held.size)
    search = _prepared(texts, every, held, threshold, ngram, num_perm, seed, numbers, apart, whole)
    search.visit(every[held])
    return search.visit(every[~held], keeping=False)


def _check(threshold: float, ngram: int, num_perm: int) -> None:
    """Refuse what has no meaning."""
    if not 0 < threshold <= 1:
        raise DataPrunerError(f"The near-duplicate threshold must lie in (0, 1], not {threshold}.")
    if ngram < 1 or num_perm < 1:
        raise DataPrunerError(f"ngram and num_perm must be at least 1, not {ngram} and {num_perm}.")


def _prepared(
    texts: Iterable[str],
    alive: Ints,
    safe: Flags,
    threshold: float,
    ngram: int,
    num_perm: int,
    seed: int,
    numbers: bool,
    apart: ArrayLike | None,
    whole: Iterable[str] | None,
) -> NearSearch:
    """Read the texts, and find out which rows have to be compared."""
    kinds = None if apart is None else np.asarray(apart)
    bands, values = bands_for(threshold, num_perm)
    permutations = permutations_of(num_perm, seed)[:, : bands * values]
    hashes, counts, keys, (nested, counted) = _shingled(
        texts, alive, ngram, permutations, bands, numbers, kinds
    )
    starts = np.concatenate([[0], np.cumsum(counts)])
    second = None if whole is None else Sets.read(whole, alive, ngram)
    buckets = shared_buckets((band[:] for band in keys), counts > 0)
    del keys
    sets = Sets(hashes, starts)
    large = buckets.sizes > CROWDED
    in_crowd = buckets.rows_in(large)
    crowd = Crowd.build(hashes, starts, np.flatnonzero(in_crowd), threshold) if in_crowd.any() else None
    return NearSearch(sets, second, threshold, buckets, large, in_crowd, crowd, safe, nested, counted)


def _shingled(
    texts: Iterable[str],
    alive: Ints,
    ngram: int,
    permutations: NDArray[np.uint32],
    bands: int,
    numbers: bool,
    kinds: Ints | None,
) -> tuple[Spill, Ints, list[Spill], Ints]:
    """Read the texts once: their shingles, how many each has, the keys of every band and the marks [2, m]."""
    shingles, lengths = Spill(np.uint64), [np.empty(0, np.int64)]
    keys = [Spill(np.uint64, IN_MEMORY_BYTES // bands) for _ in range(bands)]
    marks = np.zeros((2, alive.size), dtype=np.int64)
    done = 0
    for block, _ in text_blocks(texts, alive):
        here = slice(done, done + len(block))
        hashes, counts = hashed_ngrams([words_of(text) for text in block], ngram)
        hashes = hashes if kinds is None else _told_apart(hashes, counts, kinds[here])
        for band, found in zip(keys, band_keys(hashes, counts, permutations, bands).T, strict=True):
            band.append(found)
        marks[:, here] = _marks(block, numbers)
        shingles.append(hashes)
        lengths.append(counts)
        done += len(block)
    return shingles, np.concatenate(lengths), keys, marks


def _told_apart(hashes: NDArray[np.uint64], counts: Ints, kinds: Ints) -> NDArray[np.uint64]:
    """Give rows of different kinds different shingles, so that they never meet; ascending inside a row as before."""
    owner = np.repeat(np.arange(counts.size), counts)
    mixed = hashes ^ (kinds.astype(np.uint64) * MULTIPLIER)[owner]
    return mixed[np.lexsort((mixed, owner))]


def _marks(texts: Sequence[str], numbers: bool) -> list[list[int]]:
    """Hash how the lines of every text are nested, and its numbers if those count; 0 where there are none."""
    return [
        [_hash_of(nesting(text)) for text in texts],
        [_hash_of(numbers_of(text)) if numbers else 0 for text in texts],
    ]


def _hash_of(parts: tuple[object, ...]) -> int:
    from xxhash import xxh3_64_intdigest

    return xxh3_64_intdigest(repr(parts).encode()) - 2**63 if parts else 0
