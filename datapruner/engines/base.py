"""The contract of engines: they start workers and carry messages to them, and no row travels through them.

A run hands out blocks of rows, a message each, to workers as they get free; what these compute they write into the
store that all share, and they answer with a count. The messages are JSON: a recipe with the places of things, and row
numbers. So a worker is given no code, and an engine knows nothing of what is measured.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from datapruner.errors import DataPrunerError
from datapruner.parameters import Parameters, build
from datapruner.parts import ENGINES, built_in, find_class
from datapruner.text import safe_text

SERVICE = "datapruner.measuring.worker"
"""The module whose ``Service`` answers messages, wherever an engine starts it."""
MOST = 1000
"""Workers of a run: each is a process, and has a thread that talks to it; more is a slip of the hand."""


class WorkerLostError(Exception):
    """A worker is gone; the argument says how, and may hold the end of its log."""


class Worker(ABC):
    """A process somewhere that answers messages, one at a time."""

    @abstractmethod
    def ask(self, message: str) -> str:
        """Send a message to the worker's ``Service``, and wait for its answer; called in a thread of its own.

        Raises
        ------
        WorkerLostError
            It died, or :meth:`end` was called meanwhile.
        """

    @abstractmethod
    def end(self) -> None:
        """End it at once, whatever it does; called by another thread than :meth:`ask`, and perhaps twice."""

    def log(self) -> str:
        """Give the end of what it has written for people."""
        return ""


@dataclass
class Engine(Parameters, ABC):
    """Base of all engines: a dataclass whose fields are the options that it reads.

    A worker must end when the run that started it does, however that ends.

    Attributes
    ----------
    name : str
        The file's, or the entry point's.
    workers : int, optional
    """

    name: ClassVar[str]
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        super().__post_init__()
        if self.workers is not None and not 1 <= self.workers <= MOST:
            raise DataPrunerError(f"--workers is a whole number from 1 to {MOST:,}, not {self.workers:,}")

    @property
    def alone(self) -> bool:
        """Whether the run computes everything itself, so that no worker is ever asked for."""
        return False

    def open(self, cache: str) -> int:
        """Reach the machines, before the first worker is started; give how many workers there will be.

        Parameters
        ----------
        cache : str
            Where the store is, which all workers must reach.
        """
        assert self.workers is not None
        return self.workers

    @abstractmethod
    def start(self, number: int, device: str | None) -> Worker:
        """Start a worker, or start it again; called in threads.

        Parameters
        ----------
        number : int
            From 0, below what :meth:`open` gave.
        device : str, optional
            The device that the run asks for.
        """

    def close(self) -> None:
        """Leave the machines; all workers have ended."""


def make_engine(given: str | Engine, **options: Any) -> Engine:
    """Make an engine by its name, of options that may be None where nothing was said.

    Raises
    ------
    DataPrunerError
        There is no such engine, or an option is another one's.
    """
    said = {name: value for name, value in options.items() if value is not None}
    if isinstance(given, Engine):
        if said:
            raise DataPrunerError(
                f"--{_flag(next(iter(said)))} is for an engine that is named; this one is an object"
            )
        return given
    if not isinstance(given, str):
        raise DataPrunerError(f"--engine takes a name or an Engine object, not a {type(given).__name__}")
    cls = find_class(ENGINES, given, Engine)
    own = {spec.name for spec in fields(cls)}
    for option in said:
        if option not in own:
            others = [name for name in built_in(ENGINES) if option in _options(name)]
            raise DataPrunerError(
                f"--{_flag(option)} is for --engine={' or '.join(others)}, and this run has "
                f"--engine={safe_text(given, 60)}"
            )
    made: Engine = build(cls, given, said)
    return made


def _options(engine: str) -> set[str]:
    return {spec.name for spec in fields(find_class(ENGINES, engine, Engine))}


def _flag(option: str) -> str:
    return option.replace("_", "-")
