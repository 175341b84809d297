"""Does the time and the memory of a run from file to selection stay near that of bare faiss?

Faiss stops training before the asked number of iterations when it has converged, and how soon depends on the
start. A ratio is like for like only where the arms ran the same number of iterations: the synthetic data has
more centres than clusters, so that none converges, and every arm reports ``iterations_run``.

Each arm runs in its own process, so that its peak memory (VmHWM, mapped pages included) is its own; arms
alternate, so that a slow minute of the machine hits both.

    python benchmarks/scale.py --rows 1000000 --dim 384 --dtype float32 --clusters 1000 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import versions

ITERATIONS = 20
CENTRES_A_CLUSTER = 5
POINTS_PER_CENTROID = 256
SEED = 0
BLOCK_BYTES = 64 << 20


def write_embeddings(path: Path, rows: int, dim: int, dtype: str, centres: int) -> None:
    """Clustered unit vectors, written in blocks to a temporary name and renamed."""
    rng = np.random.default_rng(SEED)
    means = rng.standard_normal((centres, dim), dtype=np.float32)
    step = max(1, BLOCK_BYTES // (4 * dim))
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (rows, dim)})
        for start in range(0, rows, step):
            count = min(step, rows - start)
            block = means[rng.integers(0, centres, count)]
            block += 1.5 * rng.standard_normal((count, dim), dtype=np.float32)
            block /= np.linalg.norm(block, axis=1, keepdims=True)
            block.astype(dtype).tofile(file)
    unfinished.rename(path)


def peak_bytes() -> int:
    """Peak resident set of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("VmHWM is only known on Linux")


def count_iterations() -> list[int]:
    """Have faiss note how many iterations each training of this process runs."""
    import faiss

    counts: list[int] = []
    train = faiss.Kmeans.train

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = train(self, *args, **kwargs)
        counts.append(len(self.iteration_stats))
        return result

    faiss.Kmeans.train = counted
    return counts


def run_faiss(path: Path, clusters: int) -> dict[str, Any]:
    """Load, train on a sample, assign every row: nothing else."""
    import faiss

    iterations = count_iterations()
    begin = time.perf_counter()
    rows = np.ascontiguousarray(np.load(path), dtype=np.float32)
    loaded = time.perf_counter()
    size = min(len(rows), POINTS_PER_CENTROID * clusters)
    rng = np.random.default_rng(SEED)
    sample = rows[np.sort(rng.choice(len(rows), size, replace=False, shuffle=False))]
    kmeans = faiss.Kmeans(
        rows.shape[1],
        clusters,
        niter=ITERATIONS,
        spherical=True,
        seed=SEED,
        max_points_per_centroid=POINTS_PER_CENTROID,
    )
    kmeans.train(sample)
    trained = time.perf_counter()
    similarity, _ = kmeans.index.search(rows, 1)
    end = time.perf_counter()
    return {
        "seconds": end - begin,
        "load_seconds": loaded - begin,
        "train_seconds": trained - loaded,
        "assign_seconds": end - trained,
        "iterations_run": sum(iterations),
        "mean_distance": float(1 - similarity.mean(dtype=np.float64)),
    }


def run_clustering(path: Path, clusters: int) -> dict[str, Any]:
    """Only datapruner's clustering, for telling where an end-to-end difference comes from."""
    from datapruner.geometry.clustering import spherical_kmeans

    iterations = count_iterations()  # this imports faiss: imports are not part of any arm's time
    begin = time.perf_counter()
    result = spherical_kmeans(
        np.load(path, mmap_mode="r"),
        clusters,
        seed=SEED,
        iterations=ITERATIONS,
        max_points_per_centroid=POINTS_PER_CENTROID,
    )
    end = time.perf_counter()
    return {
        "seconds": end - begin,
        "iterations_run": sum(iterations),
        "mean_distance": float(result.distance.mean(dtype=np.float64)),
    }


def run_datapruner(path: Path, clusters: int) -> dict[str, Any]:
    """From the file to a selection of 30 %, then a second budget without rescoring."""
    import pyarrow as pa
    from datasets import Dataset

    import datapruner as dp

    rows = np.load(path, mmap_mode="r").shape[0]
    dataset = Dataset(pa.table({"id": np.arange(rows)}))
    iterations = count_iterations()
    scorer = dp.scorers.ConceptComplexity(n_clusters=clusters)
    begin = time.perf_counter()
    selection = dp.prune(dataset, embeddings=str(path), scorer=scorer, keep=0.3, seed=SEED)
    end = time.perf_counter()
    kept = len(selection.indices)
    again = time.perf_counter()
    fewer = selection.rebudget(0.1)
    return {
        "seconds": end - begin,
        "rebudget_seconds": time.perf_counter() - again,
        "iterations_run": sum(iterations),
        "kept": kept,
        "kept_after_rebudget": len(fewer.indices),
    }


