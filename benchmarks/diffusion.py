"""Clusters by a sparse diffusion map and NMF: are they the dense ones, are they the capabilities, what do they cost?

Four parts; each writes its figures into the same JSON, so that one can be run again alone.

mixture    Adjusted Rand index against the mixture's capability, beside spherical k-means with the same number of
           clusters, for several seeds and both methods; what the bootstrap chooses, and NMF of rank K alone.
dense      On 2,000 rows, the angle between our leading eigenvectors and those of (i) the same operator by LAPACK, (ii)
           the operator of the full Gaussian kernel with the same scales, for several numbers of neighbours.
scale      Seconds and growth of memory over synthetic rows in a file: neighbours and clusters, each size in a process.
published  Bytes and seconds of the dense way: kernel, eigenpairs and NMF of the kernel; extrapolated beyond 5,000 rows.

    python benchmarks/diffusion.py                                  # all but a million rows
    python benchmarks/diffusion.py --parts scale --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import MIXTURE, RESULTS, machine, timed, versions, write

PARTS = ("mixture", "dense", "published", "scale")
SCALE_ROWS = (5_000, 52_000, 200_000)
EXTRAPOLATED = (52_000, 200_000, 1_000_000)
SEEDS = (0, 1, 2)
CLUSTERS = (5, 7, 10, 16, 24)
NEIGHBOURS = 15
VECTORS = 8
DIM = 384


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--rows", type=int, nargs="*", default=SCALE_ROWS)
    parser.add_argument(
        "--embeddings", type=Path, help="the mixture's vectors (.npy); made and saved if not there"
    )
    parser.add_argument("--folder", type=Path, help="for synthetic rows; default: a temporary one")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "diffusion.json")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_size(options.folder / f"{options.one}.npy")))
        return
    result: dict[str, Any] = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    if {"mixture", "dense", "published"} & set(options.parts):
        rows, capability = mixture_vectors(options.embeddings)
    for part in options.parts:
        print(f"{part} ...", file=sys.stderr)
        if part == "mixture":
            result[part] = mixture(rows, capability)
        elif part == "dense":
            result[part] = dense(rows, capability)
        elif part == "published":
            result[part] = published(rows)
        else:
            known = {entry["rows"]: entry for entry in result.get(part, [])}
            with tempfile.TemporaryDirectory() as temporary:
                for count in options.rows:
                    known[count] = scale(options.folder or Path(temporary), count)
                    print(known[count], file=sys.stderr)
                    result[part] = [known[key] for key in sorted(known)]
                    write(options.out, result)
        result["machine"] = machine(threads=os.environ.get("OMP_NUM_THREADS", "default"))
        result["versions"] = versions("datapruner", "numpy", "scipy", "scikit-learn", "faiss-cpu")
        result["seeds"] = list(SEEDS)
        write(options.out, result)
    print(json.dumps(result, indent=1))


def mixture_vectors(path: Path | None) -> tuple[np.ndarray, np.ndarray]:
    from datapruner.models.embedders import load_text_embedder
    from datapruner.samples import load_samples
    from datapruner.signals.embedding import embed_texts
    from datapruner.signals.store import SignalStore

    samples = load_samples(str(MIXTURE))
    capability = np.array(samples.column("capability"))
    if path is not None and path.exists():
        return np.load(path), capability
    rows = np.asarray(
        embed_texts(samples.texts(), load_text_embedder("minilm"), SignalStore(None)), np.float32
    )
    if path is not None:
        np.save(path, rows)
    return rows, capability


def mixture(rows: np.ndarray, capability: np.ndarray) -> dict[str, Any]:
    from scipy.sparse.csgraph import connected_components
    from sklearn.metrics import adjusted_rand_score

    from datapruner.geometry.clustering import spherical_kmeans
    from datapruner.geometry.diffusion import (
        RANK,
        TIME,
        affinity,
        diffusion_map,
        spectral_clusters,
        spectral_nmf,
    )
    from datapruner.geometry.neighbours import neighbour_table

    near = neighbour_table(rows, NEIGHBOURS).indices
    graph = affinity(rows, near)
    walk = diffusion_map(graph, RANK, time=TIME)
    first, number = np.unique(near[:, 0], return_inverse=True)

    def agreement(labels: np.ndarray) -> float:
        return round(float(adjusted_rand_score(capability, labels)), 3)

    table = []
    for k in CLUSTERS:
        few = diffusion_map(graph, k)
        table.append(
            {
                "k": k,
                "nmf": [agreement(spectral_clusters(rows, near, k, seed=seed).assignment) for seed in SEEDS],
                "kmeans_of_the_map": [
                    agreement(spectral_clusters(rows, near, k, method="kmeans", seed=seed).assignment)
                    for seed in SEEDS
                ],
                "spherical_kmeans": [
                    agreement(spherical_kmeans(rows, k, seed=seed).assignment) for seed in SEEDS
                ],
                "nmf_of_rank_k_time_1": [
                    agreement(spectral_nmf(few, k, seed=seed)[number]) for seed in SEEDS
                ],
                "largest_of_rank_k": round(
                    float(np.bincount(spectral_nmf(few, k)[number]).max() / len(rows)), 3
                ),
            }
        )
        print(table[-1], file=sys.stderr)
    seconds, found, _ = timed(lambda: spectral_clusters(rows, near))
    return {
        "rows": len(rows),
        "distinct": len(first),
        "components": int(connected_components(graph)[0]),
        "rank": RANK,
        "time": TIME,
        "neighbours": NEIGHBOURS,
        "eigenvalues": walk.eigenvalues.round(4).tolist(),
        "adjusted_rand_index": table,
        "chosen": found.n_clusters,
        "chosen_agreement": agreement(found.assignment),
        "chosen_sizes": found.sizes.tolist(),
        "stability_k_mean_error": found.stability.as_array().round(4).tolist(),
        "seconds_choosing": round(seconds, 1),
    }


def dense(rows: np.ndarray, capability: np.ndarray) -> dict[str, Any]:
    """Principal angles between spaces of the leading vectors, and how well clusters of either are the capabilities."""
    from scipy.linalg import subspace_angles
    from sklearn.metrics import adjusted_rand_score

    from datapruner.geometry.affinity import scales_of
    from datapruner.geometry.diffusion import (
        RANK,
        TIME,
        DiffusionMap,
        affinity,
        diffusion_map,
        spectral_nmf,
    )
    from datapruner.geometry.neighbours import neighbour_table

    first = np.unique(rows, axis=0, return_index=True)[1]
    chosen = np.sort(np.random.default_rng(0).choice(first, 2000, replace=False))
    some, capability = rows[chosen], capability[chosen]
    unit = some.astype(np.float64) / np.linalg.norm(some, axis=1, keepdims=True)
    squares = np.maximum(2 - 2 * unit @ unit.T, 0)
    out: list[dict[str, Any]] = []

    def agreement(values: np.ndarray, vectors: np.ndarray, time: float) -> list[float]:
        walk = DiffusionMap(values[::-1][:RANK], vectors[:, ::-1][:, :RANK], np.full(2000, 1 / 2000), time)
        return [
            round(float(adjusted_rand_score(capability, spectral_nmf(walk, 7, seed=seed))), 3)
            for seed in SEEDS
        ]

    for k in (15, 50, 200, 1000, 2000):
        table = neighbour_table(some, k)
        graph = affinity(some, table.indices)
        walk = diffusion_map(graph, VECTORS)
        same = operator(graph.toarray())
        scales = scales_of(table.distances.astype(np.float64), 7)
        full = operator(np.exp(-squares / np.outer(scales, scales)))
        found: dict[str, Any] = {"neighbours": k}
        for name, matrix in (("same_operator", same), ("full_kernel", full)):
            values, vectors = np.linalg.eigh(matrix)
            angles = np.degrees(subspace_angles(walk.vectors, vectors[:, ::-1][:, :VECTORS]))
            found[name] = {
                "largest_angle_degrees": float(f"{angles.max():.3g}"),
                "median_angle_degrees": float(f"{np.median(angles):.3g}"),
                "largest_difference_of_an_eigenvalue": float(
                    f"{np.abs(values[::-1][:VECTORS] - walk.eigenvalues).max():.3g}"
                ),
                "eigenvalues": values[::-1][: VECTORS + 1].round(4).tolist(),
                "agreement_with_capability_7_clusters": {
                    f"time {time:g}": agreement(values, vectors, time) for time in (1.0, TIME)
                },
            }
        out.append(found)
        print(found, file=sys.stderr)
    return {"rows": 2000, "vectors": VECTORS, "runs": out}


def operator(weights: np.ndarray) -> np.ndarray:
    for power in (1.0, 0.5):
        scale = weights.sum(axis=1) ** -power
        weights = weights * scale[:, None] * scale
    return weights


def published(rows: np.ndarray) -> dict[str, Any]:
    """Time the dense kernel, all its eigenpairs and its NMF; beyond that, powers of the rows."""
    from sklearn.decomposition import NMF

    runs = []
    for count in (1_000, 2_000, 5_000):
        unit = rows[:count].astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        begin = time.perf_counter()
        squares = np.maximum(2 - 2 * unit @ unit.T, 0)
        kernel = operator(np.exp(-squares / np.median(squares)))
        made = time.perf_counter()
        np.linalg.eigh(kernel)
        solved = time.perf_counter()
        NMF(10, init="random", random_state=0, max_iter=100, tol=0).fit_transform(kernel)
        end = time.perf_counter()
        runs.append(
            {
                "rows": count,
                "kernel_seconds": round(made - begin, 2),
                "eigenpairs_seconds": round(solved - made, 2),
                "nmf_seconds": round(end - solved, 2),
                "bytes_of_one_matrix": 8 * count**2,
                "load_of_the_machine": round(os.getloadavg()[0], 1),
            }
        )
        print(runs[-1], file=sys.stderr)
    last = runs[-1]
    guesses = [
        {
            "rows": count,
            "extrapolated": True,
            "kernel_and_nmf_seconds_quadratic": round(
                (last["kernel_seconds"] + last["nmf_seconds"]) * (count / last["rows"]) ** 2
            ),
            "eigenpairs_seconds_cubic": round(last["eigenpairs_seconds"] * (count / last["rows"]) ** 3),
            "bytes_of_one_matrix": 8 * count**2,
        }
        for count in EXTRAPOLATED
    ]
    return {"measured": runs, "beyond": guesses}


def scale(folder: Path, count: int) -> dict[str, Any]:
    path = folder / f"{count}.npy"
    if not path.exists():
        synthetic(path, count)
    command = [sys.executable, __file__, "--one", str(count), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    path.unlink()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def synthetic(path: Path, count: int) -> None:
    """Write 40 blobs of uneven sizes that touch, and 5 % of noise, in blocks."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, DIM)).astype(np.float32)
    shares = rng.dirichlet(np.full(40, 3.0))
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, DIM))
    for start in range(0, count, 20_000):
        size = min(20_000, count - start)
        signal = np.float32(0.7) * (rng.random(size) > 0.05).astype(np.float32)[:, None]
        block = signal * centres[rng.choice(40, size, p=shares)]
        out[start : start + size] = block + rng.standard_normal((size, DIM), dtype=np.float32)
    out.flush()


