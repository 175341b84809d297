"""Which scorer finds planted noise? Swapped responses, shuffled words, wrong final numbers.

One fused pass scores 1,400 rows of the mixture, of which 20 % were corrupted, a third each; a second set is made of
sources that were not looked at while `response_noise` was designed. For every scorer and joined scorers the table
gives the AUROC of "drop the noisy", and what each quadrant of Q-Tuning's plane holds.

    python benchmarks/noise.py
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
from common import MIXTURE, RESULTS, machine, versions, write
from numpy.typing import NDArray
from report_docs import noise

SEED = 0
SHARE = 0.2
LEAST_WORDS = 5
BOOTSTRAPS = 1000
RESULT = RESULTS / "noise.json"
FINAL_NUMBER = re.compile(r"#### (-?[\d,.]+)\s*$")
KINDS = ("swapped", "shuffled", "number")

Row = dict[str, str]

LOW_IFD = {"name": "ifd", "parameters": {"keep": "low"}}
PAIR = ["perplexity", LOW_IFD]
SCORERS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "length": ("length", {}),
    "perplexity": ("perplexity", {}),
    "mid_perplexity": ("mid_perplexity", {}),
    "el2n, low kept": ("el2n", {"keep": "low"}),
    "grad_norm, low kept": ("grad_norm", {"keep": "low"}),
    "donod, shrink": ("donod", {"don": "shrink"}),
    "donod, shrink, length corrected": ("donod", {"don": "shrink", "length_correction": True}),
    "donod, grow": ("donod", {"don": "grow"}),
    "donod, grow, length corrected": ("donod", {"don": "grow", "length_correction": True}),
    "qtuning (|P - E|)": ("qtuning", {}),
    "ifd, as published": ("ifd", {}),
    "ifd, low kept": ("ifd", {"keep": "low"}),
    "superfiltering, low kept": ("ifd", {"variant": "superfiltering", "keep": "low"}),
    "perplexity + ifd, mean rank": ("combined", {"scorers": PAIR, "by": "mean_rank"}),
    "perplexity + ifd, topsis": ("combined", {"scorers": PAIR, "by": "topsis"}),
    "perplexity + ifd, worst rank": ("combined", {"scorers": PAIR}),
    "same, inside clusters": ("combined", {"scorers": PAIR, "within": "cluster"}),
    "same, inside capabilities": ("combined", {"scorers": PAIR, "within": "capability"}),
    "response_noise, numbers off": ("response_noise", {"numbers": False}),
    "response_noise": ("response_noise", {}),
}


def mixture(path: Path, count: int) -> list[Row]:
    """A seeded sample of the single-turn rows whose response has at least five words."""
    rows = []
    for line in path.open(encoding="utf-8"):
        row = json.loads(line)
        turns = row["messages"]
        if len(turns) == 2 and len(turns[1]["content"].split()) >= LEAST_WORDS:
            rows.append(
                {
                    "capability": row["capability"],
                    "prompt": turns[0]["content"],
                    "response": turns[1]["content"],
                }
            )
    return [rows[place] for place in np.sort(np.random.default_rng(SEED).permutation(len(rows))[:count])]


def unseen(docstrings: int, each: int) -> list[Row]:
    """Docstrings of the standard library's functions, and reasoning-gym tasks with answers in words."""
    rows: list[Row] = []
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted([*root.glob("*.py"), *root.glob("*/*.py")]):
        if not {"test", "site-packages", "dist-packages", "idlelib", "lib2to3"} & set(path.parts):
            rows += _documented(path)
    distinct = list({row["response"]: row for row in rows}.values())
    rows = [distinct[place] for place in np.random.default_rng(SEED).permutation(len(distinct))[:docstrings]]
    return rows + _gym(each)


def _documented(path: Path) -> list[Row]:
    rows = []
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return []
    for node in ast.walk(tree):
        said = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if said and LEAST_WORDS <= len(said.split()) <= 150:
            node.body = node.body[1:] or [ast.Pass()]
            code = ast.unparse(node)
            if len(code) < 1500:
                prompt = f"Write the docstring of this Python function:\n\n{code}"
                rows.append({"capability": "docstring", "prompt": prompt, "response": said})
    return rows


def _gym(each: int) -> list[Row]:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    rows = []
    for name in sorted(set(DATASETS) - {"composite"}):
        of = []
        for entry in reasoning_gym.create_dataset(name, size=2 * each, seed=SEED):
            words = str(entry["answer"]).split()
            real = sum(word.strip(".,;:!?\"'").isalpha() and len(word) > 2 for word in words)
            if LEAST_WORDS <= len(words) <= 120 and len(entry["question"]) < 2500 and real >= len(words) / 2:
                of.append({"capability": name, "prompt": entry["question"], "response": str(entry["answer"])})
        if len(of) >= each:
            rows += of[:each]
    return rows


