"""What does topology cost, next to gudhi alone, next to a plain chain of libraries, and at a million rows?

1. One optimiser step with H0 and H1 at 50,000 points (and with H0 alone), next to scipy's Delaunay and gudhi's
   persistence on the same alpha complex, and next to gudhi's own alpha complex and persistence.
2. Everything after the manifold, 200,000 points in 100 groups: TopoPrune's score and selection, next to a chain that
   takes gudhi's AlphaComplex of each group in a Python loop, and the same torch loss on the pairs that it gives.
3. From embeddings to a selection, 1,000,000 x 384, by stage, with UMAP and with principal components.

gudhi's AlphaComplex is GPL through CGAL: it is measured here and never used by the package.

    python benchmarks/topology.py --step --chain --scale
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gudhi
import numpy as np
import torch
from common import RESULTS, in_turns, machine, ratio, summary, timed, versions, write
from scipy.spatial import Delaunay, cKDTree

from datapruner.geometry import manifold as manifolds
from datapruner.geometry.neighbours import neighbour_table
from datapruner.geometry.persistence import Pairs, pairs
from datapruner.scorers._displacement import loss
from datapruner.scorers.topoprune import TopoPrune
from datapruner.selection.budget_rows import Portion
from datapruner.signals import Signals

SEED = 0
WEIGHTS = (1.0, 1.0, 0.0)
STEP_SIZE = 0.01


def clustered(rows: int, dimensions: int, clusters: int, seed: int = SEED) -> np.ndarray:
    """Uneven, stretched clusters, as embeddings have them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, dimensions)).astype(np.float32)
    spread = rng.uniform(0.2, 0.6, clusters).astype(np.float32)
    label = np.minimum(rng.geometric(min(0.5, 4 / clusters), rows) - 1, clusters - 1)
    noise = rng.standard_normal((rows, dimensions), dtype=np.float32)
    return centres[label] + spread[label, None] * noise


def one_step(points: np.ndarray, found: Pairs) -> np.ndarray:
    """The gradient step of TopoPrune on pairs that are known."""
    start = torch.from_numpy(points)
    current = start.clone().requires_grad_()
    loss(current, start, [found], WEIGHTS).backward()
    return (current.detach() - STEP_SIZE * current.grad).numpy()


def filled(points: np.ndarray) -> Any:
    """The alpha complex on scipy's triangulation in gudhi's simplex tree, values by the shortest numpy there is."""
    triangles = np.sort(Delaunay(points).simplices, axis=1)
    a, b, c = (points[triangles[:, j]] for j in range(3))
    sides = [np.linalg.norm(p - q, axis=1) for p, q in ((a, b), (b, c), (c, a))]
    area = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    radii = sides[0] * sides[1] * sides[2] / (2 * area)
    every = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [0, 2]]])
    apex = np.concatenate([triangles[:, 2], triangles[:, 0], triangles[:, 1]])
    edges, number = np.unique(every, axis=0, return_inverse=True)
    number = number.reshape(-1)
    inside = ((points[every[:, 0]] - points[apex]) * (points[every[:, 1]] - points[apex])).sum(axis=1) < 0
    blocked = np.zeros(len(edges), bool)
    blocked[number[inside]] = True
    first = np.full(len(edges), np.inf)
    np.minimum.at(first, number, np.tile(radii, 3))
    half = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1) / 2
    tree = gudhi.SimplexTree()
    for vertex in range(len(points)):
        tree.insert([vertex], 0.0)
    tree.insert_batch(edges.T.astype(np.int32), np.where(blocked, first, half))
    tree.insert_batch(triangles.T.astype(np.int32), radii)
    tree.make_filtration_non_decreasing()
    return tree


