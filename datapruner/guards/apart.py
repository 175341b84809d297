"""Programs of somebody else's that cannot be stopped in this process run in a child, which can be ended at any time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.guards.bounded import CHILD_BYTES, SECONDS, bounded, confine

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess


class Raised(Exception):  # noqa: N818 - no fault of ours
    """What the program raised, in its own words."""


class Apart:
    """A function of this process that is called in a child, forked at the first call; on Linux alone, else here.

    Parameters
    ----------
    what : str
        What is running, for the sentence: ``the chat template``.
    run : callable
        Gets what it is called with, and gives a text.
    seconds : float, optional
        For a call.
    """

    def __init__(self, what: str, run: Callable[..., str], seconds: float = SECONDS) -> None:
        self.what, self.run, self.seconds = what, run, seconds
        self._lock = threading.Lock()
        self._owner = 0
        self._child: tuple[BaseProcess, Connection] | None = None

    def __call__(self, *arguments: Any, **options: Any) -> str:
        """Call it.

        Raises
        ------
        DataPrunerError
            It takes too long, or too much memory, or breaks its process.
        Raised
            It raised something itself.
        """
        if sys.platform != "linux":
            with bounded(self.what, self.seconds):  # reaches less than a child's end does
                return self.run(*arguments, **options)
        with self._lock:
            connection = self._started()
            try:
                connection.send((arguments, options))
                if not connection.poll(self.seconds):
                    self.end()
                    raise DataPrunerError(
                        f"{self.what} takes longer than {self.seconds:g} s, and may be without end"
                    )
                fine, said = connection.recv()
            except (EOFError, OSError) as error:
                self.end()
                raise DataPrunerError(
                    f"{self.what} cannot be used: it breaks its process, or wants more than {CHILD_BYTES >> 30} GB"
                ) from error
        if fine is None:
            raise DataPrunerError(f"{self.what} takes more than {CHILD_BYTES >> 30} GB of memory")
        if not fine:
            raise Raised(said)
        return str(said)

    def end(self) -> None:
        """End the child, if there is one of this process."""
        if self._child is not None and self._owner == os.getpid():
            child, connection = self._child
            connection.close()
            child.kill()
            child.join()
        self._child = None

    def __del__(self) -> None:
        with suppress(Exception):  # the interpreter may be on its way out
            self.end()

    def _started(self) -> Connection:
        if self._child is None or self._owner != os.getpid():
            import multiprocessing

            ours, theirs = multiprocessing.Pipe()
            context = multiprocessing.get_context("fork")
            child = context.Process(target=_serve, args=(theirs, ours, self.run), daemon=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of threads, of which the child uses none
                child.start()
            theirs.close()
            self._child, self._owner = (child, ours), os.getpid()
        return self._child[1]


def _serve(connection: Connection, other: Connection, run: Callable[..., str]) -> None:
    """Answer calls until nobody asks."""
    other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    confine()
    while True:
        try:
            arguments, options = connection.recv()
        except EOFError:
            return
        answer: tuple[bool | None, str]
        try:
            answer = True, run(*arguments, **options)
        except MemoryError:
            answer = None, ""
        except Exception as error:
            answer = False, str(error)[:4000]
        connection.send(answer)
