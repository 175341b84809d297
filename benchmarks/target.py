"""Does a target set find its own kind? The math rows of the mixture, with the questions of gsm8k as the target.

One row in seven of the mixture is math. Both sets are embedded once; then `feature_mapping` and `label_mapping` rank
the mixture for several numbers of clusters and seeds. The table gives the share of math among the first rows, as many
as there are math rows. Beside it: a random choice, which has one in seven, and the cosine with the target's mean, which
needs no groups. A second table is of targets of two kinds: for each pair of the mixture's capabilities, 100 rows of
each are taken out as the target, and the first rows of what is left should be of these two.

    python benchmarks/target.py
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import MIXTURE, RESULTS, machine, versions, write
from numpy.typing import NDArray

TARGET_ROWS = MIXTURE.parent / "gsm8k.test.jsonl"
WANTED = "math"
CLUSTERS: tuple[int | None, ...] = (None, 8, 20, 100, 300)
SEEDS = (0, 1, 2)
HELD_OUT = 100
SCORERS = ("feature_mapping", "label_mapping")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clusters", type=int, nargs="*", help="numbers of clusters besides the default")
    parser.add_argument("--out", type=Path, default=RESULTS / "target.json")
    options = parser.parse_args()
    clusters = CLUSTERS if options.clusters is None else (None, *options.clusters)

    from datapruner.geometry.clustering import default_k
    from datapruner.models.embedders import load_text_embedder
    from datapruner.samples import load_samples
    from datapruner.scorers import make_scorer
    from datapruner.signals import TARGET, Signals
    from datapruner.signals.embedding import embed_texts
    from datapruner.signals.store import SignalStore

    samples, target = load_samples(str(MIXTURE)), load_samples(str(TARGET_ROWS))
    wanted = np.array([value == WANTED for value in samples.column("capability")])
    embedder, store = load_text_embedder("minilm"), SignalStore(None)
    measured: dict[str, Any] = {
        "embedding": embed_texts(samples.texts(), embedder, store),
        TARGET: embed_texts(target.texts(), embedder, store),
        "label": np.zeros(len(samples), dtype=np.int64),
    }
    count = int(wanted.sum())
    runs = []
    for name in SCORERS:
        for k in clusters:
            for seed in SEEDS:
                scorer = make_scorer(name, {"n_clusters": k})
                began = time.perf_counter()
                ranking = scorer.score(Signals(len(samples), measured, seed))
                seconds = time.perf_counter() - began
                voted = int((np.asarray(ranking.group_weights) > 0).sum())
                runs.append(
                    {
                        "scorer": name,
                        "n_clusters": k or default_k(len(samples)),
                        "default": k is None,
                        "seed": seed,
                        "precision": round(precision(ranking.values, wanted, count), 4),
                        "precision_half": round(precision(ranking.values, wanted, count // 2), 4),
                        "clusters_with_votes": voted,
                        "seconds": round(seconds, 3),
                    }
                )
    random = [
        precision(np.random.default_rng(seed).random(len(samples)), wanted, count) for seed in range(20)
    ]
    centre = unit(measured[TARGET]).mean(axis=0)
    nearest = precision(unit(measured["embedding"]) @ centre, wanted, count)
    pairs = two_kinds(measured["embedding"], np.array(samples.column("capability")))
    result = {
        "question": f"share of {WANTED} among the first {count} of {len(samples)} rows",
        "target": f"{TARGET_ROWS.name}, {len(target)} rows",
        "random": {"mean": round(float(np.mean(random)), 4), "expected": round(float(wanted.mean()), 4)},
        "cosine_to_the_mean_of_the_target": round(nearest, 4),
        "runs": runs,
        "targets_of_two_kinds": pairs,
        "machine": machine(threads=os.environ.get("OMP_NUM_THREADS", "default")),
        "versions": versions("datapruner", "faiss-cpu", "numpy", "scikit-learn", "torch"),
    }
    write(options.out, result)
    print(table(runs, count, float(np.mean(random)), nearest))
    print(
        f"\ntargets of two kinds, {len(pairs)} pairs: share of both kinds among the first rows, mean (least)"
    )
    for name in [name for name in pairs[0] if name != "kinds"]:
        shares = [pair[name] for pair in pairs]
        print(f"{name:16} {np.mean(shares):>9.1%} ({min(shares):.1%})")


def two_kinds(embedding: NDArray[np.float32], kinds: NDArray[np.str_]) -> list[dict[str, Any]]:
    """For every pair of kinds: the precision of each scorer, of the cosine with the target's mean, and of chance."""
    from datapruner.scorers import make_scorer
    from datapruner.signals import TARGET, Signals

    out: list[dict[str, Any]] = []
    for pair in combinations(sorted(set(kinds.tolist())), 2):
        rng = np.random.default_rng(0)
        taken = np.concatenate([rng.permutation(np.flatnonzero(kinds == kind))[:HELD_OUT] for kind in pair])
        left = np.setdiff1d(np.arange(len(kinds)), taken)
        wanted = np.isin(kinds[left], pair)
        count = int(wanted.sum())
        measured = {
            "embedding": embedding[left],
            TARGET: embedding[taken],
            "label": np.zeros(len(left), np.int64),
        }
        found = {
            name: precision(make_scorer(name).score(Signals(len(left), measured, 0)).values, wanted, count)
            for name in SCORERS
        }
        found["cosine to mean"] = precision(
            unit(embedding[left]) @ unit(embedding[taken]).mean(axis=0), wanted, count
        )
        found["random"] = float(wanted.mean())
        out.append({"kinds": list(pair), **{name: round(share, 4) for name, share in found.items()}})
    return out


def precision(values: NDArray[np.float64], wanted: NDArray[np.bool_], count: int) -> float:
    return float(wanted[np.argsort(-values, kind="stable")[:count]].mean())


def unit(vectors: Any) -> NDArray[np.float64]:
    vectors = np.asarray(vectors, dtype=np.float64)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def table(runs: list[dict[str, Any]], count: int, random: float, nearest: float) -> str:
    lines = [
        f"{'scorer':16} {'k':>9}  {'of ' + str(count):>20}  {'of ' + str(count // 2):>7}  {'voted for':>9}  {'s':>5}"
    ]
    for name, k in dict.fromkeys((run["scorer"], run["n_clusters"]) for run in runs):
        own = [run for run in runs if (run["scorer"], run["n_clusters"]) == (name, k)]
        shares = [run["precision"] for run in own]
        half, voted, seconds = (
            np.mean([run[key] for run in own]) for key in ("precision_half", "clusters_with_votes", "seconds")
        )
        spread = f"{np.mean(shares):.1%} ({min(shares):.1%}-{max(shares):.1%})"
        shown = f"{k}{' *' if own[0]['default'] else '  '}"
        lines.append(f"{name:16} {shown:>9}  {spread:>20}  {half:>7.1%}  {voted:>9.1f}  {seconds:>5.1f}")
    lines.append(f"{'cosine to mean':16} {'':>9}  {nearest:>20.1%}")
    lines.append(f"{'random':16} {'':>9}  {random:>20.1%}")
    lines.append(f"* the default; {len(SEEDS)} seeds, mean (least-most)")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