def chain_pairs(points: np.ndarray) -> Pairs:
    """The pairs of positive persistence of gudhi's alpha complex, as one would first write it."""
    complex_ = gudhi.AlphaComplex(points=points)
    tree = complex_.create_simplex_tree()
    place = {tuple(complex_.get_point(v)): v for v in range(tree.num_vertices())}
    row = np.array([place[tuple(point)] for point in points])
    back = np.empty(len(row), np.int64)
    back[row] = np.arange(len(row))
    tree.compute_persistence()
    merges, births, deaths = [], [], []
    for birth, death in tree.persistence_pairs():
        if len(birth) == 1 and len(death) == 2:
            merges.append(death)
        elif len(birth) == 2 and len(death) == 3:
            births.append(birth)
            deaths.append(death)
    return Pairs(
        *(
            back[np.array(held, np.int64).reshape(-1, k)]
            for held, k in ((merges, 2), (births, 2), (deaths, 3))
        )
    )


def step(points: int, repeats: int) -> dict[str, Any]:
    cloud = clustered(points, 2, 40).astype(np.float64)
    pairs(cloud[:100])

    def ours(_: int) -> np.ndarray:
        return one_step(cloud, pairs(cloud))

    def h0(_: int) -> np.ndarray:
        return one_step(cloud, pairs(cloud, loops=False))

    def delaunay_and_gudhi(_: int) -> Any:
        tree = filled(cloud)
        tree.compute_persistence()
        return tree

    def gudhi_alone(_: int) -> Any:
        tree = gudhi.AlphaComplex(points=cloud).create_simplex_tree()
        tree.compute_persistence()
        return tree

    def delaunay(_: int) -> Any:
        return Delaunay(cloud)

    arms = in_turns(
        {
            "ours": ours,
            "ours_h0": h0,
            "delaunay_and_gudhi": delaunay_and_gudhi,
            "gudhi": gudhi_alone,
            "delaunay": delaunay,
        },
        repeats,
    )
    theirs = arms["delaunay_and_gudhi"][0][1].persistence_intervals_in_dimension(1)
    lives = theirs[:, 1] - theirs[:, 0]
    return {
        "points": points,
        **{arm: summary(runs, points) for arm, runs in arms.items()},
        "ours_over_delaunay_and_gudhi": ratio(arms["ours"], arms["delaunay_and_gudhi"]),
        "ours_over_gudhi": ratio(arms["ours"], arms["gudhi"]),
        "ours_h0_over_delaunay_and_gudhi": ratio(arms["ours_h0"], arms["delaunay_and_gudhi"]),
        "goal": 1.5,
        "loops_ours": len(pairs(cloud).births),
        "loops_gudhi": int((lives > 1e-12 * theirs[:, 1]).sum()),
    }


