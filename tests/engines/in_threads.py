"""An engine whose workers are threads of this process, and the run that the tests give it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import ClassVar

import datapruner as dp
from datapruner.engines.base import Engine, Worker, WorkerLostError
from datapruner.measuring.worker import Service
from tests.test_parts_of_a_run import tree

ROWS = 90
LIBRARIES = threading.Lock()
"""Transformers changes its own classes while it opens a model, and not for several threads."""


class Thread(Worker):
    """A worker in this process: its service, and what was said."""

    def __init__(self, engine: InThreads, number: int) -> None:
        self.engine, self.number, self.ended = engine, number, False
        self.service = Service()

    def ask(self, message):
        self.engine.said.append(message)
        if self.ended or self.engine.loses(self.number, message):
            raise WorkerLostError("it was ended by signal 9")
        with LIBRARIES:
            answer = self.service.ask(message)
        self.engine.said.append(answer)
        return answer

    def end(self):
        self.ended = True

    def log(self):
        return "Traceback\nthe last line\x1b[31m\n"


@dataclass
class InThreads(Engine):
    """Workers without processes; ``loses`` says which of them dies at which message."""

    name: ClassVar[str] = "in_threads"
    said: list = field(default_factory=list)
    loses: object = lambda number, message: False
    started: list = field(default_factory=list)
    closed: int = 0

    def start(self, number, device):
        self.started.append(number)
        return Thread(self, number)

    def close(self):
        self.closed += 1


def pruned(source, model, cache, engine="local", **more):
    return dp.prune(
        str(source),
        scorer="ifd",
        keep=0.5,
        model=str(model),
        dedup=True,
        on_empty="drop",
        cache=cache,
        progress=False,
        engine=engine,
        **more,
    )


def bytes_of(selection, folder):
    selection.save(folder)
    return tree(folder)
