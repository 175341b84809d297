"""Exact, textual and semantic duplicates: three steps, cheapest first, each with its own evidence.

A sentence embedder does not see a one-word change and word shingles do not see a paraphrase, so
neither step replaces the other. Every function takes the rows that are still alive and returns
:class:`~datapruner.selection.vetoes.Vetoes`; row numbers are positions in the source dataset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.errors import DataPrunerError
from datapruner.matching import Match, match_form, nesting
from datapruner.selection.grams import MULTIPLIER, hashed_ngrams
from datapruner.selection.vetoes import Vetoes
from datapruner.words import numbers_of, words_of

_BLOCK_ROWS = 4096
# Probability that the bands find a pair lying exactly at the threshold; above it, it only rises.
_BAND_RECALL = 0.995
# Rows from which a bucket says little about its members.
_CROWD = 64
# Postings of a rare shingle that are read in the time of one candidate's verification.
_CHEAPER = 20


def exact_duplicates(
    texts: Iterable[str],
    rows: ArrayLike,
    protected: NDArray[np.bool_] | None = None,
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
    from xxhash import xxh3_128_digest

    alive = checked_rows(rows, protected)
    digests = np.empty((alive.size, 2), dtype=np.uint64)
    done = 0
    for block, _ in text_blocks(texts, alive):
        packed = b"".join(
            xxh3_128_digest(match_form(text, match).encode("utf-8", "surrogatepass")) for text in block
        )
        digests[done : done + len(block)] = np.frombuffer(packed, dtype=np.uint64).reshape(-1, 2)
        done += len(block)
    safe = np.zeros(alive.size, dtype=bool) if protected is None else protected[alive]
    # Copies become neighbours, the protected ones first, each part in source order: the head is kept.
    order = np.lexsort((~safe, digests[:, 1], digests[:, 0]))
    ordered = digests[order]
    head = np.ones(alive.size, dtype=bool)
    head[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    keeper = np.empty_like(order)
    keeper[order] = order[np.flatnonzero(head)[np.cumsum(head) - 1]]
    dropped = np.flatnonzero((keeper != np.arange(alive.size)) & ~safe)
    return Vetoes(
        kind="exact_duplicate",
        rows=alive[dropped],
        others=alive[keeper[dropped]],
        measures=np.ones(dropped.size),
        template="exact duplicate of row {other}",
    )


def near_duplicates(
    texts: Iterable[str],
    rows: ArrayLike,
    *,
    threshold: float = 0.7,
    ngram: int = 3,
    num_perm: int = 128,
    seed: int = 0,
    protected: NDArray[np.bool_] | None = None,
    numbers: bool = False,
    apart: ArrayLike | None = None,
    whole: Iterable[str] | None = None,
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

    Returns
    -------
    Vetoes
        Kind ``near_duplicate``; other = the kept row of highest Jaccard similarity among the
        candidates (the lowest row number of equals), measure = that similarity.

    Notes
    -----
    Memory for a million rows of 100 words: 0.8 GB of shingles (uint64), twice that while they are joined,
    and 0.4 GB of band keys and bucket numbers; were all of them in crowds, some 4 GB more (extrapolated). At the
    defaults one changed word in twenty is found, one in fifteen is not; a text below twenty words may be
    lost by a single change.

    Time is close to linear, for rows of one template too. What stays quadratic: many kept rows that a row
    resembles above the threshold, each of which is compared to find the nearest (a template that fills
    about 80 % of rows of several lengths), and own words from so small a choice that the rare shingles are
    not rare either (ten words). Figures: ``benchmarks/duplicates.md``.
    """
    if not 0 < threshold <= 1:
        raise DataPrunerError(f"The near-duplicate threshold must lie in (0, 1], not {threshold}.")
    if ngram < 1 or num_perm < 1:
        raise DataPrunerError(f"ngram and num_perm must be at least 1, not {ngram} and {num_perm}.")
    alive = checked_rows(rows, protected)
    kinds = None if apart is None else np.asarray(apart)
    bands, values = _bands(threshold, num_perm)
    permutations = _permutations(num_perm, seed)[:, : bands * values]

    hashes, counts, keys, (nested, counted) = _shingled(
        texts, alive, ngram, permutations, bands, numbers, kinds
    )
    if not alive.size:
        return _vetoes("near_duplicate", [], _NEAR)
    starts = np.concatenate([[0], np.cumsum(counts)])
    second = None if whole is None else _Sets.read(whole, alive, ngram)
    buckets = _shared_buckets(keys, counts > 0)
    del keys
    safe = np.zeros(alive.size, dtype=bool) if protected is None else protected[alive]
    # Stable: protected rows first, each part in source order.
    order = np.argsort(~safe, kind="stable")

    sizes = np.bincount(buckets[buckets >= 0])
    large = np.append(sizes > _CROWD, False)  # the last entry answers for bucket -1
    in_crowd: NDArray[np.bool_] = np.asarray(large[buckets].any(axis=1))
    crowd = _Crowd.build(hashes, starts, np.flatnonzero(in_crowd), threshold) if in_crowd.any() else None
    kept_in: dict[int, list[int]] = {}
    kept = np.zeros(alive.size, dtype=bool)
    dropped: list[tuple[int, int, float]] = []
    for i in order.tolist():
        mine = buckets[i][buckets[i] >= 0].tolist()
        if not safe[i]:
            groups = [kept_in[bucket] for bucket in mine if bucket in kept_in]
            if crowd is not None and in_crowd[i] and crowd.work[i] < _CHEAPER * sum(map(len, groups)):
                # Small buckets still hold the partners outside the crowd.
                groups = [kept_in[b] for b in mine if b in kept_in and not large[b]]
                found = {j for group in groups for j in group if not in_crowd[j]}
                found.update(crowd.candidates(i, kept))
            else:
                found = set().union(*groups)
            candidates = np.array(sorted(found), dtype=np.int64)
            candidates = candidates[counted[candidates] == counted[i]]
            if candidates.size:
                other, jaccard = _closest(i, candidates, _Sets(hashes, starts), threshold, nested, second)
                if jaccard >= threshold:
                    dropped.append((int(alive[i]), int(alive[other]), jaccard))
                    continue
        kept[i] = True
        for bucket in mine:
            kept_in.setdefault(bucket, []).append(i)
    return _vetoes("near_duplicate", dropped, _NEAR)


