"""Does memory stay flat as rows with text grow: near duplicates, given vectors, a selection and a report?

Rows of about 600 characters are made in blocks, some of them copies of earlier rows with two words of a hundred
changed. The command runs in a process of its own, whose resident memory is looked at ten times a second: what it holds
itself (anonymous), and pages of mapped files, which the system takes back when it needs them.

    python benchmarks/flat.py --rows 100000 300000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, versions
from scale import write_embeddings

BLOCK = 20_000
WORDS, VOCABULARY = 100, 30_000
COPIED, CHANGED = 0.02, 2
SEED = 0
GIB = 1 << 30
ROW_BYTES = 4_000
"""Of disk for a row: its line, its vector, what is spilled of it, and the result."""


def write_rows(path: Path, rows: int) -> np.ndarray:
    """Write JSON lines block by block; the numbers of the rows that are edited copies of earlier ones."""
    rng = np.random.default_rng(SEED)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, size)) for size in rng.integers(3, 9, VOCABULARY)])
    earlier = np.empty((0, WORDS), np.int64)
    planted = []
    with path.open("w", encoding="utf-8") as out:
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            # As of words in a language, a few are everywhere.
            block = (VOCABULARY * rng.random((count, WORDS)) ** 2).astype(np.int64)
            copies = np.flatnonzero(rng.random(count) < COPIED) if len(earlier) else np.empty(0, np.int64)
            block[copies] = earlier[rng.choice(len(earlier), len(copies), replace=False)]
            for _ in range(CHANGED):
                block[copies, rng.integers(0, WORDS, len(copies))] = rng.integers(0, VOCABULARY, len(copies))
            planted.append(start + copies)
            fresh = np.setdiff1d(np.arange(count), copies)
            some = block[rng.choice(fresh, min(len(fresh), BLOCK // 10), replace=False)]
            earlier = np.concatenate([earlier, some])[-BLOCK:]
            for row in words[block].tolist():
                out.write(json.dumps({"question": " ".join(row[:20]), "answer": " ".join(row[20:])}) + "\n")
    return np.concatenate(planted)


def watch(command: list[str]) -> dict[str, float]:
    """Run a command, and give its seconds and the peaks of its memory in GiB."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks = {"RssAnon": 0, "RssFile": 0, "VmRSS": 0}
    while child.poll() is None:
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
        except FileNotFoundError:
            break
        for line in status.splitlines():
            name = line.partition(":")[0]
            if name in peaks:
                peaks[name] = max(peaks[name], int(line.split()[1]) * 1024)
        time.sleep(0.1)
    if child.wait():
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gib": round(peaks["VmRSS"] / GIB, 3),
        "peak_own_gib": round(peaks["RssAnon"] / GIB, 3),
        "peak_mapped_gib": round(peaks["RssFile"] / GIB, 3),
    }


def measured(folder: Path, rows: int, dim: int, extra: list[str]) -> dict[str, Any]:
    """Make the rows, run the command, and look for what was planted."""
    import pyarrow.parquet as pq

    free = shutil.disk_usage(folder).free
    if free < rows * ROW_BYTES:
        raise SystemExit(f"{rows:,} rows need {rows * ROW_BYTES / 1e9:.0f} GB, and {free / 1e9:.0f} are free")
    planted = write_rows(folder / "rows.jsonl", rows)
    write_embeddings(folder / "vectors.npy", rows, dim, "float32", 200)
    words = ["--scorer", "stratified", "--n-clusters", "200", "--embeddings", str(folder / "vectors.npy")]
    found = watch(
        [
            *(sys.executable, "-m", "datapruner", "prune", str(folder / "rows.jsonl"), "--dedup", *words),
            *("--keep", "0.3", "--report", "--out", str(folder / "out"), "--quiet", *extra),
        ]
    )
    causes = pq.read_table(folder / "out" / "selection.parquet", columns=["cause"])["cause"].to_pylist()
    near = np.flatnonzero(np.array(causes) == "near_duplicate")
    return {
        "rows": rows,
        "text_gib": round((folder / "rows.jsonl").stat().st_size / GIB, 3),
        **found,
        "planted": len(planted),
        "found": len(np.intersect1d(near, planted)),
        "others_dropped": len(np.setdiff1d(near, planted)),
    }


def main() -> None:
    """Measure each number of rows and save what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULTS / "flat.json")
    parser.add_argument("extra", nargs="*", help="further options of datapruner prune, after --")
    asked = parser.parse_args()
    runs = []
    for rows in asked.rows:
        with tempfile.TemporaryDirectory(prefix="flat-") as folder:
            runs.append(measured(Path(folder), rows, asked.dim, asked.extra))
        print(json.dumps(runs[-1]), flush=True)
        held = {"dim": asked.dim, "cores": os.cpu_count(), "machine": platform.platform(), "runs": runs}
        asked.out.write_text(json.dumps({**held, "versions": versions()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