def corrupt(
    rows: list[Row], kinds: tuple[str, ...], share: float = SHARE
) -> tuple[list[str], NDArray[np.str_]]:
    """Plant noise; responses as they are now, and the kind of each ('' = clean)."""
    rng = np.random.default_rng(SEED)
    each = round(len(rows) * share / len(kinds))
    kind = np.full(len(rows), "", dtype="<U8")
    out = [row["response"] for row in rows]
    if "number" in kinds:
        ends = [place for place, text in enumerate(out) if FINAL_NUMBER.search(text)]
        for place in rng.choice(ends, min(each, len(ends) // 2), replace=False).tolist():
            match = FINAL_NUMBER.search(out[place])
            assert match
            right = re.sub(r"\D", "", match[1])
            wrong = right
            while wrong == right:
                wrong = "".join(str(rng.integers(1 if at == 0 else 0, 10)) for at in range(len(right)))
            out[place], kind[place] = out[place][: match.start(1)] + wrong, "number"
    free = rng.permutation(np.flatnonzero(kind == "")).tolist()
    for place in free[:each]:
        other = place
        while rows[other]["response"] == rows[place]["response"]:
            other = int(rng.integers(len(rows)))
        out[place], kind[place] = rows[other]["response"], "swapped"
    several = [place for place in free[each:] if len(set(rows[place]["response"].split())) > 1]
    for place in several[:each]:
        words = rows[place]["response"].split()
        mixed = words
        while mixed == words:
            mixed = rng.permutation(words).tolist()
        out[place], kind[place] = " ".join(mixed), "shuffled"
    return out, kind


def auroc(values: NDArray[np.float64], noisy: NDArray[np.bool_], clean: NDArray[np.bool_]) -> list[float]:
    """Chance that a noisy row stands below a clean one, with a 95 % bootstrap interval over rows."""
    bad, good = values[noisy], np.sort(values[clean])
    below = np.searchsorted(good, bad, "left"), np.searchsorted(good, bad, "right")
    point = 1 - (below[0] + below[1]).mean() / 2 / len(good)
    rng = np.random.default_rng(SEED)
    draws = []
    for _ in range(BOOTSTRAPS):
        some = np.sort(good[rng.integers(len(good), size=len(good))])
        of = bad[rng.integers(len(bad), size=len(bad))]
        ranks = np.searchsorted(some, of, "left") + np.searchsorted(some, of, "right")
        draws.append(1 - ranks.mean() / 2 / len(good))
    low, high = np.quantile(draws, [0.025, 0.975])
    return [round(float(number), 3) for number in (point, low, high)]


def run(rows: list[Row], kinds: tuple[str, ...], model: str, folder: Path) -> dict[str, Any]:
    import datapruner as dp
    from datapruner.scorers import make_scorer
    from datapruner.signals import COLUMN, Signals

    responses, kind = corrupt(rows, kinds)
    data = [
        {"capability": row["capability"], "prompt": row["prompt"], "completion": response}
        for row, response in zip(rows, responses, strict=True)
    ]
    start = time.perf_counter()
    held: dict[str, Signals] = {}

    class Keep(dp.Scorer):
        """Hands the signals out: the scorers of the table then need no further pass."""

        name = "keep"
        needs = frozenset().union(*(make_scorer(name, given).requires for name, given in SCORERS.values()))

        def _score(self, signals: Signals) -> dp.Ranking:
            held["signals"] = signals
            return dp.Ranking(np.zeros(signals.num_rows))

    dp.score(data, scorers=Keep(), model=model, cache=folder, progress=True)
    seconds = time.perf_counter() - start
    signals = held["signals"]
    assert COLUMN + "capability" in signals.measured
    clean = kind == ""
    table = {}
    for label, (name, given) in SCORERS.items():
        values = make_scorer(name, given).score(signals).values
        table[label] = {of: auroc(values, kind == of, clean) for of in kinds}
    quadrant = make_scorer("qtuning").score(signals).columns["quadrant"]
    inside = {
        f"Q{number}": {of or "clean": int(((quadrant == number) & (kind == of)).sum()) for of in ("", *kinds)}
        for number in (1, 2, 3, 4)
    }
    names, counts = np.unique([row["capability"] for row in rows], return_counts=True)
    return {
        "rows": len(rows),
        "of": dict(zip(names.tolist(), counts.tolist(), strict=True)),
        "noisy": {of: int((kind == of).sum()) for of in kinds},
        "seconds": round(seconds, 1),
        "auroc": table,
        "quadrants_at_the_medians": inside,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1400)
    parser.add_argument("--docstrings", type=int, default=400)
    parser.add_argument("--gym", type=int, default=30, help="rows of each reasoning-gym task")
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.cache or Path(scratch)
        result = {
            "mixture": run(mixture(MIXTURE, arguments.rows), KINDS, arguments.model, folder),
            "unseen": run(unseen(arguments.docstrings, arguments.gym), KINDS[:2], arguments.model, folder),
            "model": arguments.model,
            "seed": SEED,
            "machine": machine(),
            "versions": versions("torch", "transformers", "numpy", "reasoning-gym"),
        }
    write(arguments.output, result)
    print("\n\n".join(noise(result[where]) for where in ("mixture", "unseen")))


if __name__ == "__main__":
    main()
