"""Ten percent of a labelled text set: what does a linear probe learn from it, and which labels does it meet?

The mixture's training rows with their capability as the label, MiniLM's vectors; every method keeps the same number of
rows, a logistic regression is trained on their vectors, and tested on the mixture's test rows. Coverage: the smallest
and the largest share that a capability has of what is kept (each has one seventh of the rows).

EL2N-like scores come from a probe that was trained on another half of the rows, each half scoring the other.

    python benchmarks/coverage_text.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from common import MIXTURE, RESULTS, machine, versions, write
from fashion import Given
from sklearn.linear_model import LogisticRegression

import datapruner as dp
from datapruner.models.embedders import load_text_embedder
from datapruner.samples import load_samples
from datapruner.scorers import Entanglement, KCenter, Prototypes, TopoPrune
from datapruner.scorers.d2 import D2
from datapruner.selection.selectors.ccs import CCS
from datapruner.selection.selectors.moderate import Moderate
from datapruner.signals.embedding import embed_texts
from datapruner.signals.store import SignalStore

TEST = MIXTURE.with_name("mixture.test.jsonl")


def probe(vectors: np.ndarray, label: np.ndarray) -> LogisticRegression:
    return LogisticRegression(max_iter=2000).fit(vectors, label)


def el2n(vectors: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Each half's scores come from a probe of the other half."""
    half = np.random.default_rng(0).permutation(len(label)) % 2
    out = np.empty(len(label))
    for part in (0, 1):
        said = probe(vectors[half != part], label[half != part]).predict_proba(vectors[half == part])
        said[np.arange(len(said)), label[half == part]] -= 1
        out[half == part] = np.linalg.norm(said, axis=1)
    return out


def measure(keep: float, seeds: int, folder: Path) -> dict[str, Any]:
    train, test = load_samples(str(MIXTURE)), load_samples(str(TEST))
    names = sorted(set(train.column("capability")))
    label, truth = (
        np.array([names.index(name) for name in held.column("capability")]) for held in (train, test)
    )
    store, embedder = SignalStore(folder), load_text_embedder("minilm")
    vectors, tests = (np.array(embed_texts(held.texts("both"), embedder, store)) for held in (train, test))
    hardness = el2n(vectors, label)
    means = np.stack([vectors[label == c].mean(axis=0) for c in range(len(names))])
    from_mean = np.linalg.norm(vectors - means[label], axis=1)
    d2 = D2()
    d2.__dict__["difficulty"] = Given(hardness)
    topo = {"within": "capability"}
    arms: dict[str, Callable[[int], Any]] = {
        "entanglement": lambda seed: pruned(Entanglement(**topo), seed),
        "entanglement in each capability": lambda seed: pruned(
            Entanglement(**topo), seed, per_group="capability"
        ),
        "topoprune": lambda seed: pruned(TopoPrune(**topo), seed),
        "d2 on EL2N": lambda seed: pruned(d2, seed),
        "ccs on EL2N": lambda seed: pruned(Given(hardness), seed, selector=CCS()),
        "moderate": lambda seed: pruned(Given(from_mean), seed, selector=Moderate(), per_group="capability"),
        "prototypes, hard": lambda seed: pruned(Prototypes(), seed),
        "prototypes, easy": lambda seed: pruned(Prototypes(keep="easy"), seed),
        "k_center": lambda seed: pruned(KCenter(), seed),
        "random": lambda seed: pruned("random", seed),
        "random in each capability": lambda seed: pruned("random", seed, per_group="capability"),
    }

    def pruned(scorer: Any, seed: int, **options: Any) -> np.ndarray:
        return dp.prune(
            str(MIXTURE),
            scorer=scorer,
            embeddings=vectors,
            keep=keep,
            seed=seed,
            cache=folder,
            progress=False,
            **options,
        ).indices

    result: dict[str, Any] = {"all rows": round(100 * float(probe(vectors, label).score(tests, truth)), 2)}
    for name, choose in arms.items():
        kept = [choose(seed) for seed in range(seeds)]
        accuracy = [100 * float(probe(vectors[rows], label[rows]).score(tests, truth)) for rows in kept]
        shares = [np.bincount(label[rows], minlength=len(names)) / len(rows) for rows in kept]
        result[name] = {
            "accuracy": round(statistics.mean(accuracy), 2),
            "deviation": round(statistics.stdev(accuracy), 2),
            "each": [round(value, 2) for value in accuracy],
            "smallest_share": round(float(min(map(np.min, shares))), 3),
            "largest_share": round(float(max(map(np.max, shares))), 3),
        }
        print(f"{name:>28} {result[name]}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keep", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "coverage_text.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(given.keep, given.seeds, Path(folder))
    write(
        given.out,
        {
            "keep": given.keep,
            "seeds": given.seeds,
            "results": result,
            **machine(),
            "versions": versions("scikit-learn", "umap-learn", "sentence-transformers", "torch", "numpy"),
        },
    )


if __name__ == "__main__":
    main()
