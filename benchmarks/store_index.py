"""A store of 20M rows: how long a run over 1,000 other rows of the same context waits before it computes.

Shards are made in blocks, without a sync, of vectors of few numbers (the index reads none of them); then processes of
their own fetch 1,000 rows each: the first builds the index, the others find it. Before each, the system is asked to
forget the shards and the index (``posix_fadvise``), so that they are read from the disk.

    python benchmarks/store_index.py --rows 20000000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CONTEXT = {"signal": "benchmark"}
WIDTH = 8
OTHER = 1000


def fill(root: Path, rows: int, a_shard: int) -> None:
    """Write shards of random keys."""
    from datapruner.ragged import Ragged
    from datapruner.signals.store.shard_format import SUFFIX, shard_parts
    from datapruner.signals.store.shards import Shelf

    shelf = Shelf.of(root / "signals", CONTEXT, WIDTH)
    shelf.prepare(CONTEXT)
    rng = np.random.default_rng(0)
    for first in range(0, rows, a_shard):
        count = min(a_shard, rows - first)
        keys = np.frombuffer(rng.bytes(16 * count), dtype="S16")
        values = Ragged(np.zeros(count * WIDTH, np.float32), np.arange(count + 1) * WIDTH)
        parts = shard_parts(keys, [values], WIDTH)
        with (shelf.folder / f"{first:016x}{SUFFIX}").open("wb") as handle:
            handle.writelines(parts)


def forget(root: Path) -> None:
    """Ask the system to drop what it holds of these files."""
    for path in root.rglob("*.*"):
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(root: Path, seed: int) -> None:
    """Fetch rows that are not there; print when the first had to be computed."""
    from datapruner.signals.store import SignalStore, row_keys

    keys = row_keys((f"{seed} {row}".encode() for row in range(OTHER)), CONTEXT)
    times = {}
    start = time.perf_counter()

    def compute(rows):  # type: ignore[no-untyped-def]
        times["starts computing"] = round(time.perf_counter() - start, 2)
        yield rows, np.zeros((len(rows), WIDTH), np.float32)

    store = SignalStore(root)
    store.fetch(keys, CONTEXT, WIDTH, compute)
    times["ends"] = round(time.perf_counter() - start, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**times, "computed": store.computed, "peak MiB": round(peak)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rows-a-shard", type=int, default=4096)
    parser.add_argument("--folder", type=Path, help="where to make it (removed afterwards)")
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run is not None:
        run(given.folder, given.run)
        return
    root = Path(tempfile.mkdtemp(prefix="store-", dir=given.folder))
    try:
        start = time.perf_counter()
        fill(root, given.rows, given.rows_a_shard)
        print(f"{given.rows:,} rows made in {time.perf_counter() - start:.0f} s", flush=True)
        for name, number in (("without an index", 0), ("with one", 1), ("with one, again", 2)):
            forget(root)
            line = [sys.executable, __file__, "--folder", str(root), "--run", str(number)]
            print(name, subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip())
        sizes = {path.name: path.stat().st_size for path in root.rglob("*.index")}
        print(f"index: {len(sizes)} files, {sum(sizes.values()) / 1e6:,.0f} MB")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