def semantic_duplicates(
    embeddings: Any,
    assignment: ArrayLike,
    centroids: ArrayLike,
    rows: ArrayLike,
    *,
    eps: float = 0.05,
    keep_rule: Literal["kept", "any"] = "kept",
    block_size: int = 2048,
    protected: NDArray[np.bool_] | None = None,
    apart: ArrayLike | None = None,
) -> Vetoes:
    """Drop a row whose embedding lies within ``eps`` of an earlier one in the same cluster (SemDeDup).

    *Published* (Abbas et al. 2023, arXiv 2303.09540, Algorithm 1): inside each k-means cluster visit
    the items by descending cosine distance to the centroid; drop item j when
    max_{i before j} cos(x_i, x_j) > 1 - eps. In the official code dropped items suppress later ones
    too: ``keep_rule="any"``. *Ours*: by default only **kept** items suppress, so that a chain of small
    steps does not vanish whole; equal distances break by row number; protected rows come first.

    Parameters
    ----------
    embeddings
        Array-like [n, d], any float dtype, a ``np.memmap`` too; read as ``embeddings[source_rows]``.
        Need not have unit length; a zero vector is no duplicate of anything.
    assignment
        int64 [n]: cluster of every source row, -1 where it has none (such a row is never dropped).
    centroids
        float [k, d]; need not have unit length.
    rows
        int64 [m], strictly ascending: the source rows that are still alive.
    eps
        Cosine distance in (0, 2] below which an item is a duplicate.
    keep_rule
        ``"kept"`` or ``"any"``, see above. Under ``"any"`` the row that is named may be dropped itself.
    block_size
        Rows a side of a block of similarities.
    protected
        bool [n] by source position: rows that are always kept.
    apart
        int64 [m]: rows of different numbers are never duplicates, whatever their vectors.

    Returns
    -------
    Vetoes
        Kind ``semantic_duplicate``; other = the suppressing row of largest cosine, measure = the cosine.

    Notes
    -----
    Memory: one cluster's vectors (float32 [m_c, d]) and one block of similarities, never m_c x m_c.
    """
    if not 0 < eps <= 2:
        raise DataPrunerError(f"The semantic-duplicate eps must lie in (0, 2], not {eps}.")
    if keep_rule not in ("kept", "any"):
        raise DataPrunerError(f"keep_rule must be 'kept' or 'any', not {keep_rule!r}.")
    if block_size < 1:
        raise DataPrunerError(f"block_size must be at least 1, not {block_size}.")
    alive = checked_rows(rows, protected)
    clusters = np.asarray(assignment)
    centres = _unit(np.asarray(centroids))
    if alive.size and (clusters.shape != (len(embeddings),) or alive[-1] >= clusters.size):
        raise DataPrunerError(
            f"There are {len(embeddings)} embeddings and {clusters.size} cluster assignments "
            f"for rows up to {alive[-1]}; each source row needs one of both."
        )
    cluster = clusters[alive]
    if alive.size and cluster.max() >= len(centres):
        raise DataPrunerError(f"Cluster {cluster.max()} has no centroid; there are {len(centres)}.")

    # One stable sort instead of a scan of all rows for every cluster.
    kinds = np.zeros_like(cluster) if apart is None else np.asarray(apart)
    by_cluster = np.lexsort((kinds, cluster))
    dropped: list[tuple[int, int, float]] = []
    differs = (np.diff(cluster[by_cluster]) != 0) | (np.diff(kinds[by_cluster]) != 0)
    edges = np.flatnonzero(differs) + 1
    for members in np.split(by_cluster, edges):
        if members.size < 2 or cluster[members[0]] < 0:
            continue
        source = alive[members]
        vectors = _unit(np.asarray(embeddings[source]))
        if not np.isfinite(vectors).all():
            bad = source[~np.isfinite(vectors).all(axis=1)][0]
            raise DataPrunerError(f"The embedding of row {bad} is not finite; embed it again or remove it.")
        safe = np.zeros(members.size, dtype=bool) if protected is None else protected[source]
        # A sum along each row, not a matrix product: identical rows then get identical distances.
        distance = 1 - (vectors * centres[cluster[members[0]]]).sum(axis=1)
        order = np.lexsort((source, -distance, ~safe))
        dropped += _suppressed(
            vectors[order],
            source[order],
            safe[order],
            limit=1 - eps,
            keep_rule=keep_rule,
            block_size=block_size,
        )
    return _vetoes("semantic_duplicate", dropped, "semantic duplicate of row {other} (cosine {measure:.3f})")


