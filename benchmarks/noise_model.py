"""What a language model can tell of noise: everything that was tried, on a messy set and on sources named before.

    python benchmarks/noise_model.py FOLDER/messy.jsonl [--rows 600] [--cache FOLDER]

(a) losses with and without the prompt, (b) the loss of the prompt given the answer, (d) the answer under its own prompt
against three others of its cluster, (e) ranks put together, fitted on one half of the capabilities and judged on the
other, and losses as they are; (c), likeness among neighbours, is `noise_unfit.py`. Then what the step
`unfinished_answer` drops of the whole set. FOLDER is that of `messy.py`, with the truth beside the set.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from common import RESULTS, machine, versions, write
from noise import Row, unseen
from noise_unfit import BY_RULES, COPIES, GOOD, vectors
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import datapruner as dp

MODEL = "smollm2-135m-q4"
KINDS = ("broken: swapped", "broken: shuffled", "broken: number", "broken: cut off", "one word")
FIRST = (2, 4, 8, 16)
JOINED = ("t", "first 8", "ifd", "loss", "over entropy", "end", "number", "gain")
"""Scores whose ranks are put together."""
HALVES = (("math", "tools", "summarization"), ("code", "roleplay", "commonsense", "classification"))
NAMED, LONGEST, TWICE = 36, 900, 700
"""Rows of each named source, and the letters of a row there and where rows are read several times."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Keep(dp.Scorer):
    """Ranks nothing: it asks for signals and keeps them."""

    asked: tuple[str, ...] = ()
    name: ClassVar[str] = "keep"
    held: ClassVar[dict[str, Any]] = {}

    @property
    def requires(self) -> frozenset[str]:
        return frozenset(self.asked)

    def _score(self, signals: dp.Signals) -> dp.Ranking:
        self.held.update({name: signals.measured[name] for name in self.asked})
        return dp.Ranking(np.zeros(signals.num_rows))


def measured(rows: list[tuple[str, str]], asked: tuple[str, ...], folder: Path) -> dict[str, Any]:
    turns = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in rows]
    dp.score(
        [{"messages": of} for of in turns],
        scorers=Keep(asked),
        model=MODEL,
        dtype="bfloat16",
        max_length=1024,
        cache=folder,
        progress=False,
    )
    return {name: Keep.held[name] for name in asked}


def scores(rows: list[tuple[str, str]], folder: Path) -> dict[str, Floats]:
    """Every score of rows that are read once with and once without their prompts; the higher, the better a row."""
    asked = ("token_nll", "token_entropy", "number_surprise", "response_token_nll")
    found = measured(rows, asked, folder)
    offsets = found["token_nll"].offsets
    if (found["response_token_nll"].offsets != offsets).any():
        raise SystemExit("answers have other tokens without their prompts than with them")
    nll, entropy, alone = (
        np.asarray(found[name].values, dtype=np.float64) for name in (*asked[:2], asked[3])
    )
    lengths, gain = np.diff(offsets), alone - nll

    def mean(values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, offsets[:-1]) / lengths)

    def first(count: int) -> Floats:
        ends = np.minimum(offsets[:-1] + count, offsets[1:])
        return np.array([gain[a:b].mean() for a, b in zip(offsets[:-1], ends, strict=True)])

    # The turn ends with a token of its own and a line break; the one that tells is the one before the last.
    end = nll[np.maximum(offsets[1:] - 2, offsets[:-1])]
    return {
        "gain": mean(gain),
        "t": mean(gain) / np.sqrt(np.maximum(mean(gain**2) - mean(gain) ** 2, 1e-3) / lengths),
        "ifd": -mean(nll) / mean(alone),
        **{f"first {count}": first(count) for count in FIRST},
        "loss": -mean(nll),
        "over entropy": -mean(nll - entropy) * np.sqrt(lengths),
        "end": -end,
        "end over loss": mean(nll) - end,
        "number": -np.asarray(found["number_surprise"], dtype=np.float64),
    }


def auroc(values: Floats, noisy: NDArray[np.bool_], good: NDArray[np.bool_]) -> float | None:
    """The chance that a noisy row stands below a good one; None of fewer than four."""
    if noisy.sum() < 4:
        return None
    of = np.concatenate([noisy[noisy], ~good[good]])
    return round(float(roc_auc_score(of, -np.concatenate([values[noisy], values[good]]))), 3)


