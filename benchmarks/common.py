"""What several benchmarks share: the data, the clock, the memory, and what is written beside every figure."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples

MIXTURE = Path(__file__).resolve().parents[2] / "shared" / "data" / "sft" / "mixture.train.jsonl"
RESULTS = Path(__file__).resolve().parent / "results"


class PeakMemory:
    """Samples this process's resident memory every 5 ms; ``grown`` is its peak above where it started."""

    def __enter__(self) -> PeakMemory:
        import psutil

        self._process = psutil.Process()
        self._start = self._peak = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._peak = max(self._peak, self._process.memory_info().rss)

    @property
    def grown(self) -> int:
        return self._peak - self._start

    @property
    def peak(self) -> int:
        return self._peak


Timed = tuple[float, Any, PeakMemory]


def timed(run: Callable[[], Any]) -> Timed:
    with PeakMemory() as memory:
        start = time.perf_counter()
        out = run()
        seconds = time.perf_counter() - start
    return seconds, out, memory


def command(words: Sequence[str], cache: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory of a datapruner command, in a process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "datapruner", *words, "--quiet"],
        env=os.environ | {"DATAPRUNER_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(words)}: failed")
    return {
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
    }


def in_turns(
    arms: Mapping[str, Callable[[int], Any]], repeats: int, after: Callable[[], object] = lambda: None
) -> dict[str, list[Timed]]:
    """Run every arm once a repeat; who goes first changes every time, and ``after`` ends every repeat."""
    found: dict[str, list[Timed]] = {arm: [] for arm in arms}
    width = max(map(len, arms))
    for repeat in range(repeats):
        for arm in sorted(arms, reverse=bool(repeat % 2)):
            found[arm].append(timed(lambda arm=arm, repeat=repeat: arms[arm](repeat)))
            print(f"repeat {repeat + 1}: {arm:>{width}} {found[arm][-1][0]:7.2f} s", file=sys.stderr)
        after()
    return found


def summary(runs: Sequence[Timed], rows: int) -> dict[str, Any]:
    """An arm's seconds, speed and memory."""
    seconds = [run[0] for run in runs]
    return {
        "seconds": [round(value, 3) for value in seconds],
        "seconds_median": round(statistics.median(seconds), 3),
        "seconds_min": round(min(seconds), 3),
        "seconds_max": round(max(seconds), 3),
        "rows_a_second_median": round(rows / statistics.median(seconds), 1),
        "peak_rss_mib": round(max(run[2].peak for run in runs) / 2**20, 1),
        "peak_growth_mib": round(max(run[2].grown for run in runs) / 2**20, 1),
    }


def ratio(above: Sequence[Timed], below: Sequence[Timed]) -> dict[str, Any]:
    """Seconds of one arm over those of another, of the medians and repeat by repeat."""
    one, other = ([run[0] for run in runs] for runs in (above, below))
    return {
        "of_medians": round(statistics.median(one) / statistics.median(other), 3),
        "pairs": [round(a / b, 3) for a, b in zip(one, other, strict=True)],
    }


def sample_rows(samples: Samples, count: int, seed: int) -> NDArray[np.int64]:
    """A seeded choice of rows that all differ, ascending."""
    first: dict[str, int] = {}
    for row, sample in enumerate(samples):
        first.setdefault(sample.key(), row)
    if count > len(first):
        raise SystemExit(f"there are {len(first)} distinct rows, not {count}")
    rows = np.array(list(first.values()), dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def machine(**more: Any) -> dict[str, Any]:
    return {"machine": platform.machine(), "cpus": os.cpu_count(), **more}


def versions(*packages: str) -> dict[str, str | None]:
    """Python's version and the packages'; None where one is not installed."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {"python": platform.python_version()} | {package: installed(package) for package in packages}


def write_missing(results: Mapping[Path, Mapping[str, Any]]) -> None:
    """Write what an earlier day found, to go on from; what is there stays."""
    for path, result in results.items():
        if not path.exists():
            write(path, result)


def write(path: Path, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
