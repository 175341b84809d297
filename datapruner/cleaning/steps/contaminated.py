"""Training rows that give a test row away: word n-grams of the test set found in the training set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike

from datapruner.arrays import Flags, Floats, Ints
from datapruner.choices import Templates
from datapruner.cleaning.gram_index import GramIndex, Hits, NothingToCompareError
from datapruner.cleaning.rows import checked_rows
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.reasons import Reason
from datapruner.samples import load_samples
from datapruner.samples.source import other_split
from datapruner.text import safe_text

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
HELD = 1 << 24
"""Hits that are held between two looks at the training rows, six bytes each; beyond, these are read again."""
COPIED = 0.25
"""Of the rows that hold most of a test row, so many hold each of its grams where they are copies of it.

A template has a blank, which few fill in alike; edits come anywhere.
"""
Texts = Iterable[str] | Callable[[Ints], Iterable[str]]
logger = logging.getLogger(__name__)


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
                lambda rows: left.texts("both", rows),
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
            texts = [sample.part("both") if sample.plain else sample.part("prompt") for sample in tests]
        except DataPrunerError as error:
            said = error.sentence.replace("--columns", "--decontaminate-columns")
            raise DataPrunerError(f"the test set: {said}") from error
        left.inputs.rows("decontaminate", tests)
        return texts


def contaminated(
    train_texts: Texts,
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
    so that a template's words count little. Copies of the question itself are no template, however many and however
    edited: where each gram of a test row is in a quarter of the training rows that hold most of it, so that none
    fills a template's blank, those rows count as one. Edits that all copies have in one place look like a blank.
    The defaults come from ``benchmarks/duplicates.py``.

    Compared are words without punctuation, case and apostrophes, see
    :func:`~datapruner.words.bare_words`. What to pass: for the training rows
    the full text; for the test rows the **prompt** is the default of the callers, because a leaked
    question is what counts; pass prompt and answer joined to ask for more.

    Parameters
    ----------
    train_texts
        One text for every entry of ``rows``, in that order; or a function that gives the texts of some of them, which
        is called for all, and again for those beyond what is held of them. Else texts are held, unless ``templates``
        is ``test``.
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
    index = GramIndex.build(test_texts, ngram, min_words, common)
    again = templates == "both"
    hits = Hits(index, alive, _reader(train_texts, alive, again), HELD if again else 0)
    if again:
        index = _without_templates(hits, usual, share)
    found: list[Ints] = []
    others: list[Ints] = []
    measures: list[Floats] = []
    for block, item, slot in hits:
        train, test, measure = index.best(item, slot)
        hit = _leaks(measure, share)
        measure = np.minimum(measure, 1.0)
        found.append(block[train[hit]])
        others.append(test[hit])
        measures.append(measure[hit])
    empty = np.empty(0, dtype=np.int64)
    return Vetoes(
        CONTAMINATED.filled(ngram=ngram),
        rows=np.concatenate([empty, *found]),
        others=np.concatenate([empty, *others]),
        measures=np.concatenate([np.empty(0), *measures]),
    )


def _reader(texts: Texts, alive: Ints, again: bool) -> Callable[[Ints], Iterable[str]]:
    """Make texts something that gives those of some rows; what is asked for more than once is held."""
    if callable(texts):
        return texts
    held = list(texts) if again else texts

    def read(rows: Ints) -> Iterable[str]:
        if len(rows) == len(alive) or not isinstance(held, list):
            return held
        return [held[place] for place in np.searchsorted(alive, rows).tolist()]

    return read


def _leaks(measure: Floats, share: float) -> Flags:
    """Tell which shares are enough: the weights' sums round, and a verbatim copy may be one digit short of 1."""
    return np.asarray(measure >= share - _ROUNDING)


def _without_templates(hits: Hits, usual: int, share: float) -> GramIndex:
    """Give grams that many training rows hold less weight; a question and its copies are one row."""
    index, held = hits.index, hits.counted()
    if (held <= usual).all():
        return index
    like = np.zeros(index.totals.size)
    of_each = np.zeros(index.owners.size)
    for _, item, slot in hits:
        train, test, measure = index.best(item, slot)
        leaks = _leaks(measure, share)
        like += np.bincount(test[leaks], minlength=like.size)
        of_each += index.holders(item, slot, train[leaks], test[leaks])
    fewest = np.full(like.size, np.inf)
    np.minimum.at(fewest, index.owners, of_each)
    copied = (like > usual) & (fewest >= COPIED * like)
    if not copied.any():
        return index.lighter(held, usual)
    more = np.where(copied[index.owners], np.maximum(of_each - 1, 0), 0)
    return index.lighter(held - np.add.reduceat(more, index.starts[:-1]), usual)
