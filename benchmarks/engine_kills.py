"""Are runs with workers that are killed, wherever they are, byte-identical to one that was left alone?

The default recipe runs with a model of two layers and an embedder of two layers over short rows of the mixture, which
two workers compute. Then a random worker, the run itself or the head of a Ray cluster of two cores is ended with
SIGKILL, at a point that is drawn in each phase: cleaning, embedding, the language model's pass, clustering, writing. A
run whose worker was killed goes on by itself; after the others the same command runs again, with what the cache holds,
and is killed in the next phase, until none is left. What comes out is compared byte for byte with a run of one process
over an empty cache. Every row that anybody computes is noted, so that it can be counted what a kill costs.

    python benchmarks/engine_kills.py --workers 20 --drivers 20 --heads 10
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from common import MIXTURE, RESULTS, machine, versions, write
from resume import different

PHASES = ["cleaning", "embedding", "language model", "clustering", "writing"]
CHAIN = ["embedding", "language model", "cleaning", "clustering", "writing"]
"""The order in which runs of one cache are killed: what was measured before is not measured again."""
LIVING = ["embedding", "embedding", "language model", "language model", "cleaning"]
"""Phases in which workers live; while rows are clustered and written they have ended."""
WATCHED = Path(__file__).resolve().parent / "watched"
WORKERS = 2
PATIENCE = 300.0
RAY = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}
"""The head and the run that comes to it have one token, whatever the machine has."""


@dataclass
class Kill:
    """One kill, and what it cost."""

    what: str
    phase: str
    point: str
    code: int | None
    """Of the run that was killed, or whose worker or cluster was; None where it went on."""
    leases: int
    """Left in the cache."""
    rows_twice: int = 0
    """Computed by whom was killed, and by somebody else once more."""
    seconds: float = 0.0
    """From the kill to the end of the run that lost its cluster."""


class Watched:
    """A run in a process group of its own, which stops at points that are named."""

    def __init__(self, line: Sequence[str], folder: Path, at: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True)
        self.folder, self.here = folder, folder / "here"
        self.said = folder / "said"
        paths = [str(WATCHED), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            **RAY,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "WATCHED": str(folder),
            "WATCHED_AT": ",".join(at),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "datapruner", *line],
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def arrived(self) -> str | None:
        """Wait for the next point at which the run stops; None where it has ended."""
        until = time.monotonic() + PATIENCE
        while not self.here.exists():
            if self.process.poll() is not None:
                return None
            if time.monotonic() > until:
                self.process.kill()
                raise SystemExit(f"a run hangs: {self.said.read_text()}")
            time.sleep(0.005)
        return self.here.read_text()

    def go(self) -> None:
        self.here.unlink()

    def ended(self) -> int:
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit(f"a run hangs: {self.said.read_text()}") from None

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in children if "datapruner.measuring.worker" in words_of(one)]

    def noted(self, name: str) -> list[dict[str, Any]]:
        file = self.folder / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def points_of(run: Watched) -> dict[str, list[str]]:
    """The points that a run passed, by their phase."""
    found: dict[str, list[str]] = {phase: [] for phase in PHASES}
    for one in run.noted("points"):
        found[one["point"].rpartition(" ")[0]].append(one["point"])
    return found


def twice(runs: Sequence[Watched], dead: set[int]) -> int:
    """Rows that processes computed which were killed, and others once more; of the kind of which these are most."""
    by: dict[tuple[str, str], set[int]] = defaultdict(set)
    for run in runs:
        for line in run.noted("computed"):
            for key in line["keys"]:
                by[line["shelf"], key].add(line["process"])
    again = Counter(shelf for (shelf, _), who in by.items() if who & dead and who - dead)
    return max(again.values(), default=0)


class Story:
    """A command whose result is known, run over and over in a folder."""

    def __init__(self, work: Path, line: Sequence[str], rng: random.Random) -> None:
        self.work, self.line, self.rng = work, list(line), rng
        self.number = 0
        self.kills: list[Kill] = []
        self.different: set[str] = set()
        self.left: set[str] = set()
        self.outlived: set[psutil.Process] = set()
        self.completions = 0
        alone = self.start("whole")
        if alone.ended():
            raise SystemExit(f"undisturbed: {alone.said.read_text()}")
        whole = self.start("two", *self.engine())
        if whole.ended():
            raise SystemExit(f"undisturbed: {whole.said.read_text()}")
        self.compare("two")
        self.points = points_of(whole)
        self.block = max(line["rows"] for line in whole.noted("blocks"))

    @staticmethod
    def engine() -> list[str]:
        return ["--workers", str(WORKERS)]

    def start(self, arm: str, *more: str, at: Sequence[str] = ()) -> Watched:
        """Run with the cache of an arm; all outputs lie equally deep, since a recipe has paths as seen from it."""
        self.number += 1
        places = ["--cache", str(self.work / arm / "cache"), "--out", str(self.work / arm / "out")]
        return Watched(
            [*self.line, *places, "--overwrite", *more], self.work / "watched" / str(self.number), at
        )

    def compare(self, arm: str) -> None:
        self.completions += 1
        self.different |= set(different(self.work / "whole" / "out", self.work / arm / "out"))
        folder = self.work / arm
        self.left |= {path.name for path in folder.rglob("*") if ".tmp-" in path.name}
        self.left |= {path.name for path in self.leases(arm)}

    def leases(self, arm: str) -> list[Path]:
        return list((self.work / arm / "cache").rglob("*.lease"))

    def finish(self, arm: str) -> Watched:
        """Let the run go on undisturbed, in one process, and compare what comes out."""
        run = self.start(arm)
        self.complete(run, arm)
        return run

    def complete(self, run: Watched, arm: str) -> None:
        """Hold what a run made that came to its end against what must come out."""
        if run.ended():
            raise SystemExit(f"a run failed that nobody killed: {run.said.read_text()}")
        self.compare(arm)

    def kill_workers(self, count: int) -> None:
        """Kill a random worker at points of one run, which goes on."""
        while left := self.left_of(count, "worker"):
            phases = self.rng.sample(LIVING, min(left, len(LIVING)))
            at = [
                point
                for phase in set(phases)
                for point in self.rng.sample(self.points[phase], phases.count(phase))
            ]
            arm = f"w{self.number}"
            run, killed = self.start(arm, *self.engine(), at=at), list[tuple[Kill, set[int]]]()
            while (point := run.arrived()) is not None:
                if living := run.workers():
                    victim = self.rng.choice(living)
                    victim.kill()
                    wait_dead(victim)
                    kill = Kill("worker", point.rpartition(" ")[0], point, None, len(self.leases(arm)))
                    killed.append((kill, {victim.pid}))
                run.go()
            self.complete(run, arm)
            self.close(arm, [run], killed)

    def kill_runs(self, count: int, hows: Sequence[signal.Signals] = (signal.SIGKILL,)) -> None:
        """Kill the run itself, and that which goes on from there in the next phase, until one is left alone.

        The signals take turns.
        """
        while left := self.left_of(count, "run"):
            arm, runs, killed = f"d{self.number}", list[Watched](), list[tuple[Kill, set[int]]]()
            for turn, phase in enumerate(CHAIN[:left]):
                run = self.start(arm, *self.engine(), at=[self.rng.choice(self.points[phase])])
                runs.append(run)
                point = run.arrived()
                if point is None:  # there was less left to do than in a whole run
                    self.complete(run, arm)
                    continue
                workers = run.workers()
                run.process.send_signal(hows[turn % len(hows)])
                kill = Kill("run", phase, point, run.ended(), 0)
                self.outlived |= set(psutil.wait_procs(workers, PATIENCE)[1])
                kill.leases = len(self.leases(arm))
                killed.append((kill, {run.process.pid, *(one.pid for one in workers)}))
            runs.append(self.finish(arm))
            self.close(arm, runs, killed)

    def kill_heads(self, count: int) -> None:
        """Kill the head of a cluster; whatever becomes of the run, the next one goes on.

        A run that lost its cluster does the rest itself where it can, so that each story begins with another phase.
        """
        chain = CHAIN
        while left := self.left_of(count, "head"):
            arm, runs, killed = f"h{self.number}", list[Watched](), list[tuple[Kill, set[int]]]()
            for phase in chain[:left]:
                with cluster() as (address, head):
                    engine = [*self.engine(), "--engine", "ray", "--ray-address", address]
                    run = self.start(arm, *engine, at=[self.rng.choice(self.points[phase])])
                    runs.append(run)
                    point = run.arrived()
                    if point is None:
                        self.complete(run, arm)
                        continue
                    actors = [one.pid for one in head.children(recursive=True) if "ray::" in words_of(one)]
                    kill_head(head)
                    begun = time.monotonic()
                    run.go()
                    kill = Kill("head", phase, point, run.ended(), 0)
                    kill.seconds = round(time.monotonic() - begun, 1)
                    if kill.code == 0:
                        self.compare(arm)
                kill.leases = len(self.leases(arm))
                killed.append((kill, {*actors, *([run.process.pid] if kill.code else [])}))
            runs.append(self.finish(arm))
            self.close(arm, runs, killed)
            chain = chain[1:] + chain[:1]

    def left_of(self, count: int, what: str) -> int:
        """How many kills of a kind are still to come."""
        return max(0, count - sum(kill.what == what for kill in self.kills))

    def close(self, arm: str, runs: Sequence[Watched], killed: Sequence[tuple[Kill, set[int]]]) -> None:
        """Count what the kills of one cache cost, each with the processes that it ended, and tell them."""
        for kill, dead in killed:
            kill.rows_twice = twice(runs, dead)
            self.kills.append(kill)
            print(f"{len(self.kills):3} {kill}", file=sys.stderr, flush=True)
        shutil.rmtree(self.work / arm)


@contextmanager
def cluster() -> Iterator[tuple[str, psutil.Process]]:
    """Start a cluster of two cores on this machine; give its address and the process that started its head."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus", str(WORKERS)]
    command += ["--port", str(port), "--include-dashboard=false", "--disable-usage-stats"]
    environment = {
        **os.environ,
        **RAY,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(WATCHED), os.environ.get("PYTHONPATH", "")])),
    }
    started = subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    head = psutil.Process(started.pid)
    known: set[psutil.Process] = set()
    try:
        until = time.monotonic() + PATIENCE
        while not any("raylet" in one.name() for one in head.children()):
            if started.poll() is not None or time.monotonic() > until:
                raise SystemExit("Ray's head did not start")
            time.sleep(0.1)
        known |= set(head.children(recursive=True))
        yield f"127.0.0.1:{port}", head
    finally:
        with suppress(psutil.Error):
            known |= set(head.children(recursive=True))
        for one in [*known, head]:
            with suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(known, PATIENCE)
        started.wait()


