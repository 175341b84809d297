"""Rows whose answer says nothing."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.errors import DataPrunerError, RowError, in_words
from datapruner.files.mapped import COLUMN_BLOCK, blocks
from datapruner.reasons import Reason
from datapruner.samples.layouts import LAYOUTS
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples

logger = logging.getLogger(__name__)

NO_ANSWER = Reason(
    "no_answer",
    "no answer",
    "row without an answer",
    "rows without an answer",
    "dropped for having no answer",
)


@dataclass(frozen=True)
class NoAnswer(CleaningStep):
    """Rows whose answer says nothing.

    Attributes
    ----------
    refuse : bool
        They are an error.
    """

    name = "no_answer"
    reasons = (NO_ANSWER,)
    order = 10
    switch = "--on-empty=drop"

    refuse: bool = False

    @classmethod
    def switched_on(cls, recipe: Recipe) -> Self | None:
        """Unless ``on_empty`` keeps them."""
        return None if recipe.on_empty == "keep" else cls(recipe.on_empty == "error")

    def clean(self, left: Remaining) -> Vetoes | None:
        """Drop them, or refuse them; refuse a dataset that has no answer at all."""
        if not left.samples.layout.has_text:
            return None
        empty = unanswered(left.samples, left.rows)
        if self.refuse and empty.size:
            raise RowError(
                f"row {empty[0]} has no answer ({empty.size:,} such rows); give it one, or leave such rows out with "
                "--on-empty=drop",
                empty[0],
            )
        empty = empty[~left.protected[empty]]
        if empty.size and empty.size == len(left.rows):
            raise DataPrunerError(
                f"no row has an answer: column '{safe_text(left.samples.layout.answers, 60)}' holds none in any of "
                f"{len(left.rows):,} rows; name the column that does with --columns, or keep them with --on-empty=keep"
            )
        return drops(NO_ANSWER, empty) if empty.size else None

    def tell(self, left: Remaining, found: Vetoes) -> None:
        """Say how many were left out, where no line of the summary does."""
        if left.briefly:
            return
        logger.warning(
            "%s of %s rows have no answer, %s first, and were left out; "
            + in_words("--on-empty=keep ranks them like any other"),
            f"{len(found):,}",
            f"{len(left.samples):,}",
            left.samples.row_words(found.rows[0]),
        )


def unanswered(samples: Samples, rows: Ints) -> Ints:
    """Give the rows whose answer says nothing, see :attr:`Sample.unanswered`.

    A chat template supervises the end of an empty turn too, so that counting supervised tokens does not find them.
    """
    rows = rows[~_says_something(samples)[rows]]
    read = samples.iter_samples(rows, identity=False)
    return rows[np.fromiter((sample.unanswered for sample in read), np.bool_, len(rows))]


def _says_something(samples: Samples) -> Flags:
    """Tell the rows, bool [n], whose answer is seen to hold a visible character without reading them as turns."""
    import pyarrow.compute as pc
    from datasets import Value

    said = np.zeros(len(samples), dtype=np.bool_)
    for first, last, layout in samples.spans():
        role = "text" if layout.name == "text" else LAYOUTS[layout.name].answers
        column = layout.columns.get(role or "")
        kind = None if column is None else samples.dataset.features[column]
        if kind not in (Value("string"), Value("large_string")):
            continue
        for start, texts in blocks(
            samples.dataset.select_columns([column]), COLUMN_BLOCK, range(first, last)
        ):
            seen = pc.match_substring_regex(texts.column(column), pattern="[!-~]")
            said[first + start :][: len(texts)] = pc.fill_null(seen, False).to_numpy()
    return said
