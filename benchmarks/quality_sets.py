"""The sets of the quality benchmark: samples of the mixture and of gsm8k, and planted noise and copies."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import MIXTURE
from noise import corrupt

SEED = 0
SETS = ("noisy", "mixture", "gsm8k")
NOISE, KINDS = 0.3, ("swapped", "shuffled")
COPIES = 0.1

Row = dict[str, Any]
"""capability, prompt, response; the kind of planted noise ('' = clean); the number of the clean row it comes from."""


def read(name: str, split: str, total: int | None, longest: int | None) -> list[Row]:
    """A seeded sample of the rows of at most so many characters, as many of each capability, shuffled."""
    by: dict[str, list[Row]] = defaultdict(list)
    for line in MIXTURE.with_name(f"{name}.{split}.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        if name == "gsm8k":
            texts, capability = [row["question"], row["answer"]], "math"
        else:
            texts, capability = [turn["content"] for turn in row["messages"]], row["capability"]
        if longest is None or sum(map(len, texts)) <= longest:
            by[capability].append({"capability": capability, "prompt": texts[0], "response": texts[1]})
    rng = np.random.default_rng(SEED)
    each = None if total is None else total // len(by)
    chosen = [rows[place] for _, rows in sorted(by.items()) for place in rng.permutation(len(rows))[:each]]
    order = rng.permutation(len(chosen))
    return [{**chosen[place], "kind": "", "origin": number} for number, place in enumerate(order)]


def planted(clean: list[Row]) -> list[Row]:
    """The same rows with noise in some responses, and copies of some of all these rows, shuffled."""
    from duplicates import change_one_word

    responses, kinds = corrupt(clean, KINDS, NOISE)
    rows = [
        {**row, "response": response, "kind": str(kind)}
        for row, response, kind in zip(clean, responses, kinds, strict=True)
    ]
    rng = np.random.default_rng(SEED)
    words = sorted({word for row in clean for word in row["prompt"].split() if word.isalpha()})
    for number, place in enumerate(rng.choice(len(rows), round(COPIES * len(rows)), replace=False)):
        copy = dict(rows[place])
        if number % 2:
            copy["prompt"] = change_one_word(copy["prompt"], words, rng)
        rows.append(copy)
    return [rows[place] for place in rng.permutation(len(rows))]


def make_set(arguments: Any, name: str) -> list[Row]:
    """The rows of a set; they, the clean ones and the held-out ones are written into the folder."""
    stem = "gsm8k" if name == "gsm8k" else "mixture"
    clean = read(stem, "train", arguments.rows, arguments.longest)
    rows = planted(clean) if name == "noisy" else clean
    write_rows(arguments.folder / f"{name}.jsonl", rows)
    write_rows(arguments.folder / f"{name}.clean.jsonl", clean)
    write_rows(
        arguments.folder / f"{name}.test.jsonl", read(stem, "test", arguments.held_out, arguments.longest)
    )
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """What a scorer and the model may see."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            messages = [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["response"]},
            ]
            file.write(json.dumps({"capability": row["capability"], "messages": messages}) + "\n")
