"""Which rows are measured: what is listed, what cleaning drops, what has nothing to score, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.rows import without
from datapruner.cleaning.stage import clean_texts
from datapruner.cleaning.telling import tell_drops
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError, in_words
from datapruner.inputs import Inputs
from datapruner.recipe import Recipe
from datapruner.samples import load_samples
from datapruner.samples.portable import check_free
from datapruner.scorers.base import Scorer
from datapruner.selection.selector import Selector

if TYPE_CHECKING:
    from datapruner.samples.rendered import TokenCounts
    from datapruner.samples.samples import Samples
    from datapruner.signals.plan import Plan

logger = logging.getLogger(__name__)


def check_columns(recipe: Recipe, samples: Samples, scorers: list[Scorer], masks: Mapping[str, Any]) -> None:
    """Refuse columns that are not there, or in the way of what will be written, and masks of another length."""
    if recipe.per_group is not None:
        samples.check_column(recipe.per_group)
    if len(scorers) == 1 and recipe.selector is None:
        check_token_columns(samples, scorers[0].selector())
    for name, mask in masks.items():
        _check_length(mask, len(samples), name)


def check_token_columns(samples: Samples, selector: Selector) -> None:
    """Refuse, before a model runs, a source that token-pruned data could not be made from."""
    if selector.prunes_tokens:
        check_free(samples)


def cleaned(
    recipe: Recipe,
    samples: Samples,
    forced: NDArray[np.bool_],
    own: OwnText,
    inputs: Inputs,
) -> tuple[list[Vetoes], NDArray[np.int64]]:
    """Drop what is listed, and what the steps that read texts drop."""
    vetoes, rows = _never_kept(recipe, samples, forced)
    steps = {"exact", "near"} & set(recipe.dedup)
    if not steps and recipe.decontaminate is None and recipe.on_empty == "keep":
        return vetoes, rows
    tests = _test_texts(recipe, inputs)
    found, rows = clean_texts(recipe, samples, tests, rows, forced, own)
    _tell_unanswered(len(samples), found)
    tell_drops(samples, found, tests=tests, numbers=recipe.near_numbers)
    return vetoes + found, rows


def _never_kept(
    recipe: Recipe, samples: Samples, forced: NDArray[np.bool_]
) -> tuple[list[Vetoes], NDArray[np.int64]]:
    """Drop what is on the never-keep list."""
    rows = np.arange(len(samples), dtype=np.int64)
    banned = row_mask(recipe.never_keep, samples, "never_keep")
    if not banned.any():
        return [], rows
    if (both := banned & forced).any():
        raise DataPrunerError(f"row {int(np.argmax(both))} is to be kept always and never")
    listed = np.flatnonzero(banned)
    vetoes = Vetoes(
        "never_keep", listed, np.full(listed.size, -1), np.ones(listed.size), "on the never-keep list"
    )
    return [vetoes], without(rows, vetoes)


def with_targets(
    recipe: Recipe, counts: TokenCounts, rows: NDArray[np.int64], forced: NDArray[np.bool_]
) -> tuple[list[Vetoes], NDArray[np.int64]]:
    """Refuse or drop rows whose loss would be of nothing, and say how many rows were cut."""
    if cut := int(counts.truncated[rows].sum()):
        logger.warning(
            in_words(
                "%s of %s rows are longer than the model reads and were cut; --max-length sets the limit"
            ),
            f"{cut:,}",
            f"{len(rows):,}",
        )
    empty = rows[counts.supervised[rows] == 0]
    if not empty.size:
        return [], rows
    dropped = recipe.on_empty == "drop"
    refused = empty[forced[empty]] if dropped else empty
    if refused.size:
        row = int(refused[0])
        why = "what is left after the cut" if counts.truncated[row] else "it"
        listed = " and is to be kept always" if dropped else ""
        way = "take it off that list" if dropped else "drop them with --on-empty=drop"
        raise DataPrunerError(
            f"row {row} has no supervised token{listed}, so that there is nothing to score: {why} holds no assistant "
            f"text ({empty.size:,} such rows); {way}"
        )
    logger.warning(
        "%s of %s rows have no supervised token, row %s first, and were left out%s",
        f"{empty.size:,}",
        f"{len(rows):,}",
        empty[0],
        in_words("; --max-length cuts before their answers") if counts.truncated[empty[0]] else "",
    )
    vetoes = Vetoes(
        "no_supervised_tokens", empty, np.full(empty.size, -1), np.zeros(empty.size), "no supervised tokens"
    )
    return [vetoes], without(rows, vetoes)


def _tell_unanswered(n: int, found: list[Vetoes]) -> None:
    """Say how many rows were left out because their answer says nothing."""
    for vetoes in found:
        if vetoes.kind == "no_answer" and len(vetoes):
            logger.warning(
                "%s of %s rows have no answer, row %s first, and were left out; "
                + in_words("--on-empty=keep ranks them like any other"),
                f"{len(vetoes):,}",
                f"{n:,}",
                vetoes.rows[0],
            )


def tell_unread(recipe: Recipe, plan: Plan, samples: Samples, found: list[Vetoes]) -> None:
    """Say which parts of the rows took no part, where it looks as if they should have."""
    from datapruner.samples.unread import copies_that_differ, overlooked, unseen

    by_model = bool(plan.models(recipe))
    if by_model and (note := unseen(samples)):
        logger.warning("%s", note)
    if by_model or recipe.dedup or "text" in plan.wanted:
        copies = [
            pair
            for vetoes in found
            if vetoes.kind == "exact_duplicate"
            for pair in zip(vetoes.rows.tolist(), vetoes.others.tolist(), strict=True)
        ]
        for column in overlooked(samples, recipe.strings()):
            logger.warning("%s%s", column, copies_that_differ(samples, column.column, copies))


def require_rows(rows: NDArray[np.int64]) -> None:
    """Refuse to go on without any row."""
    if not len(rows):
        raise DataPrunerError("no row is left: cleaning, or --on-empty=drop (the default), dropped them all")


def _test_texts(recipe: Recipe, inputs: Inputs) -> list[str] | None:
    """Read the test set's prompts, if one is named; its ``test`` split where it has one and no split was named."""
    if recipe.decontaminate is None:
        return None
    try:
        tests = load_samples(
            recipe.decontaminate,
            split=recipe.decontaminate_split,
            columns=recipe.decontaminate_columns,
            prefer="test",
        )
    except DataPrunerError as error:
        said = error.sentence.replace("--columns", "--decontaminate-columns")
        raise DataPrunerError(f"the test set: {said}") from error
    inputs.rows("decontaminate", tests)
    return [sample.part("both") if sample.plain else sample.part("prompt") for sample in tests]


def _check_length(mask: Any, n: int, what: str) -> None:
    array = np.asarray(mask)
    if array.dtype.kind == "b" and len(array) != n:
        raise DataPrunerError(f"{what} has {len(array)} entries, but the dataset has {n} rows")


def row_mask(value: str | list[int] | None, samples: Samples, what: str) -> NDArray[np.bool_]:
    """Give a mask over the source rows from a column of booleans or from row numbers."""
    mask = np.zeros(len(samples), dtype=np.bool_)
    if value is None:
        return mask
    if isinstance(value, str):
        column = samples.column(value)
        for row, cell in enumerate(column):
            if cell is not None and not isinstance(cell, bool):
                raise DataPrunerError(
                    f"{what}: column '{value}', row {row}, holds {cell!r}, not true or false"
                )
        return np.array([bool(cell) for cell in column], dtype=np.bool_)
    for row in value:
        if not 0 <= row < len(mask):
            raise DataPrunerError(
                f"{what} names row {row}, but the dataset has {len(mask)} rows, counted from 0"
            )
    mask[value] = True
    return mask