def joined(held: dict[str, Floats], kinds: NDArray[np.str_], capability: NDArray[np.str_]) -> dict[str, Any]:
    """(e): ranks put together by a logit that is fitted on half of the capabilities, and by the worst of them."""
    ranks = np.stack([np.argsort(np.argsort(held[name])) / len(kinds) for name in JOINED], axis=1)
    inputs, good = np.concatenate([np.log(ranks + 0.002), ranks], axis=1), np.isin(kinds, GOOD)
    out = {}
    for fit, judge in (HALVES, HALVES[::-1]):
        seen, judged = np.isin(capability, fit), np.isin(capability, judge)
        found = LogisticRegression(class_weight="balanced", max_iter=500).fit(inputs[seen], good[seen])
        for label, values in (("logit", found.decision_function(inputs)), ("worst", ranks.min(axis=1))):
            out[f"{label}, judged on {', '.join(judge)}"] = {
                kind: auroc(values, judged & (kinds == kind), judged & good) for kind in KINDS
            }
    return out


def on_messy(path: Path, most: int, folder: Path) -> dict[str, Any]:
    """All noise of the set that no rule finds, and some of its good rows."""
    rows, kinds, capability = read(path)
    rng = np.random.default_rng(0)
    noisy = np.flatnonzero(np.isin(kinds, KINDS))
    good = np.flatnonzero(np.isin(kinds, [of for of in GOOD if of not in COPIES]))
    some = np.sort(np.concatenate([noisy, rng.permutation(good)[:most]]))
    held = scores([rows[place] for place in some], folder)
    is_good = np.isin(kinds[some], GOOD)
    return {
        "rows": dict(Counter(kinds[some].tolist())),
        "auroc": {
            **{
                name: {kind: auroc(values, kinds[some] == kind, is_good) for kind in KINDS}
                for name, values in held.items()
            },
            **joined(held, kinds[some], capability[some]),
        },
    }


def read(path: Path) -> tuple[list[tuple[str, str]], NDArray[np.str_], NDArray[np.str_]]:
    """Prompts and answers of a set, what was planted, and capabilities."""
    turns = [json.loads(line)["messages"] for line in path.open(encoding="utf-8")]
    truth = [json.loads(line) for line in path.with_suffix(".truth.jsonl").open(encoding="utf-8")]
    rows = [(of[0]["content"], of[-1]["content"]) for of in turns]
    return rows, *(np.array([of[name] for of in truth]) for name in ("planted", "capability"))


