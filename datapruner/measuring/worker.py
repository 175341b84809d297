"""The worker's side: what reads a run's rows once, opens its models once, and measures blocks into the store.

It is started by an engine, and answers messages, JSON both ways: a job (a recipe, its measurements, where the cache
is), then blocks. What is wrong with a block is an answer like any other, since whoever asked computes it himself then.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.cleaning.own_text import OwnText
from datapruner.errors import DataPrunerError
from datapruner.guards.limits import limited
from datapruner.inputs import Inputs
from datapruner.measuring.reading import read_samples
from datapruner.models.keeping import keep_open
from datapruner.parts import MEASUREMENTS, find_class
from datapruner.recipe import Recipe
from datapruner.signals.failing import RowsFailedError
from datapruner.signals.losses import counts_of, feed
from datapruner.signals.measurement import LANGUAGE_MODEL, Measurement
from datapruner.signals.outlook import timed
from datapruner.signals.plan import Step
from datapruner.signals.run import Fed, Objects, Run
from datapruner.signals.store import SignalStore
from datapruner.version import __version__


class Work:
    """A run's rows, and its measurements of a row alone.

    Parameters
    ----------
    job : mapping
        See :func:`datapruner.measuring.pool.job_of`.
    keeps : bool
        Models of a measurement stay open from one block to the next.
    """

    def __init__(self, job: Mapping[str, Any], *, keeps: bool) -> None:
        if job["version"] != __version__:
            raise DataPrunerError(
                f"the worker has datapruner {__version__}, and the run {job['version']}; install the same on all "
                "machines"
            )
        if not Path(job["folder"]).is_dir():
            raise DataPrunerError(
                f"the worker does not see the folder {job['folder']} that the run is in; paths must be those of a "
                "file system that all machines share"
            )
        os.chdir(job["folder"])
        recipe = Recipe.model_validate_json(json.dumps(job["recipe"]))
        self.steps = {
            name: Step(find_class(MEASUREMENTS, name, Measurement)(), frozenset(wanted))
            for name, wanted in job["steps"].items()
        }
        samples = read_samples(recipe)
        if len(samples) != job["rows"]:
            raise DataPrunerError(
                f"the worker reads {len(samples):,} rows, and the run {job['rows']:,}: the source has changed, or is "
                "another one there"
            )
        self.run = Run(
            recipe,
            samples,
            SignalStore(job["cache"]),
            OwnText(samples, recipe.similarity_context, briefly=True),
            Inputs({}),
            np.arange(len(samples), dtype=np.int64),
            Objects(trust_code=job["trust_code"]),
            progress=False,
            required=frozenset(job["required"]),
            feeds=job["feeds"],
            unread=np.zeros(len(samples), dtype=np.bool_),
            part=True,
        )
        for one, wanted in self.steps.values():
            self.run.prepared[one.name] = one.prepare(self.run, wanted)
        self.reader: Any = None
        self.keeps = keeps
        self.last: str | None = ""

    def measure(self, name: str | None, rows: Ints) -> None:
        """Measure some rows into the store; without a name, count their tokens as the language model reads them."""
        run = self.run
        run.rows, run.signals, run.tokens, run.fed = rows, {}, {}, None
        if self.keeps and name != self.last:
            self.last = name
            keep_open()
        steps = [] if name is None else self._with_needed(name)
        if name is None or (run.feeds and any(_reads_tokens(step.measurement, run.recipe) for step in steps)):
            if self.reader is None:
                run.fed = feed(run)
                self.reader = run.fed.reader
                run.recipe = run.recipe.model_copy(update={"max_length": self.reader.max_length})
            else:
                run.fed = Fed(self.reader, counts_of(run, self.reader))
        for one, wanted in steps:
            with timed(run, one):
                run.signals |= one.measure(run, wanted)

    def _with_needed(self, name: str) -> list[Step]:
        """Give a step after those whose signals it needs, which are stored by now."""
        step = self.steps[name]
        before: list[Step] = []
        for need in sorted(step.measurement.needs):
            giver = next(one for one in self.steps.values() if need in one.wanted)
            before += [one for one in self._with_needed(giver.measurement.name) if one not in before]
        return [*before, step]


def _reads_tokens(one: Measurement, recipe: Recipe) -> bool:
    return one.model(recipe) == LANGUAGE_MODEL or one.name == "tokens"


class Service:
    """Answers messages: ``{"job": ...}`` first, then ``{"measure": NAME, "rows": [[first, last], ...]}``.

    Parameters
    ----------
    keeps : bool
        The process is a worker and nothing else, so that what it loads may stay open.
    """

    def __init__(self, *, keeps: bool = False) -> None:
        self.keeps = keeps
        self.work: Work | None = None
        self.limits: Mapping[str, int] = {}

    def ask(self, message: str) -> str:
        """Carry out a message; the answer is how many rows were computed, or what was in the way."""
        given = json.loads(message)
        answer: dict[str, Any] = {}
        before = 0 if self.work is None else self.work.run.store.made
        try:
            if "job" in given:
                self.limits = given["job"]["limits"]
                with limited(self.limits):
                    self.work = Work(given["job"], keeps=self.keeps)
            else:
                assert self.work is not None
                rows = np.concatenate([np.arange(first, last + 1) for first, last in given["rows"]])
                with limited(self.limits), self.work.run.samples.naming():
                    self.work.measure(given["measure"], rows.astype(np.int64))
        except RowsFailedError as error:  # the others are stored
            answer["failed"] = error.sentence
        except DataPrunerError as error:
            answer["error"] = error.sentence
        except Exception as error:
            traceback.print_exc()
            answer["error"] = f"{type(error).__name__}: {error}"
        answer["computed"] = 0 if self.work is None else self.work.run.store.made - before
        return json.dumps(answer)


def main() -> None:
    """Answer the lines of standard input; the process ends with it, whatever it does then."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    messages: SimpleQueue[str] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            messages.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    service = Service(keeps=True)
    with suppress(BrokenPipeError):
        while True:
            answers.write(f"{service.ask(messages.get())}\n")
            answers.flush()
    os._exit(0)