ARMS = {"faiss": run_faiss, "clustering": run_clustering, "datapruner": run_datapruner}


def child(arm: str, path: Path, clusters: int) -> dict[str, Any]:
    """One arm in a fresh process."""
    command = [sys.executable, __file__, "--arm", arm, "--file", str(path), "--clusters", str(clusters)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{arm} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, least and most of every figure."""
    figures = {key: [run[key] for run in runs] for key in runs[0]}
    return {
        key: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for key, values in figures.items()
    }


def report(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Run every arm in turn and put the figures together."""
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in options.arms}
    for repeat in range(options.repeats):
        for arm in options.arms:
            runs[arm].append(child(arm, path, options.clusters))
            print(f"repeat {repeat + 1} {arm}: {runs[arm][-1]['seconds']:.2f} s", file=sys.stderr)
    arms = {arm: summary(results) for arm, results in runs.items()}
    packages = ("datapruner", "faiss-cpu", "numpy", "datasets", "pyarrow")
    array = np.load(path, mmap_mode="r")
    return {
        "settings": {
            "rows": array.shape[0],
            "dim": array.shape[1],
            "dtype": str(array.dtype),
            "array_bytes": array.nbytes,
            "clusters": options.clusters,
            "iterations": ITERATIONS,
            "max_points_per_centroid": POINTS_PER_CENTROID,
            "seed": SEED,
            "repeats": options.repeats,
        },
        "machine": {
            "cpus": os.cpu_count(),
            "usable_cpus": len(os.sched_getaffinity(0)),
            "machine": platform.machine(),
            "system": platform.system(),
        },
        "versions": versions(*packages),
        "arms": arms,
        "ratio_to_faiss": {
            arm: arms[arm]["seconds"]["median"] / arms["faiss"]["seconds"]["median"]
            for arm in arms
            if "faiss" in arms and arm != "faiss"
        },
        "peak_to_array": {arm: arms[arm]["peak_bytes"]["median"] / array.nbytes for arm in arms},
        "runs": runs,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{'arm':12} {'median s':>9} {'min':>8} {'max':>8} {'peak GiB':>9} {'peak/array':>11} "
        f"{'ratio':>6} {'iterations':>10}"
    ]
    for arm, figures in result["arms"].items():
        seconds, peak = figures["seconds"], figures["peak_bytes"]["max"] / 2**30
        ratio = result["ratio_to_faiss"].get(arm)
        lines.append(
            f"{arm:12} {seconds['median']:9.2f} {seconds['min']:8.2f} {seconds['max']:8.2f} {peak:9.2f} "
            f"{result['peak_to_array'][arm]:11.2f} {'' if ratio is None else f'{ratio:.3f}':>6} "
            f"{figures['iterations_run']['median']:10.0f}"
        )
        if "rebudget_seconds" in figures:
            lines.append(f"{'  rebudget':12} {figures['rebudget_seconds']['median']:9.3f}")
    if len({figures["iterations_run"]["median"] for figures in result["arms"].values()}) > 1:
        lines.append("The arms ran different numbers of iterations: the ratio is not like for like.")
    lines += [json.dumps(result[key]) for key in ("settings", "machine", "versions")]
    return "\n".join(lines)


def main() -> None:
    """Parse, make the file when it is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float32")
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--file", type=Path, help="embeddings; made here when missing")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["faiss", "datapruner"])
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        figures = ARMS[options.arm](options.file, options.clusters)
        print(json.dumps({**figures, "peak_bytes": peak_bytes()}))
        return
    name = f"datapruner-scale-{options.rows}x{options.dim}-{options.dtype}.npy"
    path = options.file or Path(tempfile.gettempdir()) / name
    if not path.exists():
        write_embeddings(path, options.rows, options.dim, options.dtype, CENTRES_A_CLUSTER * options.clusters)
    shape = np.load(path, mmap_mode="r").shape
    if options.file is None and shape != (options.rows, options.dim):
        sys.exit(f"The file in the temporary folder has shape {shape}; remove it.")
    result = report(options, path)
    print(table(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
