"""Training rows that give a test row away: word n-grams of the test set found in the training set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datapruner.arrays import Floats, Ints
from datapruner.choices import Templates
from datapruner.cleaning.grams import hashed_ngrams
from datapruner.cleaning.rows import checked_rows, text_blocks
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.reasons import Reason
from datapruner.samples import load_samples
from datapruner.samples.source import other_split
from datapruner.text import safe_text
from datapruner.words import bare_words

if TYPE_CHECKING:
    from datapruner.recipe import Recipe

CONTAMINATED = Reason(
    "contaminated",
    "contaminated: holds {measure:.0%} of the word {ngram}-grams of test row {other}",
    "row that leaks from the test set",
    "rows that leak from the test set",
    "dropped as contaminated by the test set",
    "raise --decontaminate-share if the rows give nothing away",
    "test row",
)
_ROUNDING = 1e-9
logger = logging.getLogger(__name__)


class NothingToCompareError(DataPrunerError):
    """No test row has the words to be compared by."""


@dataclass(frozen=True)
class Contaminated(CleaningStep):
    """Rows that give a row of a test set away.

    See :func:`contaminated`.

    Attributes
    ----------
    source : str, optional
        The test set; its ``test`` split is read where it has one and no split is named. None: ``split`` is one of the
        rows' own source.
    split : str, optional
    columns : dict, optional
        As in :func:`datapruner.load_samples`.
    ngram : int
    share : float
    templates : {"test", "both"}
        As in :func:`contaminated`.
    """

    name = "contaminated"
    reasons = (CONTAMINATED,)
    order = 20
    switch = "--decontaminate"

    source: str | None
    split: str | None = None
    columns: dict[str, str] | None = None
    ngram: int = 5
    share: float = 0.5
    templates: Templates = "both"

    @classmethod
    def switched_on(cls, recipe: Recipe) -> Self | None:
        """Where ``decontaminate`` names a test set, or ``decontaminate_split`` alone a split of the source."""
        if recipe.decontaminate is None and recipe.decontaminate_split is None:
            return None
        return cls(
            recipe.decontaminate,
            recipe.decontaminate_split,
            recipe.decontaminate_columns,
            recipe.decontaminate_ngram,
            recipe.decontaminate_share,
            recipe.decontaminate_templates,
        )

    def clean(self, left: Remaining) -> Vetoes | None:
        """Compare the rows with the test rows' prompts, both without what many rows share."""
        tests = self._tests(left)
        try:
            found = contaminated(
                lambda: left.texts("both", left.free),
                left.own.others(tests),
                left.free,
                ngram=self.ngram,
                share=self.share,
                templates=self.templates,
            )
        except NothingToCompareError as error:
            if self.source is not None:
                raise
            logger.warning("the split '%s': %s", safe_text(str(self.split), 60), error)  # nobody named it
            return None
        return replace(found, texts=tests)

    def _tests(self, left: Remaining) -> list[str]:
        try:
            if self.source is None:
                tests = other_split(left.samples, str(self.split))
            else:
                tests = load_samples(self.source, split=self.split, columns=self.columns, prefer="test")
        except DataPrunerError as error:
            said = error.sentence.replace("--columns", "--decontaminate-columns")
            raise DataPrunerError(f"the test set: {said}") from error
        left.inputs.rows("decontaminate", tests)
        return [sample.part("both") if sample.plain else sample.part("prompt") for sample in tests]


