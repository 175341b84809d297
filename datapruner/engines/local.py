"""Processes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from datapruner.engines.base import SERVICE, Engine, Worker, WorkerLostError

PROGRAM = (
    f"import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); from {SERVICE} import main; main()"
)
"""What a worker runs: it looks for modules where this process does, and takes nothing else from it than messages."""
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
TAIL = 4000
"""Bytes at the end of a log that are shown."""


class Process(Worker):
    """A process that reads messages from a pipe; it ends when the pipe closes, as it does whenever this process ends.

    Parameters
    ----------
    environment : dict
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the worker
        # Not forked, since torch's threads are gone in a child; in a group of its own, as Ctrl-C is this process's.
        self._process = subprocess.Popen(  # noqa: S603 - this Python, and the line above
            [sys.executable, "-P", "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            text=True,
            encoding="utf-8",
            process_group=0,
        )
        self.pid: int = self._process.pid
        with suppress(OSError):  # it is gone already, which the first message tells
            self._send(json.dumps([place for place in sys.path if isinstance(place, str)]))

    def ask(self, message: str) -> str:
        """Write a line, and wait for the answer's."""
        try:
            self._send(message)
            assert self._process.stdout is not None
            answer: str = self._process.stdout.readline()
        except (OSError, ValueError):
            answer = ""
        if not answer.endswith("\n"):
            code = self._process.wait()
            raise WorkerLostError(f"it was ended by signal {-code}" if code < 0 else f"it ended with {code}")
        return answer

    def end(self) -> None:
        """Kill it: what it wrote into the store is whole, and what it did not is computed again."""
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        """Read the end of its standard error; not through the file's position, which is the worker's too."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), TAIL, max(size - TAIL, 0)).decode("utf-8", "replace")

    def _send(self, message: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{message}\n")
        self._process.stdin.flush()


@dataclass
class Local(Engine):
    """The run's own process, or with ``--workers`` so many of this machine, which share its cores and its GPUs."""

    name: ClassVar[str] = "local"

    @property
    def alone(self) -> bool:
        """Whether there is but one."""
        return self.workers in (None, 1)

    def start(self, number: int, device: str | None) -> Worker:
        """Start a process, with its share of the cores, and one of the GPUs where none was named."""
        assert self.workers is not None
        return Process(environment(number, self.workers, device))


def environment(number: int, workers: int, device: str | None) -> dict[str, str]:
    """Give a worker's environment, which libraries read when they are imported.

    Parameters
    ----------
    number, workers : int
    device : str, optional
        One that is named by its number, or is no GPU, is every worker's.
    """
    made = dict(os.environ)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in THREADS:
        said = made.get(name, "")
        made[name] = str(min(max(cores // workers, 1), int(said) if said.isdigit() and int(said) else cores))
    if device in (None, "cuda") and (gpus := visible_gpus()):
        made["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return made


def visible_gpus() -> list[str]:
    """Give the GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    named = [one.strip() for one in (said or "").split(",") if one.strip()]
    return named[:count] if named else [str(number) for number in range(count)]