def words_of(process: psutil.Process) -> str:
    """Give a process's command line; of one that has ended, nothing."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def wait_dead(process: psutil.Process) -> None:
    """Wait until a process computes no more; its parent, which is stopped, may not have asked how it ended."""
    with suppress(psutil.NoSuchProcess):
        while process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.005)


def kill_head(head: psutil.Process) -> None:
    """Kill the two processes without which there is no cluster: its directory, and the node's own."""
    killed = [one for one in head.children() if one.name() in ("gcs_server", "raylet")]
    if len(killed) != 2:
        raise SystemExit(f"Ray's head is of other processes: {[one.name() for one in head.children()]}")
    for one in killed:
        one.kill()
    psutil.wait_procs(killed, PATIENCE)


def line_of(work: Path, rows: int, seed: int) -> list[str]:
    """Make the models and take the rows; give the command."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.conftest import save_tiny_llama, save_tiny_sentence_transformer

    lines = [line for line in MIXTURE.read_text("utf-8").splitlines(keepends=True) if len(line) < 400]
    source = work / "rows.jsonl"
    source.write_text("".join(random.Random(seed).sample(lines, rows)), "utf-8")
    # The encoder alone: sentence-transformers takes each process longer to import than it has rows to compute.
    model, embedder = save_tiny_llama(work / "llama"), work / "embedder" / "bert"
    save_tiny_sentence_transformer(embedder.parent)
    return ["prune", str(source), "--model", str(model), "--embedder", str(embedder), *OPTIONS]


OPTIONS = ["--keep", "0.5", "--seed", "0", "--batch-tokens", "256"]


def measure(rows: int, counts: tuple[int, int, int], seed: int) -> dict[str, Any]:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        story = Story(work, line_of(work, rows, seed), random.Random(seed))
        story.kill_workers(counts[0])
        story.kill_runs(counts[1])
        story.kill_heads(counts[2])
        return {
            "rows": rows,
            "workers": WORKERS,
            "rows_in_a_block": story.block,
            "points": {phase: len(points) for phase, points in story.points.items()},
            "kills": [asdict(kill) for kill in story.kills],
            "completions": story.completions,
            "different_files": sorted(story.different),
            "left_behind": sorted({*story.left, *(f"process {one.pid}" for one in story.outlived)}),
            "seconds": round(time.monotonic() - begun),
            "machine": machine(),
            "versions": versions("datapruner", "torch", "transformers", "ray"),
        }


def right(result: dict[str, Any]) -> bool:
    """Whether the bytes were the same each time, nothing was left, and a kill cost no more than what was in flight."""
    in_flight = {"worker": 1, "run": WORKERS, "head": WORKERS}
    return not result["different_files"] + result["left_behind"] and all(
        kill["rows_twice"] <= in_flight[kill["what"]] * result["rows_in_a_block"] for kill in result["kills"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--drivers", type=int, default=20)
    there = 10 if find_spec("ray") else 0
    parser.add_argument("--heads", type=int, default=there, help="default: 10, where Ray is installed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "engine_kills.json")
    parser.add_argument(
        "--more", action="store_true", help="add to what the output holds; choose another --seed"
    )
    given = parser.parse_args()
    result = measure(given.rows, (given.workers, given.drivers, given.heads), given.seed)
    if given.more:
        earlier = json.loads(given.output.read_text())
        for name in ("kills", "completions", "different_files", "left_behind", "seconds"):
            result[name] = earlier[name] + result[name]
    write(given.output, result)
    return 0 if right(result) else 1


if __name__ == "__main__":
    sys.exit(main())
