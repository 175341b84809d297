"""Actors of a Ray cluster, or of one that is started on this machine for as long as the run lasts."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import ClassVar

from datapruner.engines.base import Engine, Worker, WorkerLostError
from datapruner.engines.local import THREADS
from datapruner.errors import DataPrunerError, in_words
from datapruner.extras import how_to_install
from datapruner.files.paths import is_file
from datapruner.text import safe_text

logger = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds after which it is told that no room was found for a worker yet."""
CONNECT = 10.0
"""Seconds in which a cluster must answer."""
LETTERS = 400


class Served:
    """What an actor is: a ``Service``. Ray is given this class by its name, since it can be imported there."""

    def __init__(self) -> None:
        # Ray says how many cores an actor has before anything heavy is imported.
        for name in THREADS:
            os.environ.setdefault(name, os.environ.get("OMP_NUM_THREADS", "1"))
        from datapruner.measuring.worker import Service

        self._service = Service(keeps=True)

    def pid(self) -> int:
        """Give its process: it runs."""
        return os.getpid()

    def ask(self, message: str) -> str:
        """Answer a message."""
        return self._service.ask(message)


class Actor(Worker):
    """An actor; what is sent to it and back is text.

    Parameters
    ----------
    cpus, gpus : float
        That it has for itself.
    """

    def __init__(self, cpus: float, gpus: float) -> None:
        import ray

        self._cpus, self._gpus = cpus, gpus
        self._actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Served).remote()
        self.pid: int | None = None

    def ask(self, message: str) -> str:
        """Call the actor, which may wait for room in the cluster first."""
        import ray

        try:
            if self.pid is None:
                begun = self._actor.pid.remote()
                if not ray.wait([begun], timeout=PATIENCE)[0]:
                    logger.warning(
                        "Ray has not started a worker yet: each needs %g CPUs and %g GPUs of the cluster",
                        self._cpus,
                        self._gpus,
                    )
                self.pid = ray.get(begun)
            answer: str = ray.get(self._actor.ask.remote(message))
        except ray.exceptions.RayError as error:
            raise WorkerLostError(safe_text(" ".join(str(error).split()), LETTERS)) from error
        return answer

    def end(self) -> None:
        """Kill it."""
        import ray

        with suppress(ray.exceptions.RayError):
            ray.kill(self._actor, no_restart=True)


@dataclass
class Ray(Engine):
    """Actors of a cluster: ``--workers`` of them, each with ``--num-gpus``."""

    name: ClassVar[str] = "ray"
    ray_address: str | None = None
    num_gpus: float | None = None

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        super().__post_init__()
        self._ours = False
        self._each: tuple[float, float] = (1.0, 0.0)
        if self.num_gpus is not None and self.num_gpus < 0:
            raise DataPrunerError(f"--num-gpus is a number of at least 0, not {self.num_gpus:g}")

    def open(self, cache: str) -> int:
        """Reach the cluster, or start one here, and share it out."""
        try:
            import ray
        except ImportError as error:
            raise DataPrunerError(f"--engine=ray takes Ray: {how_to_install('ray')}") from error
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # Of a cluster of our own; by itself Ray lets everything else on a machine go first.
            os.environ.setdefault("RAY_worker_niceness", "0")
            # Without GPUs of its own an actor sees none, which later versions of Ray would change by themselves.
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
            # None would have Ray join whatever cluster was started on this machine last, whether it still runs or not.
            address = self.ray_address or os.environ.get("RAY_ADDRESS") or "local"
            check_reached(address)
            try:
                with _signals_kept():
                    ray.init(
                        address=address,
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                    )
            except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
                raise _not_joined(address, error) from error
            self._ours = True
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if len(nodes) > 1 and "://" not in cache:
            logger.warning(
                in_words(
                    "the workers are on %s machines, and the cache is the folder %s: all of them must see it under "
                    "this name; --cache names another"
                ),
                len(nodes),
                safe_text(cache),
            )
        count, *each = shared_out(nodes, self.workers, self.num_gpus)
        self._each = each[0], each[1]
        return count

    def start(self, number: int, device: str | None) -> Worker:
        """Start an actor; Ray sees to its GPUs and cores."""
        return Actor(*self._each)

    def close(self) -> None:
        """Leave the cluster, unless somebody else had joined it before."""
        if self._ours:
            import ray

            self._ours = False
            ray.shutdown()


def shared_out(
    nodes: list[dict[str, float]], workers: int | None, num_gpus: float | None
) -> tuple[int, float, float]:
    """Give how many workers there are, and the CPUs and GPUs of each.

    Parameters
    ----------
    nodes : list of dict
        What each machine has.
    workers : int, optional
        Default: one for each GPU, or without GPUs for each machine.
    num_gpus : float, optional
        A worker's. Default: 1 where there are any.
    """
    gpus = [node.get("GPU", 0.0) for node in nodes]
    cpus = [node.get("CPU", 0.0) for node in nodes]
    most = max(gpus, default=0.0)
    each = min(1.0, most) if num_gpus is None else num_gpus
    if each > most:
        raise DataPrunerError(
            f"no machine of the cluster has {each:g} GPUs (--num-gpus): the most is {most:g}"
        )
    count = workers or (sum(int(one // each) for one in gpus) if each else len(nodes)) or 1
    cores = float(int(min(sum(cpus) // count, max(cpus, default=1.0))))
    while cores > 1 and sum(int(one // cores) for one in cpus) < count:
        cores -= 1
    return count, cores or sum(cpus) / count, each


def check_reached(address: str) -> None:
    """Refuse an address where nobody answers, which Ray itself would go on calling for many minutes."""
    called, named = address, ""
    if address == "auto":
        file = Path(os.environ.get("RAY_TMPDIR") or gettempdir(), "ray", "ray_current_cluster")
        if is_file(file):
            called, named = file.read_text(encoding="utf-8").strip(), f", which {file} names"
    host, colon, port = called.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT).close()
        except (OSError, OverflowError) as error:
            raise DataPrunerError(
                f"no Ray cluster answers at {safe_text(called, 100)}{safe_text(named, 200)} "
                f"({safe_text(str(error), 100)}); --ray-address names one, and without it one is started here"
            ) from error


def _not_joined(address: str, error: BaseException) -> DataPrunerError:
    """Say in a sentence why Ray did not join a cluster, or start one; it tells of a token in an error's cause only."""
    links: list[BaseException] = [error]
    while (cause := links[-1].__cause__) is not None:
        links.append(cause)
    if any("AuthenticationError" in f"{type(link).__name__}: {link}" for link in links):
        return DataPrunerError(
            f"the Ray cluster at {safe_text(address, 100)} takes a token, and the one given here is missing or wrong: "
            "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's own"
        )
    return DataPrunerError(
        f"Ray cannot be reached: {safe_text(' '.join(str(error).split()), LETTERS)}; --ray-address names a cluster"
    )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep what signals do: Ray would have SIGTERM end this process in its own way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
