"""What of a row's text is its own: what rows are compared by, without what many of them share.

A system prompt, a list of tools, guidelines or a licence header repeated in row after row make rows alike that
have nothing else in common, and fill what an embedder reads before the question begins.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.cleaning.grams import hashed_ngrams, ngrams
from datapruner.errors import in_words
from datapruner.text import safe_text
from datapruner.words import is_unspaced, word_spans

if TYPE_CHECKING:
    from datapruner.samples.sample import Part, Sample
    from datapruner.samples.samples import Samples

logger = logging.getLogger(__name__)

SAMPLED = 2000
"""Rows that are looked at for what many share."""
WORDS = 8
"""Fewer words in a row are a turn of phrase."""
SHARE = 0.1
FEWEST = 4
"""What at least this share of the rows hold, and at least so many rows, is shared."""
OWN = 3
"""A row without so many words of its own side by side keeps its text.

What is shared by rows that have, by the median, fewer words which others have not is a template with blanks filled
in, and these rows are as alike as they look.
"""
A_WORD = 3
"""Letters of a script without spaces that stand for a word."""
ENDS = 2048
"""Words at each end of a row that are looked at."""
BLOCK = 1000
SEAM = "\0"
"""A word between two turns: no shared run goes from a question into its answer."""


@dataclass(frozen=True, eq=False)
class Shared:
    """Runs of words that many rows share.

    Parameters
    ----------
    grams
        uint64 [g], ascending: hashes of runs of ``WORDS`` words.
    rows, looked_at
        How many rows hold text that is left out, and of how many.
    words
        How many words are left out of such a row; the median.
    example
        The beginning of such a text.
    """

    grams: NDArray[np.uint64]
    rows: int = 0
    looked_at: int = 0
    words: int = 0
    example: str = ""

    def left_out(self, texts: list[str]) -> list[tuple[str, list[str]]]:
        """Give each text without what is shared, and the pieces that were left out; the text itself if it is all."""
        if not self.grams.size:
            return [(text, []) for text in texts]
        spans = [word_spans(text) for text in texts]
        shared = self.covered(
            [_words(text, of, row) for row, (text, of) in enumerate(zip(texts, spans, strict=True))]
        )
        out, start = [], 0
        for text, of in zip(texts, spans, strict=True):
            out.append(_parted(text, of, shared[start : start + len(of)]))
            start += len(of)
        return out

    def covered(self, words: list[list[str]]) -> Flags:
        """Mark the words that are part of a shared run: of all rows, one after the other."""
        hashes, begin, _ = ngrams(words, WORDS)
        place = np.minimum(np.searchsorted(self.grams, hashes), self.grams.size - 1)
        hits = begin[self.grams[place] == hashes]
        steps = np.zeros(sum(map(len, words)) + 1, dtype=np.int64)
        np.add.at(steps, hits, 1)
        np.add.at(steps, np.minimum(hits + WORDS, len(steps) - 1), -1)
        return np.asarray(np.cumsum(steps[:-1]) > 0)

    def leave_out(self, texts: Iterable[str]) -> Iterator[str]:
        """Give each text without what is shared; streamed."""
        stream = iter(texts)
        while block := list(islice(stream, BLOCK)):
            yield from (own for own, _ in self.left_out(block))


def _words(text: str, spans: list[tuple[int, int]], row: int) -> list[str]:
    """Cut the words out; a seam is another word in every row."""
    words = [text[a:b] for a, b in spans]
    return [f"{SEAM}{row}" if word == SEAM else word for word in words] if SEAM in text else words


def _parted(text: str, spans: list[tuple[int, int]], shared: Flags) -> tuple[str, list[str]]:
    """Part a text into its own and the pieces that are shared; a word of both is shared."""
    if not shared.any():
        return text, []
    edges = np.flatnonzero(np.diff(shared.astype(np.int8), prepend=-1, append=-1))
    runs = [
        (bool(shared[a]), b - a, text[spans[a][0] : spans[b - 1][1]])
        for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    own = [(size, piece) for of_many, size, piece in runs if not of_many]
    if not own or (max(size for size, _ in own) < OWN and len(own) > 1):
        return text, []
    return "\n".join(piece for _, piece in own), [piece for of_many, _, piece in runs if of_many]


def find_shared(texts: Iterable[str]) -> Shared:
    """Find what many texts share.

    *Ours*: a run of 8 words that at least a tenth of the different texts have, and at least 4 of them; what such
    runs cover is shared. Not so where these texts are the template with its blanks filled in: where the median one
    has fewer than 3 words that few others have, or no 3 words of its own side by side. Words are told as in
    :func:`~datapruner.words.words_of`, and must be equal letter by letter.

    Parameters
    ----------
    texts
        A sample of the rows; copies count once.
    """
    different = list(dict.fromkeys(texts))
    words = []
    for row, text in enumerate(different):
        spans = word_spans(text)
        if len(spans) > 2 * ENDS:
            spans = spans[:ENDS] + spans[-ENDS:]
        words.append(_words(text, spans, row))
    hashes, counts = hashed_ngrams(words, WORDS, short_rows=False)
    grams, inverse, rows = np.unique(hashes, return_inverse=True, return_counts=True)
    enough = rows >= max(FEWEST, SHARE * len(different))
    if not enough.any():
        return Shared(grams[:0])
    # The median row of each run: with how many words of its own, and how many side by side?
    owner = np.repeat(np.arange(len(words)), counts)
    own = _own_words(words, Shared(grams[enough]))
    for measure in own:
        order = np.lexsort((measure[owner], inverse))
        first = np.cumsum(rows) - rows
        enough &= measure[owner][order][first + rows // 2] >= OWN
    shared = Shared(grams[enough])
    if not shared.grams.size:
        return shared
    pieces = [held for _, held in shared.left_out(different) if held]
    if not pieces:
        return Shared(shared.grams[:0])
    lengths = sorted(sum(len(piece.split()) for piece in held) for held in pieces)
    longest = max(pieces[0], key=len)
    return replace(
        shared,
        rows=len(pieces),
        looked_at=len(different),
        words=lengths[len(lengths) // 2],
        example=longest,
    )


def _own_words(words: list[list[str]], shared: Shared) -> tuple[Floats, Floats]:
    """Count the words of every row that few others have, and those of its own that stand side by side."""
    letters = [[is_unspaced(word) for word in row] for row in words]
    tokens = [
        ["".join(row[place : place + A_WORD]) if single else row[place] for place, single in enumerate(of)]
        for row, of in zip(words, letters, strict=True)
    ]
    seen = Counter(chain.from_iterable(map(set, tokens)))
    often = max(FEWEST - 1, SHARE * len(words))
    rare, longest = np.zeros(len(words)), np.zeros(len(words))
    start = 0
    covered = shared.covered(words)
    for row, (of, single) in enumerate(zip(tokens, letters, strict=True)):
        weights = np.where(single, 1 / A_WORD, 1.0)
        own = ~covered[start : start + len(of)] & np.array(
            [not word.startswith(SEAM) for word in of], dtype=bool
        )
        start += len(of)
        rare[row] = weights[own & np.array([seen[token] < often for token in of], dtype=bool)].sum()
        ends = np.flatnonzero(np.diff(own.astype(np.int8), prepend=0, append=0))
        total = np.append(0.0, np.cumsum(weights))
        longest[row] = (total[ends[1::2]] - total[ends[::2]]).max(initial=0.0)
    return rare, longest


def without_system(sample: Sample) -> Sample:
    """Give a row without its system turns and tools; itself where it is nothing else."""
    turns = tuple(message for message in sample.messages if message.role != "system")
    if len(turns) == len(sample.messages) or not any(turn.text.strip() for turn in turns):
        return sample
    return replace(sample, messages=turns, tools=None)


def _seamed(sample: Sample, which: Part) -> str:
    """Give a part of a row with a seam between its turns."""
    own = without_system(sample)
    parts = (replace(own, messages=(message,)).part(which) for message in own.messages)
    return f"\n{SEAM}\n".join(filter(None, parts))


@dataclass(eq=False)
class OwnText:
    """The texts by which the rows of a source are compared and embedded.

    Parameters
    ----------
    samples
        The source, whole.
    whole
        Nothing is left out: neither system turns nor what many rows share.
    briefly
        Nothing is said of it.
    """

    samples: Samples
    whole: bool = False
    briefly: bool = False

    @cached_property
    def shared(self) -> Shared:
        """What many rows share; looked for once, and told."""
        n = len(self.samples)
        rows = np.arange(n)
        if n > SAMPLED:
            rows = np.sort(np.random.default_rng(0).choice(n, SAMPLED, replace=False))
        found = find_shared(_seamed(sample, "both") for sample in self.samples.iter_samples(rows))
        if found.rows:
            logger.log(
                logging.INFO if self.briefly else logging.WARNING,
                "%s of %s rows%s hold words that many share, some %s of them, such as '%s': rows are compared and "
                "embedded without these; %s compares them whole",
                f"{found.rows:,}",
                f"{found.looked_at:,}",
                " looked at" if n > SAMPLED else "",
                f"{found.words:,}",
                safe_text(found.example.replace(SEAM, ""), 60),
                in_words("--similarity-context"),
            )
        return found

    @property
    def leaves_out(self) -> bool:
        """Whether anything but system turns is left out."""
        return not self.whole and bool(self.shared.grams.size)

    def texts(self, which: Part, rows: Ints | None = None) -> Iterator[str]:
        """Read one part of each row, without what is not its own; streamed."""
        if self.whole:
            return self.samples.iter_parts(which, rows)
        if not self.leaves_out:
            return self.turns(which, rows)
        own = self.shared.leave_out(_seamed(sample, which) for sample in self.samples.iter_samples(rows))
        return (text.replace(f"\n{SEAM}\n", "\n") for text in own)

    def turns(self, which: Part, rows: Ints | None = None) -> Iterator[str]:
        """Read one part of each row with all its words, but without the system's turns; streamed."""
        return (without_system(sample).part(which) for sample in self.samples.iter_samples(rows))

    def of(self, samples: Samples) -> OwnText:
        """Give the texts of another set, without what these rows share."""
        other = OwnText(samples, self.whole)
        if not self.whole and samples.layout.has_text and self.samples.layout.has_text:
            other.__dict__["shared"] = self.shared
        return other

    def others(self, texts: Iterable[str]) -> list[str]:
        """Treat texts of another set, which rows are compared with, as these rows are."""
        return list(texts if self.whole else self.shared.leave_out(texts))