def contaminated(
    train_texts: Iterable[str] | Callable[[], Iterable[str]],
    test_texts: Iterable[str],
    rows: ArrayLike,
    *,
    ngram: int = 5,
    share: float = 0.5,
    templates: Templates = "both",
    min_words: int = 4,
    common: int = 100,
    usual: int = 10,
) -> Vetoes:
    """Drop training rows that contain a large part of a test row.

    *Published*: word n-gram overlap against the test set (GPT-3, arXiv 2005.14165, appendix C: one
    shared 13-gram, overly common grams ignored; PaLM, arXiv 2204.02311, section 8: 8-grams, 70 % of
    them). *Ours*: the measure is the share of the **test row's** n-grams found in one training row, so
    that long training rows are not favoured and the culprit is named. A gram that f test rows share
    weighs 1 / f^2, because it belongs to a template (an instruction, a list of tools) rather than to
    the question, and nothing above ``common`` rows, unless a test row has no other gram. So does one that
    d > ``usual`` training rows hold: it weighs (usual / d)^2 of that, where GPT-3 ignored it,
    so that twice as many edited copies of one leak still are leaks, and any number of verbatim ones. The
    defaults come from ``benchmarks/duplicates.py``.

    Compared are words without punctuation, case and apostrophes, see
    :func:`~datapruner.words.bare_words`. What to pass: for the training rows
    the full text; for the test rows the **prompt** is the default of the callers, because a leaked
    question is what counts; pass prompt and answer joined to ask for more.

    Parameters
    ----------
    train_texts
        One text for every entry of ``rows``, in that order. A function that gives them is called twice, and they are
        streamed; else they are held, unless ``templates`` is ``test``.
    test_texts
        Texts of the test rows, held as an inverted index.
    rows
        int64 [m], strictly ascending: the training rows that are still alive.
    ngram
        Words a gram.
    share
        Share in (0, 1] of a test row's weighted grams from which a training row is dropped.
    templates
        Whose rows tell what belongs to a template: those of the test set, or of both.
    min_words
        A test row of ``min_words`` to ``ngram - 1`` words is compared as one gram of all its words;
        a shorter one is not compared at all, since it would match by chance.
    common
        Distinct test rows above which a gram is ignored; it would weigh next to nothing and be found
        everywhere, so this bounds the work.
    usual
        Training rows that may hold a gram before it is taken for a template's; 10 is GPT-3's.

    Returns
    -------
    Vetoes
        Kind ``contaminated``; other = position of the test row in ``test_texts`` (the first of equals),
        measure = the share.

    Notes
    -----
    An even edit of one word in twenty leaves three quarters of the 5-grams, one in six leaves a sixth:
    translations and free paraphrases are not found.
    """
    if min(ngram, min_words, common, usual) < 1:
        raise DataPrunerError(
            f"ngram, min_words, common and usual must be at least 1, "
            f"not {ngram}, {min_words}, {common} and {usual}."
        )
    if not 0 < share <= 1:
        raise DataPrunerError(f"The contamination share must lie in (0, 1], not {share}.")
    alive = checked_rows(rows, None)
    index = _TestIndex.build(test_texts, ngram, min_words, common)
    if templates == "both":
        if not callable(train_texts):
            held = list(train_texts)
            train_texts = lambda: held  # noqa: E731
        index = index.without_templates(
            ([bare_words(text) for text in block] for block, _ in text_blocks(train_texts(), alive)), usual
        )
    texts = train_texts() if callable(train_texts) else train_texts
    found: list[Ints] = []
    others: list[Ints] = []
    measures: list[Floats] = []
    for block, block_rows in text_blocks(texts, alive):
        train, test, measure = index.best([bare_words(text) for text in block])
        # The weights' sums round: a verbatim copy may be one digit short of 1.
        hit = measure >= share - _ROUNDING
        measure = np.minimum(measure, 1.0)
        found.append(block_rows[train[hit]])
        others.append(test[hit])
        measures.append(measure[hit])
    empty = np.empty(0, dtype=np.int64)
    return Vetoes(
        CONTAMINATED.filled(ngram=ngram),
        rows=np.concatenate([empty, *found]),
        others=np.concatenate([empty, *others]),
        measures=np.concatenate([np.empty(0), *measures]),
    )


