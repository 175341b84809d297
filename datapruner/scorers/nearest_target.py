"""The rows nearest to those of a target: representation-based selection (RDS+, arXiv 2503.01807)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.errors import DataPrunerError
from datapruner.geometry.blocks import Matrix, iter_blocks, normalise_rows
from datapruner.geometry.turns import shared_turns, take_turns
from datapruner.parameters import as_written
from datapruner.ranking import Ranking
from datapruner.scorers._target import unit_target
from datapruner.scorers.base import Scorer
from datapruner.selection.selector import Selector
from datapruner.signals import (
    TARGET,
    TARGET_GRADIENT,
    TARGET_SHARE,
    TARGET_SKETCH,
    TARGET_STATE,
    TARGET_TASK,
    Signals,
)


class Vectors(NamedTuple):
    """Two signals that are compared: of the rows, and of the target's."""

    rows: str
    target: str


REPRESENTATIONS: Mapping[str, Vectors] = {
    "state": Vectors("pooled_state", TARGET_STATE),
    "embedding": Vectors("embedding", TARGET),
    "sketch": Vectors("output_sketch", TARGET_SKETCH),
    "gradient": Vectors("gradient_sketch", TARGET_GRADIENT),
}
"""What stands for a row; another kind of vectors is one more line."""
BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class NearestTarget(Scorer):
    """Take the rows nearest to the rows of a target, each of which chooses in turn.

    *Published* (RDS+, arXiv 2503.01807): a row is the mean of its last hidden states over all tokens, prompt and
    answer, later ones counting more (v = sum_t t h_t / sum_t t), under the model that will be trained; similarity is
    the cosine; round-robin: a row of the target takes its most similar row that nobody has taken, then the next one
    does; several tasks likewise. ``doubly_greedy``, by the highest similarity to any row of the target, and ``mean``,
    by the mean similarity to all of them, are the usual alternatives (compared in arXiv 2602.14696). *Ours*: tasks with
    shares, whose turns are never a whole one away from what was asked for, whatever the budget is; ties by row; any
    vectors in the place of the states; the order is exact, and the table of all similarities is never in memory.

    The value is the turn in which a row was taken, the first = the highest. Columns say by which row of which task's
    target, as its how manyth, and at what cosine. Values depend on the order of equal rows.

    Parameters
    ----------
    selection : {"round_robin", "doubly_greedy", "mean"}
        Who chooses for a task: its rows in turn, whichever of its rows is nearest, or their mean.
    representation : {"state", "embedding", "sketch", "gradient"}
        What stands for a row: the model's states; the vectors of the embedder or given ones; or what the model would
        learn of it, a sketch of its gradient by the output layer (no further pass) or by every linear layer (two
        passes, about), whose cosine with a target row's says whether a step on one lowers the other's loss. Published
        for an adapter's gradients at a warm-up's checkpoints, which ``--sketch-checkpoints`` names (LESS, arXiv
        2402.04333, see :mod:`datapruner.signals.checkpoints`); ours without these, see
        :mod:`datapruner.signals.language_model.sketch`.
    """

    selection: Literal["round_robin", "doubly_greedy", "mean"] = "round_robin"
    representation: Literal["state", "embedding", "sketch", "gradient"] = "state"
    name: ClassVar[str] = "nearest_target"
    needs: ClassVar[frozenset[str]] = frozenset({*REPRESENTATIONS["state"], TARGET_TASK, TARGET_SHARE})
    holds: ClassVar[frozenset[str] | None] = frozenset(
        {"turn", "task", "query", "choice", "target_similarity"}
    )
    paper: ClassVar[str] = "arXiv 2503.01807"
    provenance: ClassVar[str] = "published; shares of tasks, ties and other vectors than the states ours"

    @property
    def requires(self) -> frozenset[str]:
        """The vectors of both sets, and the target's tasks."""
        return frozenset({*REPRESENTATIONS[self.representation], TARGET_TASK, TARGET_SHARE})

    @property
    def promises(self) -> frozenset[str]:
        """Nothing: of equal rows the first is taken first."""
        return frozenset()

    def selector(self) -> Selector:
        """Give the one whose reasons say who chose a row."""
        from datapruner.selection.selectors.turns import Turns

        return Turns()

    def _score(self, signals: Signals) -> Ranking:
        of = REPRESENTATIONS[self.representation]
        matrix: Matrix = signals.matrix(of.rows)
        target = unit_target(signals.matrix(of.target), matrix.shape[1]).astype(np.float64)
        tasks = tasks_of(list(signals.texts(TARGET_TASK)), signals.column(TARGET_SHARE))
        n = signals.num_rows
        by_task = shared_turns([task.weight for task in tasks], n)
        starts = np.array([task.first for task in tasks], dtype=np.int64)
        if self.selection == "round_robin":
            turns = _by_rows(by_task, tasks)
            rows, similarity = take_turns(matrix, lambda block: block @ target.T, len(target), turns)
            query = turns - starts[by_task]
        elif self.selection == "doubly_greedy":
            rows, similarity = take_turns(
                matrix,
                lambda block: np.maximum.reduceat(block @ target.T, starts, axis=1),
                len(tasks),
                by_task,
            )
            query = _nearest_of(matrix, rows, target, by_task, tasks)
        else:
            means = np.stack([target[task.rows].mean(axis=0) for task in tasks])
            rows, similarity = take_turns(matrix, lambda block: block @ means.T, len(tasks), by_task)
            query = np.full(n, -1, dtype=np.int64)
        choice = _counted(by_task, query)
        names = np.array([task.name for task in tasks])
        turn = np.empty(n, dtype=np.int64)
        turn[rows] = np.arange(1, n + 1)
        place = turn - 1
        return Ranking(
            -turn.astype(np.float64),
            columns={
                "turn": turn,
                "task": names[by_task[place]],
                "query": query[place],
                "choice": choice[place],
                "target_similarity": np.clip(similarity[place].astype(np.float64), -1, 1),
            },
        )