def text_blocks(
    texts: Iterable[str], rows: NDArray[np.int64], size: int = _BLOCK_ROWS
) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
    """Yield the texts in blocks with their source rows; refuse a missing, a spare or a non-text entry."""
    stream = iter(texts)
    for start in range(0, rows.size, size):
        block_rows = rows[start : start + size]
        block = list(islice(stream, block_rows.size))
        if len(block) < block_rows.size:
            raise DataPrunerError(
                f"There are {start + len(block)} texts for {rows.size} rows; give one each."
            )
        for text, row in zip(block, block_rows, strict=True):
            if not isinstance(text, str):
                raise DataPrunerError(f"Row {row} holds {type(text).__name__} where a text is needed.")
        yield block, block_rows
    if next(stream, None) is not None:
        raise DataPrunerError(f"There are more texts than the {rows.size} rows; give one a row.")


def _told_apart(
    hashes: NDArray[np.uint64], counts: NDArray[np.int64], kinds: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Give rows of different kinds different shingles, so that they never meet; ascending inside a row as before."""
    owner = np.repeat(np.arange(counts.size), counts)
    mixed = hashes ^ (kinds.astype(np.uint64) * MULTIPLIER)[owner]
    return mixed[np.lexsort((mixed, owner))]


_NEAR = "near-duplicate of row {other} (Jaccard {measure:.2f})"


def _shingled(
    texts: Iterable[str],
    alive: NDArray[np.int64],
    ngram: int,
    permutations: NDArray[np.uint32],
    bands: int,
    numbers: bool,
    kinds: NDArray[np.int64] | None,
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """Read the texts once: their shingles, how many each has, their band keys and their marks [2, m]."""
    shingles, lengths = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    keys = np.zeros((alive.size, bands), dtype=np.uint64)
    marks = np.zeros((2, alive.size), dtype=np.int64)
    done = 0
    for block, _ in text_blocks(texts, alive):
        here = slice(done, done + len(block))
        hashes, counts = hashed_ngrams([words_of(text) for text in block], ngram)
        hashes = hashes if kinds is None else _told_apart(hashes, counts, kinds[here])
        keys[here] = _band_keys(hashes, counts, permutations, bands)
        marks[:, here] = _marks(block, numbers)
        shingles.append(hashes)
        lengths.append(counts)
        done += len(block)
    return np.concatenate(shingles), np.concatenate(lengths), keys, marks


def _marks(texts: Sequence[str], numbers: bool) -> list[list[int]]:
    """Hash how the lines of every text are nested, and its numbers if those count; 0 where there are none."""
    return [
        [_hash_of(nesting(text)) for text in texts],
        [_hash_of(numbers_of(text)) if numbers else 0 for text in texts],
    ]


def _hash_of(parts: tuple[object, ...]) -> int:
    from xxhash import xxh3_64_intdigest

    return xxh3_64_intdigest(repr(parts).encode()) - 2**63 if parts else 0


def _bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Return (bands, values a band): the most selective pair that still finds the threshold."""
    for values in range(num_perm, 1, -1):
        bands = num_perm // values
        if 1 - (1 - threshold**values) ** bands >= _BAND_RECALL:
            return bands, values
    return num_perm, 1


def _permutations(num_perm: int, seed: int) -> NDArray[np.uint32]:
    """Return datasketch's permutations a * h + b modulo 2^32: uint32 [2, num_perm]."""
    from datasketch import MinHash

    sketch = MinHash(num_perm=num_perm, seed=seed, scheme="affine32")
    return np.asarray(sketch.permutations, dtype=np.uint32)


def _signatures(
    hashes: NDArray[np.uint64], counts: NDArray[np.int64], permutations: NDArray[np.uint32]
) -> NDArray[np.uint32]:
    """MinHash of every row with at least one shingle: uint32 [rows with shingles, permutations]."""
    # datasketch mixes a 32-bit hash with Murmur's finalizer first; the upper half of ours is that hash.
    mixed = (hashes >> np.uint64(32)).astype(np.uint32)
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(multiplier)
    mixed ^= mixed >> np.uint32(16)
    filled = counts[counts > 0]
    starts = np.cumsum(filled) - filled
    signatures = np.empty((filled.size, permutations.shape[1]), dtype=np.uint32)
    # One permutation over all rows of the block at a time stays in cache.
    for k, (a, b) in enumerate(permutations.T):
        signatures[:, k] = np.minimum.reduceat(mixed * a + b, starts)
    return signatures


def _band_keys(
    hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    permutations: NDArray[np.uint32],
    bands: int,
) -> NDArray[np.uint64]:
    """Fold each band of the signatures to one key: uint64 [rows, bands]; zeros for a row without shingles."""
    keys = np.zeros((counts.size, bands), dtype=np.uint64)
    if hashes.size:
        signatures = _signatures(hashes, counts, permutations).astype(np.uint64)
        folded = np.ones((signatures.shape[0], bands), dtype=np.uint64)
        for value in np.moveaxis(signatures.reshape(signatures.shape[0], bands, -1), 2, 0):
            folded = (folded ^ (folded >> np.uint64(29))) * MULTIPLIER + value
        keys[counts > 0] = folded
    return keys


def _shared_buckets(keys: NDArray[np.uint64], filled: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Give every bucket of two or more rows a number: int32 [rows, bands], -1 where a row is alone.

    Most rows are alone in most bands, so the Python dictionaries that follow stay small.
    """
    buckets = np.full(keys.shape, -1, dtype=np.int32)
    members = np.flatnonzero(filled)
    used = 0
    for band in range(keys.shape[1]):
        _, bucket, sizes = np.unique(keys[members, band], return_inverse=True, return_counts=True)
        number = np.where(sizes > 1, np.cumsum(sizes > 1) - 1 + used, -1)
        used += int(np.count_nonzero(sizes > 1))
        buckets[members, band] = number[bucket]
    return buckets


@dataclass(frozen=True)
class _Crowd:
    """Which rows share a rare shingle early enough: prefix and position filter over crowded rows.

    Let a row's shingles be sorted by how many rows have them, the rarest first, and let the first one that
    x and y share stand at place p in x and q in y. Then J(x, y) >= t needs |x| - p and |y| - q to be at least
    t / (1 + t) (|x| + |y|), that is |y| - (1 + t) q >= t |x| and the reverse; so p <= |x| - t |x|. Rows that
    share a template and nothing rarer meet only if the template alone makes them duplicates.

    Parameters
    ----------
    begin
        int64 [n + 1]: where each row's entries start; an entry is a shingle of a row's prefix that
        another row has too.
    first, stop
        int64 [entries]: the postings that an entry reads.
    owner
        int64 [entries]: rows by shingle, those with the largest |y| - (1 + t) q first.
    work
        int64 [n]: postings that :meth:`candidates` reads for each row.
    """

    begin: NDArray[np.int64]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    owner: NDArray[np.int64]
    work: NDArray[np.int64]

    @classmethod
    def build(
        cls, hashes: NDArray[np.uint64], starts: NDArray[np.int64], rows: NDArray[np.int64], threshold: float
    ) -> _Crowd:
        """Index the prefixes of ``rows``."""
        sizes = starts[rows + 1] - starts[rows]
        _, inverse, frequency = np.unique(
            hashes[_ragged(starts[rows], sizes)], return_inverse=True, return_counts=True
        )
        row = np.repeat(np.arange(rows.size), sizes)
        token = inverse[np.lexsort((inverse, frequency[inverse], row))]
        del inverse
        place = _ragged(np.zeros(rows.size, dtype=np.int64), sizes)
        # A margin for rounding lengthens a prefix now and then, and never shortens it.
        used = (place <= (sizes * (1 - threshold) + 1e-6)[row]) & (frequency[token] > 1)
        token, row, place = token[used], row[used], place[used]
        # Whole numbers, rounded to the safe side, so that one sorted key holds shingle and reach.
        reach = np.floor(sizes[row] - (1 + threshold) * place).astype(np.int64) + 1
        needed = np.floor(threshold * sizes).astype(np.int64)[row]
        span = int(sizes.max(initial=0)) + 2
        key = (token + 1) * span - reach
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.searchsorted(key, token * span)
        stop = np.searchsorted(key, (token + 1) * span - needed, side="right")
        begin = np.zeros(starts.size, dtype=np.int64)
        begin[rows + 1] = np.bincount(row, minlength=rows.size)
        work = np.zeros(starts.size - 1, dtype=np.int64)
        work[rows] = np.bincount(row, weights=np.maximum(stop - first, 0), minlength=rows.size)
        return cls(np.cumsum(begin), first, np.maximum(stop, first), rows[row[order]], work)

    def candidates(self, i: int, kept: NDArray[np.bool_]) -> list[int]:
        """Return the kept rows that share an early shingle with row ``i``."""
        mine = slice(self.begin[i], self.begin[i + 1])
        first = self.first[mine]
        others = self.owner[_ragged(first, self.stop[mine] - first)]
        return list(map(int, np.unique(others[kept[others]])))


def _ragged(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return starts[0], starts[0] + 1, ... for every start, one range after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if ends.size else 0) + np.repeat(starts - ends + lengths, lengths)


class _Sets(NamedTuple):
    """The shingles of all rows, ascending inside a row, and where each row starts."""

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]

    @classmethod
    def read(cls, texts: Iterable[str], alive: NDArray[np.int64], ngram: int) -> _Sets:
        blocks = [
            hashed_ngrams([words_of(text) for text in block], ngram) for block, _ in text_blocks(texts, alive)
        ]
        hashes = np.concatenate([np.empty(0, np.uint64), *(found for found, _ in blocks)])
        return cls(
            hashes,
            np.concatenate([[0], np.cumsum(np.concatenate([[], *(n for _, n in blocks)]))]).astype(np.int64),
        )

    def similarity(self, i: int, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Jaccard similarity of row ``i`` to each candidate, all of which have shingles."""
        mine = self.hashes[self.starts[i] : self.starts[i + 1]]
        sizes = self.starts[candidates + 1] - self.starts[candidates]
        theirs = self.hashes[_ragged(self.starts[candidates], sizes)]
        where = np.minimum(np.searchsorted(mine, theirs), mine.size - 1)
        shared = np.add.reduceat((mine[where] == theirs).astype(np.int64), np.cumsum(sizes) - sizes)
        return np.asarray(shared / (sizes + mine.size - shared))


def _closest(
    i: int,
    candidates: NDArray[np.int64],
    sets: _Sets,
    threshold: float,
    nested: NDArray[np.int64],
    whole: _Sets | None,
) -> tuple[int, float]:
    """Return the candidate of highest exact Jaccard similarity to item ``i``, and that similarity.

    A candidate of the same shingles whose lines are nested otherwise is none, nor one that is less similar whole.
    """
    size = sets.starts[i + 1] - sets.starts[i]
    sizes = sets.starts[candidates + 1] - sets.starts[candidates]
    # |A n B| <= min and |A u B| >= max, so sizes alone rule out many candidates; divided as the
    # similarity is, so that rounding cannot lose a pair that lies exactly at the threshold.
    candidates = candidates[np.minimum(sizes, size) / np.maximum(sizes, size) >= threshold]
    if not candidates.size:
        return -1, 0.0
    jaccard = sets.similarity(i, candidates)
    jaccard[(jaccard == 1) & (nested[candidates] != nested[i])] = 0
    if whole is not None and (alike := np.flatnonzero(jaccard >= threshold)).size:
        jaccard[alike[whole.similarity(i, candidates[alike]) < threshold]] = 0
    best = int(jaccard.argmax())
    return int(candidates[best]), float(jaccard[best])


def _suppressed(
    vectors: NDArray[np.float32],
    source: NDArray[np.int64],
    safe: NDArray[np.bool_],
    *,
    limit: float,
    keep_rule: str,
    block_size: int,
) -> list[tuple[int, int, float]]:
    """Visit one cluster in the given order and return (row, other, cosine) of the items it drops."""
    dropped: list[tuple[int, int, float]] = []
    # Suppressors move to the front of the same array, so that no second copy of the vectors is held.
    kept = np.empty(source.size, dtype=np.int64)
    used = 0
    for start in range(0, source.size, block_size):
        block = slice(start, min(start + block_size, source.size))
        here = vectors[block].copy()
        best = np.full(len(here), -np.inf, dtype=np.float32)
        other = np.full(len(here), -1, dtype=np.int64)
        for first in range(0, used, block_size):
            cosine = here @ vectors[first : min(first + block_size, used)].T
            nearest = cosine.argmax(axis=1)
            value = cosine[np.arange(len(here)), nearest]
            better = value > best
            best[better], other[better] = value[better], kept[first + nearest[better]]
        cosine = here @ here.T
        chosen = np.zeros(len(here), dtype=bool)
        for j in range(len(here)):
            drop = best[j] > limit and not safe[start + j]
            if drop:
                dropped.append((int(source[start + j]), int(other[j]), float(best[j])))
            if not drop or keep_rule == "any":
                chosen[j] = True
                better = cosine[j, j + 1 :] > best[j + 1 :]
                best[j + 1 :][better] = cosine[j, j + 1 :][better]
                other[j + 1 :][better] = source[start + j]
        count = int(chosen.sum())
        vectors[used : used + count] = here[chosen]
        kept[used : used + count] = source[block][chosen]
        used += count
    return dropped


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Scale rows to unit length in float32; a zero row stays zero."""
    single = np.array(vectors, dtype=np.float32)
    norms = np.sqrt((single * single).sum(axis=1, keepdims=True))
    return np.asarray(np.divide(single, norms, out=single, where=norms != 0), dtype=np.float32)


def checked_rows(rows: ArrayLike, protected: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Return the rows as int64, or say what is wrong with them."""
    array = np.asarray(rows, dtype=np.int64)
    if array.ndim != 1 or (array.size and (array[0] < 0 or np.any(np.diff(array) <= 0))):
        raise DataPrunerError("The rows to deduplicate must be unique source positions in ascending order.")
    if protected is not None and array.size and array[-1] >= len(protected):
        raise DataPrunerError(
            f"The mask of protected rows has {len(protected)} entries and none for row {array[-1]}."
        )
    return array


def _vetoes(kind: str, dropped: list[tuple[int, int, float]], template: str) -> Vetoes:
    """Collect (row, other, measure) in row order."""
    dropped = sorted(dropped)
    return Vetoes(
        kind=kind,
        rows=np.array([row for row, _, _ in dropped], dtype=np.int64),
        others=np.array([other for _, other, _ in dropped], dtype=np.int64),
        measures=np.array([measure for _, _, measure in dropped], dtype=np.float64),
        template=template,
    )
