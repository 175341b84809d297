"""What is read after every training: rows of a target, or rows of the source that no training sees."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.recipe.targets import tasks_of
from datapruner.samples.labels import encode_labels
from datapruner.samples.rendered import Rendered
from datapruner.signals.language_model.reader import LanguageModel
from datapruner.text import safe_text
from datapruner.validation.arms import NONE
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


def rows_of(samples: Samples, reader: LanguageModel, by: str | None) -> Target:
    """Read the rows of a target.

    Raises
    ------
    DataPrunerError
        None has an answer; or the column ``by`` is not there, or has a value with one row alone.
    """
    return _read(samples, np.arange(len(samples)), samples.source, NONE, reader, by)


def held_out_of(
    samples: Samples, values: Floats, count: int | None, seed: int, reader: LanguageModel, by: str | None
) -> Target:
    """Draw rows of the source that cleaning left, a fifth of them at most.

    Parameters
    ----------
    samples : Samples
    values : ndarray, float64, shape (n,)
        NaN where cleaning dropped a row.
    count : int, optional
        200 by default.
    seed : int
    reader : LanguageModel
    by : str, optional

    Raises
    ------
    DataPrunerError
        There are too few, or as in :func:`rows_of`.
    """
    left = np.flatnonzero(np.isfinite(values))
    count = min(count or HELD_OUT, len(left) // HELD_OUT_OF)
    if count < FEWEST_HELD_OUT:
        raise DataPrunerError(
            f"cleaning left {len(left):,} rows, of which a fifth can be held out: fewer than {FEWEST_HELD_OUT}; name "
            "rows of your task with --target"
        )
    places = np.sort(np.random.default_rng([seed, 0, 2]).permutation(left)[:count])
    return _read(samples, places, f"{count:,} held-out rows of {samples.source}", places, reader, by)


def _read(
    samples: Samples, places: Ints, called: str, held_out: Ints, reader: LanguageModel, by: str | None
) -> Target:
    """Render some rows, and leave out those without an answer."""
    rendered = list(reader.render(samples, places))
    answered = np.flatnonzero([supervised(row) for row in rendered])
    if not len(answered):
        raise DataPrunerError(f"{safe_text(samples.source, 200)} has no answers that a loss could be read of")
    groups = None if by is None else _groups(samples, by, places[answered])
    return Target(called, [rendered[place] for place in answered.tolist()], groups, held_out)


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


def _groups(samples: Samples, by: str, rows: Ints) -> Groups:
    """Read what rows are of."""
    labels = samples.column(by)
    names, of = encode_labels([labels[place] for place in rows.tolist()])
    counts = np.bincount(of)
    if counts.min() < 2:
        alone = names[int(counts.argmin())]
        raise DataPrunerError(
            f"one row alone of {safe_text(samples.source, 200)} has '{safe_text(alone, 60)}' in the column "
            f"'{safe_text(by, 60)}' and an answer; of each value there must be two at least, or nothing says how far "
            "rows of it differ"
        )
    return Groups(by, names, of)


def refuse_told(recipe: Recipe, target: Target, reader: LanguageModel) -> None:
    """Refuse rows as judges that the scorer was told of."""
    from datapruner.samples.source import load_samples

    for task in tasks_of(recipe.located()):
        try:
            samples = load_samples(task.source, split=task.split, columns=task.columns)
        except DataPrunerError as error:
            logger.warning("whether %s was told of the same rows cannot be seen: %s", task.called, error)
            continue
        told = {row.input_ids.tobytes() for row in reader.render(samples, np.arange(len(samples)))}
        if same := sum(row.input_ids.tobytes() in told for row in target.rows):
            raise DataPrunerError(
                f"{same:,} of the {len(target.rows):,} rows of {safe_text(target.called, 200)} are rows that the "
                f"scorer was told of ({task.called}), and no judges of what it chose; keep some of its rows back, and "
                "give those"
            )