class Task(NamedTuple):
    """The rows of the target that belong to a task, and how its share is to the others'."""

    name: str
    first: int
    stop: int
    weight: int

    @property
    def rows(self) -> slice:
        """Its rows of the target."""
        return slice(self.first, self.stop)


def tasks_of(names: list[str], shares: Floats) -> list[Task]:
    """Take the tasks out of what is said of the target's rows."""
    if not names:
        raise DataPrunerError("the target has no rows; name one that has with --target")
    edges = [0, *(row for row in range(1, len(names)) if names[row] != names[row - 1]), len(names)]
    written = [as_written(float(shares[first])) for first in edges[:-1]]
    scale = math.lcm(*(share.denominator for share in written))
    whole = [int(share * scale) for share in written]
    common = math.gcd(*whole)
    if not common or min(whole) < 0:
        raise DataPrunerError("--target-share gives no task a share; a share is a number above 0")
    return [
        Task(names[first], first, stop, weight // common)
        for first, stop, weight in zip(edges[:-1], edges[1:], whole, strict=True)
    ]


def _by_rows(by_task: Ints, tasks: list[Task]) -> Ints:
    """Let a task's turns go round among its rows."""
    out = np.empty(len(by_task), dtype=np.int64)
    for number, task in enumerate(tasks):
        here = np.flatnonzero(by_task == number)
        out[here] = task.first + np.arange(len(here)) % (task.stop - task.first)
    return out


def _nearest_of(matrix: Matrix, rows: Ints, target: Floats, by_task: Ints, tasks: list[Task]) -> Ints:
    """Give which of its task's rows is nearest to each row, in the order in which these were taken."""
    of_row = np.empty(len(rows), dtype=np.int64)
    of_row[rows] = by_task
    nearest = np.empty(len(rows), dtype=np.int64)
    for start, stop, block in iter_blocks(matrix, block_bytes=BLOCK_BYTES):
        normalise_rows(block, start, matrix=matrix)
        for number, task in enumerate(tasks):
            here = np.flatnonzero(of_row[start:stop] == number)
            cosines = (block[here] @ target[task.rows].T).astype(np.float32)
            nearest[start + here] = cosines.argmax(axis=1)
    return nearest[rows]


def _counted(by_task: Ints, query: Ints) -> Ints:
    """Count the rows that each took, from 1, in the order in which it did."""
    pairs = np.unique(np.stack([by_task, query]), axis=1, return_inverse=True)[1].reshape(-1)
    order = np.argsort(pairs, kind="stable")
    sizes = np.bincount(pairs)
    out = np.empty(len(pairs), dtype=np.int64)
    out[order] = np.arange(len(pairs)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    return out
