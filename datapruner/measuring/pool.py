"""The run's side of an engine: blocks of rows are handed to workers as they get free, and what is left stays here.

Workers pull: a slow one holds nobody up, and no row is computed twice, as a block is one worker's. What a worker that
is lost had is handed out once more; what fails, or is lost twice, is left to the run itself, whose own pass over the
rows finds the rest in the store. So whatever becomes of the workers, the result is that of a run without them.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.engines.base import Engine, Worker, WorkerLostError
from datapruner.errors import in_words
from datapruner.files.cache import cache_at
from datapruner.guards.limits import DEFAULTS, limit
from datapruner.measuring.request import Request
from datapruner.models.options import likely_device
from datapruner.progress import bar, say
from datapruner.recipe import MASKS, Recipe
from datapruner.signals.language_model.reader import TOKENS_PER_BATCH
from datapruner.signals.losses import missing_counts_of
from datapruner.signals.measurement import EMBEDDER
from datapruner.signals.plan import Plan, Step
from datapruner.signals.run import Run, tokens_a_row
from datapruner.text import safe_text
from datapruner.version import __version__

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger(__name__)

FEWEST = 16
"""Rows below which no worker is started."""
BLOCKS = 8
"""A worker, at least, so that all end at about one time; but no block has fewer rows than are worth a message."""
BLOCK_ROWS = 32, 4096
BATCHES = 8
"""Of a model, in a block."""
LOST = 2
"""A block that so many workers were lost with is not given to another."""
RESTARTS = 3
"""A worker is started again at most so often."""
LINES, LETTERS = 12, 200
"""Of a worker's log that are shown."""


@dataclass
class Block:
    """Rows that one worker computes.

    Attributes
    ----------
    name : str, optional
        Of the measurement; None where tokens are counted.
    rows : ndarray, int64, ascending
    lost : int
        Workers that were lost with it.
    """

    name: str | None
    rows: Ints
    lost: int = 0

    @property
    def message(self) -> str:
        """Say it to a worker, in ranges."""
        ends = np.flatnonzero(np.diff(self.rows) != 1)
        first, last = self.rows[np.r_[0, ends + 1]], self.rows[np.r_[ends, len(self.rows) - 1]]
        return json.dumps({"measure": self.name, "rows": np.column_stack([first, last]).tolist()})


@contextmanager
def helped(request: Request, plan: Plan, run: Run) -> Iterator[Callable[[], int]]:
    """Let an engine's workers compute what is missing of a run; give what counts the rows computed so far.

    Parameters
    ----------
    request : Request
    plan : Plan
    run : Run
    """
    if request.engine.alone:
        yield lambda: run.store.made
        return
    pool = Pool(request, plan, run)
    run.helped = pool.fill
    try:
        yield lambda: run.store.made + pool.computed
    finally:
        run.helped = None
        pool.close()


def where_is(request: Request) -> str:
    """Say where the cache is: an address, or a folder's absolute path."""
    cache = cache_at(request.cache)
    return str(cache.folder.absolute() if cache.far is None else cache)


def job_of(request: Request, run: Run, steps: dict[str, Step]) -> dict[str, Any]:
    """Say what a worker must know, in plain values: a recipe, and where things are."""
    # What a run checks of its source it has checked; workers' rows are found by what they say.
    recipe = run.asked.located().model_copy(update={"source_content": None, "inputs_content": {}})
    return {
        "version": __version__,
        "folder": str(Path.cwd()),
        "cache": where_is(request),
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True, exclude=set(MASKS)),
        "steps": {name: sorted(step.wanted) for name, step in steps.items()},
        "required": sorted(run.required),
        "feeds": run.feeds,
        "rows": len(run.samples),
        "trust_code": request.objects.trust_code,
        "limits": {name: limit(name) for name in DEFAULTS},
    }


def of_rows_alone(plan: Plan, recipe: Recipe) -> dict[str, Step]:
    """Give the measurements whose signals are each row's own, by name, in their order."""
    found: dict[str, Step] = {}
    known: set[str] = set()
    for step in plan.steps:
        one = step.measurement
        shapes = {given.shape for given in one.gives}
        if one.apart(recipe) and one.needs <= known and shapes != {"other set"}:
            found[one.name] = step
            known |= step.wanted
    return found


