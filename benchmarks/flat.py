"""Does memory stay flat as rows grow: near duplicates of texts, given vectors, a selection and a report?

Rows of about 600 characters are made in blocks, some of them copies of earlier rows with two words of a hundred
changed. With ``--kind vectors`` a row is a number and a vector of half floats, and nothing is read but these. The
command runs in a process of its own, whose resident memory is looked at ten times a second: what it holds itself
(anonymous), and pages of mapped files, which the system takes back when it needs them; the peak of both together is
the system's own. Runs of other sizes stay in the JSON.

    python benchmarks/flat.py --rows 1000000 3000000 10000000
    python benchmarks/flat.py --kind vectors --rows 50000000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
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
DIMENSIONS = {"text": 64, "vectors": 32}
ROW_BYTES = {"text": 4_000, "vectors": 250}
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


def write_numbers(path: Path, rows: int) -> None:
    """Write rows that are numbers alone, block by block."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, pa.schema([("id", pa.int64())])) as writer:
        for start in range(0, rows, 1 << 20):
            writer.write_table(pa.table({"id": np.arange(start, min(start + (1 << 20), rows))}))


def watch(command: list[str]) -> dict[str, float]:
    """Run a command, and give its seconds and the peaks of its memory in GiB."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks = {"RssAnon": 0, "RssFile": 0, "VmHWM": 0}
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
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_gib": round(peaks["VmHWM"] / GIB, 3),
        "peak_own_gib": round(peaks["RssAnon"] / GIB, 3),
        "peak_mapped_gib": round(peaks["RssFile"] / GIB, 3),
    }


def measured(folder: Path, kind: str, rows: int, extra: list[str]) -> dict[str, Any]:
    """Make the rows, run the command, and look for what was planted."""
    import pyarrow.parquet as pq

    free, needed = shutil.disk_usage(folder).free, rows * ROW_BYTES[kind]
    if free < needed:
        raise SystemExit(f"{rows:,} rows need {needed / 1e9:.0f} GB, and {free / 1e9:.0f} are free")
    text, vectors, out = kind == "text", folder / "vectors.npy", folder / "out"
    source = folder / ("rows.jsonl" if text else "rows.parquet")
    if text:
        planted = write_rows(source, rows)
    else:
        write_numbers(source, rows)
    dim, dtype = DIMENSIONS[kind], "float32" if text else "float16"
    write_embeddings(vectors, rows, dim, dtype, 200)
    words = ["--scorer", "stratified", "--n-clusters", "200", "--embeddings", str(vectors), "--keep", "0.3"]
    words += ["--dedup", "--report"] if text else ["--no-dedup"]
    command = [sys.executable, "-m", "datapruner", "prune", str(source), *words]
    found = watch([*command, "--out", str(out), "--quiet", *extra])
    about = {"kind": kind, "rows": rows, "dim": dim, "dtype": dtype}
    about["source_gib"] = round(source.stat().st_size / GIB, 3)
    if not text:
        return {**about, **found}
    causes = pq.read_table(out / "selection.parquet", columns=["cause"])["cause"].combine_chunks()
    near = np.flatnonzero(causes.cast("string").to_numpy(zero_copy_only=False) == "near_duplicate")
    return {
        **about,
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
    parser.add_argument("--kind", choices=list(ROW_BYTES), default="text")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000])
    parser.add_argument("--out", type=Path, default=RESULTS / "flat.json")
    parser.add_argument("extra", nargs="*", help="further options of datapruner prune, after --")
    asked = parser.parse_args()
    for rows in asked.rows:
        with tempfile.TemporaryDirectory(prefix="flat-") as folder:
            run = measured(Path(folder), asked.kind, rows, asked.extra)
        print(json.dumps(run), flush=True)
        runs = json.loads(asked.out.read_text())["runs"] if asked.out.exists() else []
        kept = [one for one in runs if (one["kind"], one["rows"]) != (asked.kind, rows)]
        held = {"cores": os.cpu_count(), "machine": platform.platform(), "versions": versions()}
        runs = sorted([*kept, run], key=lambda one: (one["kind"], one["rows"]))
        asked.out.write_text(json.dumps({**held, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
