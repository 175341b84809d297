"""Which rows of Fashion-MNIST are worth training on? Test accuracy of a small network on what each method keeps.

- A feature network is trained on 10,000 rows that then leave the pool; 5,000 rows are for choosing defaults
  (``--ablation``), the other 45,000 are the pool. The test set is looked at by the final table alone.
- The learner is a small convolutional network on pixels, with the same number of steps for every arm. A seed is the
  learner's, the selection's and UMAP's; the feature network is one.
- Conditions: ``clean``; ``noise``: Gaussian noise of one deviation a dimension on the features, and on what the
  feature network says from them; ``mlp``: features from another architecture.
- EL2N-like scores come from the feature network: it sees labels, as entanglement, topoprune, d2 and Moderate do here.

The images are those of Debian's package dataset-fashion-mnist.

    python benchmarks/fashion.py --ablation
    python benchmarks/fashion.py --conditions clean noise mlp
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from common import RESULTS, machine, versions, write
from scipy.spatial import cKDTree
from torch import nn

from datapruner.geometry.manifold import manifold
from datapruner.geometry.neighbours import Neighbours, neighbour_table
from datapruner.scorers.base import Ranking, Scorer
from datapruner.scorers.d2 import D2
from datapruner.scorers.entanglement import Entanglement
from datapruner.scorers.k_center import KCenter
from datapruner.scorers.prototypes import Prototypes
from datapruner.scorers.topoprune import TopoPrune
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Selector
from datapruner.selection.selectors.ccs import CCS
from datapruner.selection.selectors.coverage import Coverage
from datapruner.selection.selectors.group_quota import GroupQuota
from datapruner.selection.selectors.moderate import Moderate
from datapruner.signals import Signals

IMAGES = Path("/usr/share/datasets/fashion-mnist")
CLASSES = 10
FEATURE_ROWS, VALIDATION_ROWS = 10_000, 5_000
FEATURE_STEPS, STEPS, BATCH, RATE = 1200, 500, 128, 2e-3
NOISE = 1.0
BUDGETS = {"clean": (0.1, 0.3), "noise": (0.1,), "mlp": (0.1,)}


def idx(path: Path, skip: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=skip)


def pixels(path: Path) -> torch.Tensor:
    return (torch.from_numpy(idx(path, 16).reshape(-1, 1, 28, 28).astype(np.float32)) / 255 - 0.286) / 0.353


def labels(path: Path) -> torch.Tensor:
    return torch.from_numpy(idx(path, 8).astype(np.int64))


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )


def perceptron() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, CLASSES)
    )


def train(
    make: Callable[[], nn.Sequential], x: torch.Tensor, y: torch.Tensor, steps: int, seed: int
) -> nn.Sequential:
    torch.manual_seed(seed)
    model = make()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(order) < BATCH:
            order = torch.cat([order, torch.randperm(len(x), generator=generator)])
        rows, order = order[:BATCH], order[BATCH:]
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
        schedule.step()
    return model


@torch.no_grad()
def outputs(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(x[start : start + 2000]) for start in range(0, len(x), 2000)])


@dataclass(frozen=True)
class Given(Scorer):
    """Scores that exist already, as a scorer."""

    values: Any
    name: ClassVar[str] = "given"
    needs: ClassVar[frozenset[str]] = frozenset()

    def _score(self, signals: Signals) -> Ranking:
        return Ranking(np.asarray(self.values, dtype=np.float64))


class Study:
    """The data, split; the features of one condition; and what every method keeps of the pool."""

    def __init__(self, folder: Path, condition: str) -> None:
        self.x, self.y = (
            pixels(folder / "train-images-idx3-ubyte.gz"),
            labels(folder / "train-labels-idx1-ubyte.gz"),
        )
        self.test = pixels(folder / "t10k-images-idx3-ubyte.gz"), labels(folder / "t10k-labels-idx1-ubyte.gz")
        order = np.random.default_rng(0).permutation(len(self.x))
        fitted, held = order[:FEATURE_ROWS], order[FEATURE_ROWS : FEATURE_ROWS + VALIDATION_ROWS]
        self.validation = self.x[held], self.y[held]
        self.pool = np.sort(order[FEATURE_ROWS + VALIDATION_ROWS :])
        self.label = self.y[self.pool].numpy()
        self.n = len(self.pool)
        model = train(
            perceptron if condition == "mlp" else convolutional,
            self.x[fitted],
            self.y[fitted],
            FEATURE_STEPS,
            0,
        )
        body, head = model[:-1], model[-1]
        features = outputs(body, self.x[self.pool])
        if condition == "noise":
            noise = np.random.default_rng(1).standard_normal(features.shape).astype(np.float32)
            features = features + NOISE * features.std(dim=0) * torch.from_numpy(noise)
        self.features = features.numpy() + np.float32(1e-6)  # a row of zeros has no direction
        with torch.no_grad():
            said = head(features).softmax(dim=1).numpy()
        self.feature_accuracy = float((said.argmax(axis=1) == self.label).mean())
        said[np.arange(self.n), self.label] -= 1
        self.el2n = np.linalg.norm(said, axis=1).astype(np.float64)
        self.neighbours: Neighbours = neighbour_table(self.features, 15)
        self._manifolds: dict[int, np.ndarray] = {}

    def signals(self, seed: int) -> Signals:
        if seed not in self._manifolds:
            self._manifolds[seed] = manifold(self.features, seed=seed, neighbours=self.neighbours)
        return Signals(
            self.n,
            {
                "embedding": self.features,
                "manifold": self._manifolds[seed],
                "neighbours": self.neighbours.indices,
                "label": self.label,
            },
            seed,
        )

    def keep(
        self,
        scorer: Scorer,
        share: float,
        seed: int,
        selector: Selector | None = None,
        *,
        by_class: bool = False,
    ) -> np.ndarray:
        ranking = scorer.score(self.signals(seed))
        chooser = selector or scorer.selector()
        parts = [np.flatnonzero(self.label == c) for c in range(CLASSES)] if by_class else [np.arange(self.n)]
        kept = np.zeros(self.n, dtype=bool)
        for number, rows in enumerate(parts):
            portion = Portion(rows, np.ones(len(rows), np.int64), round(share * len(rows)))
            kept[rows] = chooser.select(ranking, portion, np.random.default_rng([seed, number])).kept
        return np.flatnonzero(kept)

    def to_class_mean(self) -> np.ndarray:
        unit = self.features / np.linalg.norm(self.features, axis=1, keepdims=True)
        means = np.stack([unit[self.label == c].mean(axis=0) for c in range(CLASSES)])
        return np.linalg.norm(unit - means[self.label], axis=1)

    def cover_radius(self, seed: int, times: int = 20) -> np.ndarray:
        """The radius at which ``times`` others of its class cover a row on the manifold."""
        points = self.signals(seed)["manifold"]
        out = np.empty(self.n)
        for c in range(CLASSES):
            rows = np.flatnonzero(self.label == c)
            out[rows] = cKDTree(points[rows]).query(points[rows], k=times + 1)[0][:, -1]
        return out

    def d2(self) -> Scorer:
        scorer = D2()
        scorer.__dict__["difficulty"] = Given(self.el2n)  # EL2N, as for the other arms
        return scorer

    def random(self, share: float, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).choice(self.n, round(share * self.n), replace=False)

    def arms(self) -> dict[str, Callable[[float, int], np.ndarray]]:
        return {
            "entanglement": lambda share, seed: self.keep(Entanglement(), share, seed),
            "topoprune": lambda share, seed: self.keep(TopoPrune(), share, seed),
            "d2 on EL2N": lambda share, seed: self.keep(self.d2(), share, seed),
            "ccs on EL2N": lambda share, seed: self.keep(Given(self.el2n), share, seed, CCS()),
            "moderate": lambda share, seed: self.keep(
                Given(self.to_class_mean()), share, seed, Moderate(), by_class=True
            ),
            "prototypes, hard": lambda share, seed: self.keep(Prototypes(), share, seed),
            "prototypes, easy": lambda share, seed: self.keep(Prototypes(keep="easy"), share, seed),
            "k_center": lambda share, seed: self.keep(KCenter(), share, seed),
            "random": self.random,
        }

    def accuracy(self, rows: np.ndarray, seed: int, on: tuple[torch.Tensor, torch.Tensor]) -> float:
        chosen = self.pool[rows]
        model = train(convolutional, self.x[chosen], self.y[chosen], STEPS, seed)
        return float((outputs(model, on[0]).argmax(dim=1) == on[1]).float().mean())


def told(accuracies: list[float]) -> dict[str, Any]:
    return {
        "mean": round(100 * statistics.mean(accuracies), 2),
        "deviation": round(100 * statistics.stdev(accuracies), 2),
        "each": [round(100 * value, 2) for value in accuracies],
    }


def table(study: Study, share: float, seeds: int, wanted: list[str] | None) -> dict[str, Any]:
    out: dict[str, Any] = {}
    kept: dict[str, list[np.ndarray]] = {}
    for name, choose in study.arms().items():
        if wanted and name not in wanted:
            continue
        kept[name] = [choose(share, seed) for seed in range(seeds)]
        out[name] = told([study.accuracy(rows, seed, study.test) for seed, rows in enumerate(kept[name])])
        classes = [np.bincount(study.label[rows], minlength=CLASSES) for rows in kept[name]]
        out[name]["smallest_and_largest_class"] = [int(min(map(min, classes))), int(max(map(max, classes)))]
        print(f"{share:.0%} {name:>24} {out[name]['mean']:6.2f} ± {out[name]['deviation']:.2f}", flush=True)
    return out


ABLATION: dict[str, tuple[Scorer, Selector, bool]] = {
    "default": (Entanglement(), Coverage(), False),
    "walk 0": (Entanglement(walk=0), Coverage(), False),
    "walk 5": (Entanglement(walk=5), Coverage(), False),
    "low, top-k": (Entanglement(keep="low"), GroupQuota(projection="proportional"), False),
    "2 strata": (Entanglement(), Coverage(strata=2), False),
    "5 strata": (Entanglement(), Coverage(strata=5), False),
    "50 strata": (Entanglement(), Coverage(strata=50), False),
    "50 strata, drawn": (Entanglement(), CCS(), False),
    "one stratum: merge tree alone": (Entanglement(), Coverage(beta=0.0, strata=1), False),
    "beta 0.05": (Entanglement(), Coverage(beta=0.05), False),
    "beta 0.2": (Entanglement(), Coverage(beta=0.2), False),
    "inside each class": (Entanglement(), Coverage(), True),
    "clusters for labels": (Entanglement(within="cluster"), Coverage(), False),
    "density 0.5": (Entanglement(density_weight=0.5), Coverage(), False),
    "displacement": (TopoPrune(), Coverage(), False),
    "displacement, high": (TopoPrune(), GroupQuota(projection="proportional"), False),
    "displacement, low": (
        TopoPrune(keep="low"),
        GroupQuota(projection="proportional"),
        False,
    ),
    "displacement, middle": (TopoPrune(), Moderate(), True),
    "displacement, 1 step": (TopoPrune(steps=1), Coverage(), False),
    "displacement, 30 steps": (TopoPrune(steps=30), Coverage(), False),
    "displacement, adam": (TopoPrune(optimiser="adam"), Coverage(), False),
    "displacement, H0 alone": (TopoPrune(h1_weight=0.0), Coverage(), False),
    "displacement, H1 alone": (TopoPrune(h0_weight=0.0), Coverage(), False),
    "displacement, anchored": (TopoPrune(anchor=1.0), Coverage(), False),
    "displacement, density 1": (TopoPrune(density_weight=1.0), Coverage(), False),
}
"""Parameters of entanglement and topoprune, the selector, and whether every class gets its share."""


def ablation(study: Study, share: float, seeds: int, wanted: list[str] | None) -> dict[str, Any]:
    out: dict[str, Any] = {}

    def note(name: str, choose: Callable[[int], np.ndarray]) -> None:
        if wanted and name not in wanted:
            return
        out[name] = told([study.accuracy(choose(seed), seed, study.validation) for seed in range(seeds)])
        print(f"ablation {name:>30} {out[name]['mean']:6.2f} ± {out[name]['deviation']:.2f}", flush=True)

    def walked(values: np.ndarray, seed: int) -> np.ndarray:
        """Other values on the walk along the merge trees, through its selector."""
        held = Entanglement().score(study.signals(seed))
        portion = Portion(np.arange(study.n), np.ones(study.n, np.int64), round(share * study.n))
        chosen = Coverage().select(replace(held, values=values), portion, np.random.default_rng([seed, 0]))
        return np.flatnonzero(chosen.kept)

    def messages(seed: int) -> np.ndarray:
        scorer = D2()
        scorer.__dict__["difficulty"] = Entanglement()
        return study.keep(scorer, share, seed)

    note("EL2N through coverage", lambda seed: walked(study.el2n, seed))
    note("density bifiltration", lambda seed: walked(study.cover_radius(seed), seed))
    note(
        "density bifiltration, drawn",
        lambda seed: study.keep(Given(study.cover_radius(seed)), share, seed, CCS()),
    )
    note("d2 on entanglement", messages)
    note("random", lambda seed: study.random(share, seed))
    note("ccs on EL2N", lambda seed: study.keep(Given(study.el2n), share, seed, CCS()))
    note("d2 on EL2N", lambda seed: study.keep(study.d2(), share, seed))
    for name, (scorer, selector, by_class) in ABLATION.items():
        note(name, lambda seed, s=scorer, c=selector, b=by_class: study.keep(s, share, seed, c, by_class=b))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, default=IMAGES)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--conditions", nargs="*", default=[], choices=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", nargs="*", help="only these; the others' figures stay as they are")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "fashion.json")
    given = parser.parse_args()
    if not given.images.exists():
        sys.exit(
            f"there are no images in {given.images}: install Debian's dataset-fashion-mnist, or name --images"
        )
    torch.set_num_threads(given.threads)
    for condition in (["clean"] if given.ablation else []) + (
        given.conditions or ([] if given.ablation else list(BUDGETS))
    ):
        begun = time.perf_counter()
        study = Study(given.images, condition)
        if given.ablation:
            found = {"ablation on validation, 10 %": ablation(study, 0.1, given.seeds, given.arms)}
            given.ablation = False
        else:
            found = {
                f"{condition}, {share:.0%}": table(study, share, given.seeds, given.arms)
                for share in BUDGETS[condition]
            }
        # Read again: another condition may have been measured meanwhile.
        result = json.loads(given.out.read_text("utf-8")) if given.out.exists() else {}
        for name, rows in found.items():
            result[name] = {**result.get(name, {}), **rows}
        result |= {
            f"feature network's accuracy on the pool, {condition}": round(100 * study.feature_accuracy, 2),
            "seeds": given.seeds,
            "steps": STEPS,
            "pool": study.n,
            **machine(threads=given.threads),
            "versions": versions("torch", "numpy", "umap-learn", "faiss-cpu", "scikit-learn"),
        }
        write(given.out, result)
        print(f"{condition}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
