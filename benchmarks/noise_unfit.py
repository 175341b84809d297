"""What `unfit_answer` finds without a language model, on sets that it was not designed on.

Designed on the messy set of `benchmarks/messy.py` with seed 0. Named before any result was looked at: the sources of
`benchmarks/noise.py` that `response_noise` was not designed on (docstrings of the standard library, ten reasoning-gym
tasks), for the AUROC of one label-free score: the lower of the log odds that an answer is its prompt's, and that its
words are in order; messy sets of another seed and of reasoning-gym, for what the step drops.

    python benchmarks/noise_unfit.py [FOLDER/messy.jsonl ...]

Folders are those of `benchmarks/messy.py`, with the truth beside each set; what its rules would have dropped is left
out first.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from common import RESULTS, machine, versions, write
from noise import Row, auroc, corrupt, unseen

RESULT = RESULTS / "noise_unfit.json"
KINDS = ("swapped", "shuffled")
BY_RULES = ("empty", "broken: mojibake", "broken: echo", "broken: repeated", "broken: refusal")
COPIES = ("copy: exact", "copy: another template")
GOOD = ("", "leaked", *COPIES)


def vectors(texts: list[str], folder: Path) -> Any:
    from datapruner.models.embedders import load_text_embedder
    from datapruner.signals.embedding import embed_texts
    from datapruner.signals.store import SignalStore

    return embed_texts(texts, load_text_embedder("minilm"), SignalStore(folder))


def scores(rows: list[Row], answers: list[str], folder: Path) -> dict[str, Any]:
    """Log odds that the answer is its prompt's, that its words are in order, and the lower of both."""
    from datapruner.cleaning.answer_fit import answer_fit, rising
    from datapruner.cleaning.beyond_chance import told_apart
    from datapruner.cleaning.word_order import RISING, features, word_orders
    from datapruner.geometry.clustering import default_k, spherical_kmeans

    prompts = [row["prompt"] for row in rows]
    asked, said = vectors(prompts, folder), vectors(answers, folder)
    kinds, broad = (
        spherical_kmeans(asked, k, seed=0).assignment for k in (None, round(default_k(len(rows)) ** 0.5))
    )
    fit = answer_fit(prompts, answers, asked, said, kinds, broad)
    match, _ = told_apart(fit.own, list(fit.decoys), rising(fit.own.shape[1]))
    orders = word_orders(answers)
    own, shuffled = features(orders, orders.told)
    order = np.full(len(rows), np.inf)
    order[orders.told] = told_apart(own, [shuffled], RISING)[0]
    return {"match": match, "order": np.minimum(order, 9), "the lower of both": np.minimum(match, order)}


def auc(rows: list[Row], folder: Path) -> dict[str, Any]:
    answers, kind = corrupt(rows, KINDS)
    start = time.perf_counter()
    found = scores(rows, answers, folder)
    return {
        "rows": len(rows),
        "of": dict(Counter(row["capability"] for row in rows)),
        "noisy": {of: int((kind == of).sum()) for of in KINDS},
        "seconds": round(time.perf_counter() - start, 1),
        "auroc": {
            name: {of: auroc(values, kind == of, kind == "") for of in KINDS}
            for name, values in found.items()
        },
    }


def dropped(path: Path, folder: Path, fdr: float) -> dict[str, Any]:
    """What the step drops of a messy set, by what was planted."""
    from datapruner.cleaning.own_text import OwnText
    from datapruner.cleaning.step import Remaining
    from datapruner.cleaning.steps.unfit_answer import UnfitAnswer
    from datapruner.samples import load_samples

    samples = load_samples(str(path))
    truth = [json.loads(line) for line in path.with_suffix(".truth.jsonl").open(encoding="utf-8")]
    planted = np.array([row["planted"] for row in truth])
    rows = np.flatnonzero(~np.isin(planted, (*BY_RULES, *COPIES)))
    own = OwnText(samples, False)
    signals = {
        f"{side}_embedding": vectors(list(own.texts(side, rows)), folder) for side in ("prompt", "response")
    }
    start = time.process_time()
    found = UnfitAnswer(fdr=fdr).clean(
        Remaining(samples, rows, np.zeros(len(samples), dtype=np.bool_), own, signals)
    )
    seconds = time.process_time() - start
    every = np.concatenate([np.empty(0, np.int64), *(vetoes.rows for vetoes in found)])
    good = np.isin(planted, GOOD)
    return {
        "rows": len(rows),
        "processor_seconds_besides_the_vectors": round(seconds, 1),
        "found": {vetoes.kind: dict(Counter(planted[vetoes.rows].tolist())) for vetoes in found},
        "recall": {
            kind: [int((planted[every] == kind).sum()), int((planted[rows] == kind).sum())]
            for kind in np.unique(planted[rows[~good[rows]]]).tolist()
        },
        "good": [int(good[every].sum()), int(good[rows].sum())],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", type=Path, nargs="*")
    parser.add_argument("--docstrings", type=int, default=400)
    parser.add_argument("--gym", type=int, default=30, help="rows of each reasoning-gym task")
    parser.add_argument("--fdr", type=float, default=0.1)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=RESULT)
    asked = parser.parse_args()
    result: dict[str, Any] = {
        "unseen": auc(unseen(asked.docstrings, asked.gym), asked.cache),
        "sets": {},
        "fdr": asked.fdr,
        "machine": machine(),
        "versions": versions("scikit-learn", "numpy", "reasoning-gym"),
    }
    for path in asked.sets:
        result["sets"][f"{path.parent.name}/{path.stem}"] = dropped(path, asked.cache, asked.fdr)
        write(asked.output, result)
    write(asked.output, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