class Pool:
    """The workers of a run, started once something is missing, a thread for each that talks to it.

    Parameters
    ----------
    request : Request
    plan : Plan
    run : Run
    """

    def __init__(self, request: Request, plan: Plan, run: Run) -> None:
        self.request, self.run = request, run
        self.engine: Engine = request.engine
        self.steps = of_rows_alone(plan, run.recipe)
        self.computed = 0
        self._todo: SimpleQueue[Block | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Block | None, dict[str, Any]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._workers: dict[int, Worker] = {}
        self._threads: list[threading.Thread] = []
        self._alive = 0
        self._opened = self._closing = self._over = False

    def fill(self, name: str | None) -> None:
        """Have workers compute what is missing of a measurement, or of the tokens; what they leave is missing still."""
        run = self.run
        if self._over or (name is not None and name not in self.steps):
            return
        missing = self._missing(name)
        if missing == 0 or (not self._opened and missing is not None and missing < FEWEST):
            return
        # A language model counts tokens of rows that cleaning dropped, too.
        rows = run.rows if name is not None or run.part else np.arange(len(run.samples), dtype=np.int64)
        if not self._opened:
            self._open()
        blocks = self._blocks(name, rows)
        before = self.computed
        called = "tokens" if name is None else name
        with bar(len(rows) if missing is None else missing, called, "rows", self.request.progress) as shown:
            self._hand_out(blocks, shown, by_rows=missing is None)
        if self.computed > before and missing is not None and self._missing(name) == missing:
            self._over = True
            logger.warning(
                in_words(
                    "what the workers compute is not in the cache %s, which must be one that all of them reach: this "
                    "process computes it again; --cache names another"
                ),
                safe_text(where_is(self.request)),
            )

    def _blocks(self, name: str | None, rows: Ints) -> list[Block]:
        """Cut rows into blocks: as they come, or with those of a length together where batches are of one length.

        A block's last batch of each length is filled with dummies, or its last pack is not full: so a block is some
        batches long, as far as all workers have one.
        """
        run, least = self.run, BLOCK_ROWS[0]
        kind = None if name is None else self.steps[name].measurement.model(run.recipe)
        if kind is not None:
            device = (run.recipe.device or likely_device()).partition(":")[0]
            tokens = run.recipe.batch_tokens or TOKENS_PER_BATCH.get(device, TOKENS_PER_BATCH["cpu"])
            least = max(least, int(BATCHES * tokens / tokens_a_row(run)))
        each = -(-len(rows) // self._alive)
        size = min(max(-(-each // BLOCKS), least), BLOCK_ROWS[1], max(each, 1))
        if kind is not None and run.samples.layout.has_text and (kind == EMBEDDER or not run.recipe.packing):
            texts = run.samples.iter_samples(rows, identity=False)
            lengths = np.fromiter((len(sample.part("both")) for sample in texts), np.int64, len(rows))
            rows = rows[np.argsort(-lengths, kind="stable")]
        return [Block(name, np.sort(rows[start : start + size])) for start in range(0, len(rows), size)]

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            self._closing = True
            workers = list(self._workers.values())
        for worker in workers:
            worker.end()
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join(10)
        if self._opened:
            self.engine.close()

    def _missing(self, name: str | None) -> int | None:
        if name is None:
            return missing_counts_of(self.run)
        one, wanted = self.steps[name]
        return one.missing(self.run, wanted)

    def _open(self) -> None:
        run = self.run
        self._opened = True
        count = self._alive = self.engine.open(where_is(self.request))
        say(f"starting {count} workers ({self.engine.name})", self.request.progress)
        job = json.dumps({"job": job_of(self.request, run, self.steps)})
        for number in range(count):
            thread = threading.Thread(target=self._serve, args=(number, job), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _hand_out(self, blocks: list[Block], shown: tqdm[Any], *, by_rows: bool) -> None:
        """Wait until every block is computed or left."""
        waiting = len(blocks)
        for one in blocks:
            self._todo.put(one)
        while waiting and self._alive:
            block, answer = self._done.get()
            if "told" in answer:
                tell(answer["told"], answer.get("log", ""))
            if block is None:  # a worker that is not used any more
                self._alive -= 1
                continue
            computed = answer.get("computed", 0)
            self.computed += computed
            shown.update(len(block.rows) if by_rows else computed)
            if answer.get("again"):
                self._todo.put(block)
                continue
            waiting -= 1
            if "failed" in answer and self.run.recipe.on_error != "drop":  # this run will say so itself
                waiting -= self._take_back()
        if not self._alive:
            self._over = True
            self._take_back()

    def _take_back(self) -> int:
        """Take blocks back that no worker has begun."""
        taken = 0
        while True:
            try:
                self._todo.get_nowait()
            except Empty:
                return taken
            taken += 1

    def _serve(self, number: int, job: str) -> None:
        """Talk to one worker: in a thread."""
        worker: Worker | None = None
        starts = 0
        while (block := self._todo.get()) is not None:
            said: dict[str, Any] = {}
            try:
                if worker is None:
                    starts += 1
                    worker = self._start(number)
                    said = json.loads(worker.ask(job))
                if "error" not in said:
                    said = json.loads(worker.ask(block.message))
            except WorkerLostError as error:
                said = {"error": str(error), "lost": True}
            except Exception as error:  # the engine's own, such as a cluster that cannot be reached
                said = {"error": f"{type(error).__name__}: {error}"}
            if self._closing:
                return
            if "error" not in said:
                self._done.put((block, said))
                continue
            # Another worker may do better: a device's memory is full, a machine does not see the source.
            log = "" if worker is None else _put_down(worker)
            worker = None
            block.lost += 1
            goes_on = "lost" in said and starts <= RESTARTS
            how = "is lost and is started again" if goes_on else "is given up, and others do its rows"
            self._done.put(
                (
                    block,
                    {
                        "computed": said.get("computed", 0),
                        "again": block.lost < LOST,
                        "told": f"a worker {how}: {said['error']}",
                        "log": log,
                    },
                )
            )
            if not goes_on:
                self._done.put((None, {}))
                return

    def _start(self, number: int) -> Worker:
        with self._lock:
            if self._closing:
                raise WorkerLostError("the run has ended")
            worker = self._workers[number] = self.engine.start(number, self.run.recipe.device)
        return worker


def _put_down(worker: Worker) -> str:
    """End a worker, whatever state it is in; give the end of its log."""
    try:
        log = worker.log()
        worker.end()
    except Exception as error:
        log = f"{type(error).__name__}: {error}"
    return log


def tell(sentence: str, log: str) -> None:
    """Say what became of a worker, with the end of its log."""
    lines = [line for line in log.splitlines() if line.strip()][-LINES:]
    logger.warning(
        "%s%s",
        safe_text(in_words(sentence), 2 * LETTERS),
        "".join(f"\n  | {safe_text(line, LETTERS)}" for line in lines),
    )