@dataclass(frozen=True)
class _TestIndex:
    """Inverted index of the test side: gram -> test rows, as sorted arrays.

    Parameters
    ----------
    lengths
        Gram lengths in use: ``ngram`` and those of the shorter test rows.
    grams
        uint64 [G], ascending.
    starts
        int64 [G + 1]: the test rows of gram g are ``owners[starts[g] : starts[g + 1]]``.
    owners
        int64 [postings].
    weights
        float64 [G]: 1 / f^2 for a gram of f test rows, less where it is a template's of the training rows.
    totals
        float64 [test rows]: summed weight of its grams, 0 for a row that is not compared.
    """

    lengths: tuple[int, ...]
    grams: NDArray[np.uint64]
    starts: Ints
    owners: Ints
    weights: Floats
    totals: Floats

    @classmethod
    def build(cls, texts: Iterable[str], ngram: int, min_words: int, common: int) -> _TestIndex:
        """Index every distinct test row of at least ``min(min_words, ngram)`` words."""
        # Equal test rows would make their own grams look like a template: keep the first of each.
        first: dict[tuple[str, ...], int] = {}
        total = 0
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataPrunerError(f"Test row {row} holds {type(text).__name__} where a text is needed.")
            first.setdefault(tuple(bare_words(text)), row)
            total = row + 1
        by_length: dict[int, list[tuple[str, ...]]] = {}
        for words in first:
            if len(words) >= min(min_words, ngram):
                by_length.setdefault(min(len(words), ngram), []).append(words)
        if not by_length:
            raise NothingToCompareError(
                f"None of the {total} test rows has {min(min_words, ngram)} words or more, "
                "so there is nothing to compare the training rows with."
            )
        hashes, owners = [], []
        for length, group in by_length.items():
            grams, counts = hashed_ngrams(group, length)
            hashes.append(grams)
            owners.append(np.repeat(np.array([first[words] for words in group], dtype=np.int64), counts))
        gram, owner = np.concatenate(hashes), np.concatenate(owners)
        _, inverse, frequency = np.unique(gram, return_inverse=True, return_counts=True)
        special = frequency[inverse] <= common
        # A row made of template alone keeps all its grams.
        special |= (np.bincount(owner[special], minlength=total) == 0)[owner]
        gram, owner, weight = gram[special], owner[special], 1.0 / frequency[inverse][special] ** 2
        order = np.lexsort((owner, gram))
        unique, starts = np.unique(gram[order], return_index=True)
        return cls(
            lengths=tuple(sorted(by_length)),
            grams=unique,
            starts=np.append(starts, gram.size).astype(np.int64),
            owners=owner[order],
            weights=weight[order][starts],
            totals=np.bincount(owner, weights=weight, minlength=total).astype(np.float64),
        )

    def hits(self, words: list[list[str]], length: int) -> tuple[Ints, Ints]:
        """Return (training item, place of the gram) of every distinct gram of this length that is a test row's."""
        hashes, counts = hashed_ngrams(words, length, short_rows=False)
        item = np.repeat(np.arange(len(words)), counts)
        slot = np.minimum(np.searchsorted(self.grams, hashes), self.grams.size - 1)
        hit = self.grams[slot] == hashes
        return item[hit], slot[hit]

    def without_templates(self, blocks: Iterable[list[list[str]]], usual: int) -> _TestIndex:
        """Return the same with less weight for grams that many training rows hold."""
        rows = np.zeros(self.grams.size)
        for words in blocks:
            for length in self.lengths:
                rows += np.bincount(self.hits(words, length)[1], minlength=rows.size)
        weights = self.weights * np.minimum(1, usual / np.maximum(rows, 1)) ** 2
        owned = np.repeat(weights, np.diff(self.starts))
        totals = np.bincount(self.owners, weights=owned, minlength=self.totals.size).astype(np.float64)
        return replace(self, weights=weights, totals=totals)

    def best(self, words: list[list[str]]) -> tuple[Ints, Ints, Floats]:
        """Return (training item, test row, share): the best test row of every item that matches any."""
        keys: list[Ints] = []
        weights: list[Floats] = []
        for length in self.lengths:
            item, slot = self.hits(words, length)
            postings = self.starts[slot + 1] - self.starts[slot]
            # Ragged ranges: every hit expands to the test rows that own the gram.
            inside = np.arange(postings.sum()) - np.repeat(np.cumsum(postings) - postings, postings)
            owner = self.owners[np.repeat(self.starts[slot], postings) + inside]
            keys.append(np.repeat(item, postings) * self.totals.size + owner)
            weights.append(np.repeat(self.weights[slot], postings))
        pairs, pair = np.unique(np.concatenate(keys), return_inverse=True)
        shared = np.bincount(pair, weights=np.concatenate(weights), minlength=pairs.size)
        item, test = np.divmod(pairs, self.totals.size)
        measure = shared / self.totals[test]
        order = np.lexsort((test, -measure, item))
        item, test, measure = item[order], test[order], measure[order]
        head = np.ones(item.size, dtype=bool)
        head[1:] = item[1:] != item[:-1]
        return item[head], test[head], measure[head]
