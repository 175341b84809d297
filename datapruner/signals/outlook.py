"""What a run has before it: a line for each measurement, with its rows, what of them is stored, and the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from datapruner.progress import LONG, duration, tell
from datapruner.signals.measurement import Measurement
from datapruner.signals.plan import Plan
from datapruner.signals.run import Run
from datapruner.text import safe_text

LEAST_ROWS, LEAST_SECONDS = 256, 2.0
"""What has to be measured for its pace to be noted: so much that opening a model weighs little."""
LEAST_DISK = 1_000_000
"""Fewer bytes are not told."""


@dataclass(frozen=True)
class Foreseen:
    """A measurement that is to come.

    Attributes
    ----------
    name : str
    rows : int
        Those that cleaning has left.
    missing : int, optional
        Those that are not stored; None where only measuring tells.
    seconds : float
        What it takes, about; where ``missing`` is not known, at most.
    disk : int
        Bytes that it stores, about, where that is worth telling; else 0.
    """

    name: str
    rows: int
    missing: int | None
    seconds: float
    disk: int = 0

    def cells(self) -> list[str]:
        """Give the cells of its line."""
        if self.missing is None:
            held = "not known what is stored"
        elif not self.missing:
            held = "all stored"
        else:
            held = f"{self.rows - self.missing:,} stored" if self.missing < self.rows else "none stored"
        stored = f", {self.disk / 1e6:,.0f} MB on disk" if self.disk >= LEAST_DISK else ""
        return [self.name, f"{self.rows:,} rows", held, told(self.seconds, self.missing is None) + stored]


@dataclass(frozen=True)
class Outlook:
    """What a run would measure, as far as can be told before any model runs.

    Attributes
    ----------
    rows : int
        Of the source.
    left : int
        Those that the cleaning steps which read texts alone have left.
    steps : tuple of Foreseen
        In their order.
    parts : tuple of str
        What each part of the default recipe has dropped so far, or will do; a line each, where that runs.
    """

    rows: int
    left: int
    steps: tuple[Foreseen, ...]
    parts: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """What all of them take, about."""
        return sum(step.seconds for step in self.steps)

    def lines(self) -> list[str]:
        """Give a line for each measurement, and one for all."""
        if not self.steps:
            return [*self.parts, f"{self.left:,} of {self.rows:,} rows, and nothing to measure"]
        cells = [step.cells() for step in self.steps]
        widths = [max(len(row[place]) for row in cells) for place in range(3)]
        return [
            *self.parts,
            f"{self.left:,} of {self.rows:,} rows to measure:",
            *(
                f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}"
                for row in cells
            ),
            f"  all together: {told(self.seconds, any(step.missing is None for step in self.steps))}",
        ]

    def __str__(self) -> str:
        """Give the lines."""
        return "\n".join(self.lines())


def told(seconds: float, at_most: bool = False) -> str:
    """Say how long something takes."""
    if seconds < 1:
        return "no time"
    return ("at most " if at_most else "about ") + (
        f"{seconds:.0f} s" if seconds < LONG else duration(seconds)
    )


def outlook(plan: Plan, run: Run) -> Outlook:
    """Look ahead: no model is opened, nothing is written."""
    steps = []
    for one, wanted in plan.steps:
        missing = one.missing(run, wanted)
        rows = len(run.rows) if missing is None else missing
        steps.append(
            Foreseen(
                safe_text(one.name, 60),
                len(run.rows),
                missing,
                one.seconds(run, wanted, rows),
                rows * one.disk(run, wanted),
            )
        )
    return Outlook(len(run.samples), len(run.rows), tuple(steps))


def tell_outlook(plan: Plan, run: Run) -> None:
    """Say what lies before a long run; what is stored is looked at only where the run might be long without it."""
    rows = len(run.rows)
    if not run.progress or sum(one.seconds(run, wanted, rows) for one, wanted in plan.steps) <= LONG:
        return
    if (found := outlook(plan, run)).seconds > LONG:
        for line in found.lines():
            tell(line)


@contextmanager
def timed(run: Run, one: Measurement) -> Iterator[None]:
    """Note the pace of what is measured inside, for the outlook of later runs."""
    before, since = run.store.made, time.monotonic()
    yield
    made, seconds = run.store.made - before, time.monotonic() - since
    if made >= LEAST_ROWS and seconds >= LEAST_SECONDS:
        one.note_pace(run, seconds / made)