def one_size(path: Path) -> dict[str, Any]:
    from datapruner.geometry.diffusion import CANDIDATES, RANK, TIME, affinity, choose_k, diffusion_map
    from datapruner.geometry.diffusion import spectral_nmf as nmf
    from datapruner.geometry.neighbours import neighbour_table

    warm = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    nmf(diffusion_map(affinity(warm, neighbour_table(warm, 8).indices), 4), 2)  # imports are no part of it
    rows = np.load(path, mmap_mode="r")
    steps: dict[str, float] = {}
    processor: dict[str, float] = {}  # tells what a busy machine hides
    peak = 0

    def run(name: str, step: Any) -> Any:
        nonlocal peak
        before = time.process_time()
        seconds, out, memory = timed(step)
        steps[name] = round(seconds, 2)
        processor[name] = round(time.process_time() - before, 2)
        peak = max(peak, memory.peak)
        return out

    import psutil

    begin = psutil.Process().memory_info().rss
    near = run("neighbours", lambda: neighbour_table(rows, NEIGHBOURS).indices)
    graph = run("affinity", lambda: affinity(rows, near))
    walk = run("eigenpairs", lambda: diffusion_map(graph, RANK, time=TIME))
    stability = run("choosing_k", lambda: choose_k(walk, CANDIDATES))
    labels = run("nmf", lambda: nmf(walk, stability.chosen))
    return {
        "rows": len(rows),
        "seconds": steps,
        "processor_seconds": processor,
        "seconds_neighbours": steps["neighbours"],
        "seconds_clusters": round(sum(steps.values()) - steps["neighbours"], 2),
        "seconds_all": round(sum(steps.values()), 2),
        "peak_growth_mib": round((peak - begin) / 2**20),
        "input_mib": round(rows.nbytes / 2**20),
        "edges": int(graph.nnz),
        "chosen": stability.chosen,
        "clusters": int(labels.max()) + 1,
        "load_of_the_machine": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