def cut(text: str, rng: np.random.Generator) -> str:
    words = re.findall(r"\S+\s*", text)
    return "".join(words[: rng.integers(max(len(words) // 4, 1), max(len(words) * 3 // 4, 2))]).rstrip()


def shuffled(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    mixed = words
    while mixed == words:
        mixed = rng.permutation(words).tolist()
    return " ".join(mixed)


def is_short(prompt: str, answer: str, longest: int) -> bool:
    return len(prompt) + len(answer) < longest and len(set(answer.split())) >= 5


def on_named(folder: Path) -> dict[str, Any]:
    """Docstrings and reasoning-gym tasks, each whole and with each noise."""
    rng = np.random.default_rng(3)
    rows = [row for row in unseen(400, 30) if is_short(row["prompt"], row["response"], LONGEST)]
    picked: list[Row] = []
    for of in (True, False):
        kind = [row for row in rows if (row["capability"] == "docstring") == of]
        picked += [kind[place] for place in rng.permutation(len(kind))[:NAMED]]
    others = [(place + int(rng.integers(1, len(picked)))) % len(picked) for place in range(len(picked))]
    good = [(row["prompt"], row["response"]) for row in picked]
    made = {
        "swapped": [(row[0], picked[other]["response"]) for row, other in zip(good, others, strict=True)],
        "shuffled": [(prompt, shuffled(answer, rng)) for prompt, answer in good],
        "cut off": [(prompt, cut(answer, rng)) for prompt, answer in good],
    }
    held = scores([*good, *(row for rows in made.values() for row in rows)], folder)
    worst = np.min(
        [np.argsort(np.argsort(held[name])) for name in ("t", "over entropy", "end over loss")], axis=0
    )
    kinds = np.repeat(["", *made], len(good))
    return {
        "rows": len(good),
        "auroc": {
            name: {kind: auroc(values, kinds == kind, kinds == "") for kind in made}
            for name, values in {**held, "worst of t, over entropy, end over loss": worst}.items()
        },
    }


def read_twice(path: Path, folder: Path) -> dict[str, Any]:
    """(b) and (d), and beside them (a), on short rows: each costs passes of its own."""
    from datapruner.geometry.clustering import spherical_kmeans

    rng = np.random.default_rng(3)
    rows, kinds, _ = read(path)
    cluster = spherical_kmeans(vectors([prompt for prompt, _ in rows], folder), None, seed=0).assignment
    short = np.array([is_short(*row, TWICE) for row in rows])
    picked = np.concatenate(
        [
            rng.permutation(np.flatnonzero(short & (kinds == kind)))[:most]
            for kind, most in (("broken: swapped", 30), ("", 45))
        ]
    )
    own = scores([rows[place] for place in picked], folder)
    others = []
    for place in picked:
        like = np.flatnonzero(short & (cluster == cluster[place]) & (np.arange(len(rows)) != place))
        like = like if len(like) >= 3 else np.flatnonzero(short & (np.arange(len(rows)) != place))
        others += [(rows[other][0], rows[place][1]) for other in rng.choice(like, 3, replace=False)]
    found = measured(others, ("log_ppl",), folder)["log_ppl"].reshape(len(picked), 3)
    back = measured([rows[place][::-1] for place in picked], ("log_ppl", "response_log_ppl"), folder)
    gain = found + own["loss"][:, None]
    held = {
        "b: loss of the prompt given the answer": -back["log_ppl"],
        "b: how much the answer helps": back["response_log_ppl"] - back["log_ppl"],
        "b: the same as a ratio": -back["log_ppl"] / back["response_log_ppl"],
        "d: mean gain over three other prompts": gain.mean(axis=1),
        "d: the same in standard errors": gain.mean(axis=1) / (gain.std(axis=1, ddof=1) / np.sqrt(3) + 1e-3),
        **{f"a: {name}": own[name] for name in ("t", "ifd", "first 8")},
    }
    noisy = kinds[picked] != ""
    return {
        "rows": [int(noisy.sum()), int((~noisy).sum())],
        "auroc": {name: auroc(np.asarray(values), noisy, ~noisy) for name, values in held.items()},
    }


def unfinished(path: Path, folder: Path, fdr: float) -> dict[str, Any]:
    """What the step drops of all rows that are left when rules and copies are out, by what was planted."""
    _, kinds, capability = read(path)
    left = np.flatnonzero(~np.isin(kinds, (*BY_RULES, *COPIES)))
    with tempfile.TemporaryDirectory() as made:
        part = Path(made) / "rows.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        part.write_text("".join(f"{lines[place]}\n" for place in left), encoding="utf-8")
        selection = dp.prune(
            str(part),
            keep=1.0,
            scorer="random",
            model=MODEL,
            dtype="bfloat16",
            max_length=1024,
            cleaning=[{"unfinished_answer": {"fdr": fdr}}],
            cache=folder,
            progress=False,
        )
    out = left[~selection.kept]
    good = np.isin(kinds, GOOD)
    return {
        "rows": len(left),
        "fdr": fdr,
        "dropped": dict(Counter(kinds[out].tolist())),
        "there": {kind: int((kinds[left] == kind).sum()) for kind in KINDS},
        "good": [int(good[out].sum()), int(good[left].sum())],
        "good_by_capability": dict(Counter(capability[out][good[out]].tolist())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("messy", type=Path)
    parser.add_argument("--rows", type=int, default=600, help="good rows of the messy set")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--fdr", type=float, default=0.1)
    asked = parser.parse_args()
    folder = asked.cache or asked.messy.parent / "cache"
    out: dict[str, Any] = {"machine": machine(), "versions": versions("torch", "transformers", "datapruner")}
    for name, part in (
        ("named", lambda: on_named(folder)),
        ("twice", lambda: read_twice(asked.messy, folder)),
        ("messy", lambda: on_messy(asked.messy, asked.rows, folder)),
        ("unfinished", lambda: unfinished(asked.messy, folder, asked.fdr)),
    ):
        out[name] = part()
        print(json.dumps({name: out[name]}, indent=1), flush=True)
    write(RESULTS / "noise_model.json", out)


if __name__ == "__main__":
    main()