def chain(points: int, groups: int, steps: int, repeats: int) -> dict[str, Any]:
    cloud = clustered(points, 2, 300).astype(np.float64)
    cloud = (cloud - cloud.mean(axis=0)) / cloud.std(axis=0)
    group = np.random.default_rng(SEED).integers(0, groups, points)
    members = [np.flatnonzero(group == number) for number in range(groups)]
    near = cKDTree(cloud).query(cloud, k=15)[1]  # the graph is the manifold's, and known
    signals = Signals(points, {"manifold": cloud, "neighbours": near, "label": group}, SEED)
    scorer = TopoPrune(within="label", steps=steps, step_size=STEP_SIZE)
    pairs(cloud[:100])

    def ours(_: int) -> np.ndarray:
        ranking = scorer.score(signals)
        portion = Portion(np.arange(points), np.ones(points, np.int64), points // 10)
        scorer.selector().select(ranking, portion, np.random.default_rng(SEED))
        return ranking.columns["displacement"]

    def theirs(_: int) -> np.ndarray:
        out = np.empty(points)
        for rows in members:
            here = cloud[rows]
            edges = pairs(here, loops=False).merges  # the unit only: any library's tree gives it
            unit = np.median(np.linalg.norm(here[edges[:, 0]] - here[edges[:, 1]], axis=1))
            start = here / unit
            current = start
            for _ in range(steps):
                tensor = torch.tensor(current, requires_grad=True)
                loss(tensor, torch.tensor(start), [chain_pairs(current)], WEIGHTS).backward()
                current = current - STEP_SIZE * tensor.grad.numpy()
            out[rows] = np.linalg.norm(current - start, axis=1)
        return out

    arms = in_turns({"ours": ours, "chain": theirs}, repeats)
    return {
        "points": points,
        "groups": groups,
        "steps": steps,
        **{arm: summary(runs, points) for arm, runs in arms.items()},
        "chain_over_ours": ratio(arms["chain"], arms["ours"]),
        "goal": 2.0,
        "largest_difference_of_displacement": float(np.abs(arms["ours"][0][1] - arms["chain"][0][1]).max()),
    }


def scale(rows: int, dimensions: int, methods: list[str], steps: int, done: Callable[..., None]) -> None:
    """From a float32 file to a selection, by stage; the neighbours are found once and count in every total."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.npy"
        written = np.lib.format.open_memmap(path, "w+", np.float32, (rows, dimensions))
        for start in range(0, rows, 100_000):
            stop = min(start + 100_000, rows)
            written[start:stop] = clustered(stop - start, dimensions, 2000, SEED + start)
        written.flush()
        del written
        matrix = np.load(path, mmap_mode="r")
        shared: dict[str, dict[str, float]] = {}
        scorer = TopoPrune(steps=steps)
        portion = Portion(np.arange(rows), np.ones(rows, np.int64), rows // 10)

        def stage(stages: dict[str, dict[str, float]], name: str, run: Callable[[], Any]) -> Any:
            seconds, out, memory = timed(run)
            stages[name] = {"seconds": round(seconds, 1), "peak_rss_gib": round(memory.peak / 2**30, 2)}
            print(f"{name:>24} {seconds:8.1f} s {memory.peak / 2**30:6.2f} GiB", file=sys.stderr)
            return out

        stage(shared, "hash", lambda: manifolds.content_hash(matrix))
        table = stage(shared, "neighbours", lambda: neighbour_table(matrix, 15))
        for method in methods:
            stages = dict(shared)
            placed = stage(
                stages,
                f"manifold, {method}",
                lambda method=method: manifolds.manifold(matrix, method=method, neighbours=table),
            )
            given = {
                "manifold": placed,
                "neighbours": table.indices,
                "label": np.zeros(rows, np.int64),
                "embedding": matrix,
            }
            signals = Signals(rows, given, SEED)
            ranking = stage(stages, "clusters and topology", lambda s=signals: scorer.score(s))
            choice = stage(
                stages,
                "selection",
                lambda r=ranking: scorer.selector().select(r, portion, np.random.default_rng(SEED)),
            )
            seconds = sum(held["seconds"] for held in stages.values())
            done(
                method,
                {
                    "rows": rows,
                    "dimensions": dimensions,
                    "method": method,
                    "steps": steps,
                    "groups": int(ranking.groups.max()) + 1,
                    "stages": stages,
                    "minutes": round(seconds / 60, 2),
                    "goal_minutes": 40 if method == "umap" else 10,
                    "peak_rss_gib": max(held["peak_rss_gib"] for held in stages.values()),
                    "kept": int(choice.kept.sum()),
                },
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--chain", action="store_true")
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--chain-points", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--methods", nargs="+", default=["pca", "umap"])
    parser.add_argument("--steps", type=int, default=TopoPrune().steps)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "topology.json")
    given = parser.parse_args()
    result = json.loads(given.out.read_text("utf-8")) if given.out.exists() else {}
    every = not (given.step or given.chain or given.scale)
    if given.step or every:
        result["step"] = step(given.points, given.repeats)
    if given.chain or every:
        result["chain"] = chain(given.chain_points, 100, given.steps, max(1, given.repeats // 2))
    result |= {
        **machine(threads=torch.get_num_threads()),
        "versions": versions("numpy", "scipy", "gudhi", "torch", "umap-learn", "faiss-cpu", "numba"),
    }

    def note(method: str, found: dict[str, Any]) -> None:
        result[f"scale_{method}"] = found
        write(given.out, result)

    write(given.out, result)
    if given.scale or every:
        scale(given.rows, given.dimensions, given.methods, given.steps, note)
    print(json.dumps({key: held for key, held in result.items() if key != "versions"}, indent=1))


if __name__ == "__main__":
    main()
