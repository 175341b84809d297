"""What is read after every training: rows of a target, or rows of the source that no training sees."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.recipe.targets import tasks_of
from datapruner.samples.labels import encode_labels
from datapruner.samples.rendered import Rendered
from datapruner.signals.language_model.reader import LanguageModel
from datapruner.text import safe_text
from datapruner.validation.gaps import Groups
from datapruner.validation.training import supervised

if TYPE_CHECKING:
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples

logger = logging.getLogger(__name__)

HELD_OUT = 200
FEWEST_HELD_OUT = 20
HELD_OUT_OF = 5
"""How many times as many rows there must be as are held out."""
NONE = np.empty(0, dtype=np.int64)
BLOCK = 64
"""Rows that are rendered together while random ones are drawn."""


class Target(NamedTuple):
    """Rows that are read.

    Attributes
    ----------
    called : str
    rows : list of Rendered
        Those with an answer.
    groups : Groups, optional
        What they are told apart by.
    held_out : ndarray, int64
        Which rows of the source they are, where they are of it: no training has them.
    """

    called: str
    rows: list[Rendered]
    groups: Groups | None
    held_out: Ints


def rows_of(samples: Samples, reader: LanguageModel, by: str | None, told: Mapping[bytes, str]) -> Target:
    """Read the rows of a target that have an answer.

    Parameters
    ----------
    samples : Samples
    reader : LanguageModel
    by : str, optional
        A column that tells them apart.
    told : mapping
        Rows that the scorer was told of: no judges of what it chose.

    Raises
    ------
    DataPrunerError
        None has an answer, or the scorer was told of some; or the column ``by`` is not there, or has a value with one
        row alone.
    """
    rendered = list(reader.render(samples, np.arange(len(samples))))
    answered = np.flatnonzero([supervised(row) for row in rendered])
    if not len(answered):
        raise DataPrunerError(f"{safe_text(samples.source, 200)} has no answers that a loss could be read of")
    rows = [rendered[place] for place in answered.tolist()]
    if same := [told[key] for row in rows if (key := row.key) in told]:
        raise DataPrunerError(
            f"{len(same):,} of the {len(rows):,} rows of {safe_text(samples.source, 200)} are rows that the scorer was "
            f"told of ({same[0]}), and no judges of what it chose; keep some of its rows back, and give those"
        )
    return Target(samples.source, rows, _groups(samples, by, answered, samples.source), NONE)


def held_out_of(
    samples: Samples,
    values: Floats,
    count: int | None,
    seed: int,
    reader: LanguageModel,
    by: str | None,
    told: Mapping[bytes, str],
) -> Target:
    """Draw rows of the source that cleaning left and that have an answer, a fifth of what cleaning left at most.

    Parameters
    ----------
    samples : Samples
    values : ndarray, float64, shape (n,)
        NaN where cleaning dropped a row.
    count : int, optional
        200 by default.
    seed : int
    reader, by, told
        As of :func:`rows_of`; what was told is not drawn.

    Raises
    ------
    DataPrunerError
        There are too few, or as in :func:`rows_of`.
    """
    left = np.flatnonzero(np.isfinite(values))
    count = min(count or HELD_OUT, len(left) // HELD_OUT_OF)
    order = np.random.default_rng([seed, 0, 2]).permutation(left)
    found: dict[int, Rendered] = {}
    for start in range(0, len(order), BLOCK):
        if len(found) >= count:
            break
        part = order[start : start + BLOCK]
        for place, row in zip(part.tolist(), reader.render(samples, part), strict=True):
            if len(found) < count and supervised(row) and row.key not in told:
                found[place] = row
    if len(found) < FEWEST_HELD_OUT:
        raise DataPrunerError(
            f"of the rows that cleaning left ({len(left):,}) a fifth at most can be held out, where they have answers: "
            f"{len(found):,}, and {FEWEST_HELD_OUT} are needed; name rows of your task with --target"
        )
    places = np.array(sorted(found), dtype=np.int64)
    called = f"held-out rows of {samples.source}"
    return Target(
        called, [found[place] for place in places.tolist()], _groups(samples, by, places, called), places
    )


def check_target(
    target: Any, hold_out: int | None, split: str | None, columns: dict[str, str] | None
) -> None:
    """Refuse options that are of a target where there is none, and of none where there is one."""
    if target is not None and hold_out is not None:
        raise DataPrunerError(
            "--hold-out reads rows of the source in the place of --target; leave one of the two out"
        )
    if hold_out is not None and hold_out < FEWEST_HELD_OUT:
        raise DataPrunerError(f"hold_out must be at least {FEWEST_HELD_OUT}, not {hold_out}")
    for option, given in (("--target-split", split), ("--target-columns", columns)):
        if target is None and given is not None:
            raise DataPrunerError(f"{option} is of a target, and none is named with --target")


def told_rows(recipe: Recipe, reader: LanguageModel) -> dict[bytes, str]:
    """Give the rows that a scorer was told of, by their tokens, and what each was told as."""
    from datapruner.samples.source import load_samples

    told = {}
    for task in tasks_of(recipe.located()):
        try:
            samples = load_samples(task.source, split=task.split, columns=task.columns)
        except DataPrunerError as error:
            logger.warning("whether %s was told of the same rows cannot be seen: %s", task.called, error)
            continue
        for row in reader.render(samples, np.arange(len(samples))):
            told[row.key] = task.called
    return told


def _groups(samples: Samples, by: str | None, rows: Ints, called: str) -> Groups | None:
    """Read what rows are of, where a column says so."""
    if by is None:
        return None
    labels = samples.column(by)
    names, of = encode_labels([labels[place] for place in rows.tolist()])
    counts = np.bincount(of)
    if counts.min() < 2:
        alone = names[int(counts.argmin())]
        raise DataPrunerError(
            f"one row alone of the {len(rows):,} of {safe_text(called, 200)} with an answer has "
            f"'{safe_text(alone, 60)}' in the column '{safe_text(by, 60)}'; of each value there must be two at least, "
            "or nothing says how far rows of it differ"
        )
    return Groups(by, names, of)
