"""A part of a run's rows, measured into the store and nothing else: a task of a Slurm array, or of any scheduler.

Tasks know nothing of each other. Each reads the source, cleans it by its texts, and measures what of its rows is not
stored; signals that depend on all rows (neighbours, a manifold), and what needs those, are left to the run without a
part, which finds everything else, and is what ranks and chooses.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from datapruner.errors import DataPrunerError
from datapruner.measuring.measure import begin, feed_and_clean, take
from datapruner.measuring.pool import helped
from datapruner.measuring.request import Request
from datapruner.text import safe_text

BLOCK_ROWS = 1 << 10
"""Rows of the source that stay in one part at most, so that a part reads few places of a large file."""
BLOCKS = 16
"""Of a part, where there are so many rows: neighbours in a file are often alike, and so is what they cost."""
MOST = 100_000


class Part(NamedTuple):
    """One of so many parts, counted from 1."""

    number: int
    of: int

    @classmethod
    def read(cls, written: str) -> Part:
        """Read ``2/8``.

        Raises
        ------
        DataPrunerError
            It is no part of anything.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", written.strip())
        part = cls(0, 0) if found is None else cls(int(found[1]), int(found[2]))
        if not 1 <= part.number <= part.of <= MOST:
            raise DataPrunerError(
                f"--shard is the part of the rows that this task measures, such as 1/8 up to 8/8, not "
                f"'{safe_text(written, 40)}'"
            )
        return part


class PartDone(NamedTuple):
    """What a task did.

    Attributes
    ----------
    part : Part
    rows, all_rows : int
        Rows of the part, and of all parts, after texts were cleaned.
    computed : dict
        Measurement -> the rows that were not stored.
    left : list of str
        Measurements that the run without a part makes.
    """

    part: Part
    rows: int
    all_rows: int
    computed: dict[str, int]
    left: list[str]

    def __str__(self) -> str:
        """Say it in a few lines."""
        lines = [f"part {self.part.number}/{self.part.of}: {self.rows:,} of {self.all_rows:,} rows"]
        lines += [f"  {name}: {rows:,} computed" for name, rows in self.computed.items()]
        if self.left:
            lines.append(
                f"  {', '.join(self.left)}: measured of all rows together, by the run without --shard"
            )
        lines.append("when every part is done, the same command without --shard finds them all, and chooses")
        return "\n".join(lines)


def measure_part(request: Request, part: Part) -> PartDone:
    """Measure the rows of a part into the store.

    Parameters
    ----------
    request : Request
        The whole run's.
    part : Part
    """
    begun = begin(request)
    plan, run, stage = begun.plan, begun.run, begun.stage
    every = len(run.rows)
    block = min(max(len(run.samples) // (BLOCKS * part.of), 1), BLOCK_ROWS)
    stage.rows = run.rows[run.rows // block % part.of == part.number - 1]
    run.keep(stage.rows)
    run.part = True
    rows, computed, left = len(run.rows), {}, []
    with run.samples.naming(), helped(request, plan, run) as made:
        if rows and plan.feeds(run.recipe):
            feed_and_clean(run, stage, plan)
        # No step that reads signals cleans: which of two rows goes may depend on one of another part.
        for step in plan.steps:
            one = step.measurement
            if one.together or one.needs - run.signals.keys():
                left.append(one.name)
            elif len(run.rows):
                before = made()
                take(run, stage, [step], plan)
                computed[one.name] = made() - before
    return PartDone(part, rows, every, computed, left)
