"""The sets that ``--target`` names: their rows, read and refused before anything is measured."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xxhash

from datapruner.arrays import Ints
from datapruner.cleaning.steps.no_answer import unanswered
from datapruner.errors import DataPrunerError, in_words
from datapruner.recipe.targets import Task, tasks_of

if TYPE_CHECKING:
    from datapruner.geometry.blocks import Matrix
    from datapruner.inputs import Inputs
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples

logger = logging.getLogger(__name__)

OPTIONS = ("columns", "split", "embeddings")
"""What is said of a set by an option that has another name where it is a target."""


class TargetSet(NamedTuple):
    """The rows of a task's target."""

    task: Task
    samples: Samples

    @contextmanager
    def told(self) -> Iterator[None]:
        """Say of which target it is what is refused inside."""
        with told(self.task):
            yield


@contextmanager
def told(task: Task) -> Iterator[None]:
    """Say of which task's target it is what is refused inside."""
    try:
        yield
    except DataPrunerError as error:
        said = error.sentence
        for option in OPTIONS:
            said = said.replace(f"--{option}", f"--target-{option}")
        raise DataPrunerError(f"{task.called}: {said}") from error


def read_targets(recipe: Recipe, inputs: Inputs) -> list[TargetSet]:
    """Read all of them, and refuse rows that cannot stand for what is looked for.

    Parameters
    ----------
    recipe : Recipe
    inputs : Inputs
        Is told their rows, and may refuse them.

    Raises
    ------
    DataPrunerError
        One is not there, has no rows, or has rows without an answer, where answers are read.
    """
    from datapruner.samples import load_samples

    found = []
    for task in tasks_of(recipe):
        with told(task):
            samples = load_samples(
                task.source,
                split=task.split,
                columns=task.columns,
                embeddings_given=bool(task.embeddings or recipe.embedding_column),
            )
            inputs.rows(task.key, samples)
            if samples.layout.has_text and recipe.embed != "prompt" and recipe.on_empty != "keep":
                empty = unanswered(samples, np.arange(len(samples), dtype=np.int64))
                if empty.size:
                    raise DataPrunerError(
                        f"row {empty[0]} has no answer ({empty.size:,} such rows), so that it does not say what is "
                        "looked for; give it one, or take it out"
                    )
        found.append(TargetSet(task, samples))
    return found


def tell_shared(targets: Sequence[TargetSet], samples: Samples, rows: Ints) -> None:
    """Say how many rows of the target are among the rows that are chosen from."""
    reading = [target for target in targets if target.samples.layout.has_text]
    if not (samples.layout.has_text and reading):
        return

    def hashed(of: Samples, some: Ints) -> Iterator[bytes]:
        for sample in of.iter_samples(some, identity=False):
            yield xxhash.xxh3_128_digest(sample.fed().encode("utf-8", "surrogatepass"))

    wanted = {
        digest
        for target in reading
        for digest in hashed(target.samples, np.arange(len(target.samples), dtype=np.int64))
    }
    there = [
        (row, digest)
        for row, digest in zip(rows.tolist(), hashed(samples, rows), strict=True)
        if digest in wanted
    ]
    if there:
        logger.warning(
            in_words(
                "%s of the target's %s rows are among the data, %s first, and will be chosen before all others; "
                "what is measured on the target tells little then: --decontaminate leaves such rows out"
            ),
            f"{len({digest for _, digest in there}):,}",
            f"{sum(len(target.samples) for target in targets):,}",
            samples.row_words(there[0][0]),
        )


def joined(matrices: Sequence[Matrix]) -> Matrix:
    """Put the vectors of all tasks one after the other.

    Raises
    ------
    DataPrunerError
        They are of different widths.
    """
    if len(matrices) == 1:
        return matrices[0]
    if len(widths := {matrix.shape[1] for matrix in matrices}) > 1:
        raise DataPrunerError(
            f"the targets' vectors have {' and '.join(map(str, sorted(widths)))} numbers; embed all of them, and the "
            "rows, with the same model"
        )
    return np.concatenate([np.asarray(matrix[:]) for matrix in matrices])
