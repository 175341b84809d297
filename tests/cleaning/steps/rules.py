"""What the rules' tests share: rows through one step, and its hits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.stage import make_step
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.samples import load_samples


def left(rows: Sequence[dict[str, Any]], protected: Sequence[int] = ()) -> Remaining:
    samples = load_samples([dict(row) for row in rows])
    mask = np.zeros(len(rows), dtype=bool)
    mask[list(protected)] = True
    return Remaining(samples, np.arange(len(rows)), mask, OwnText(samples, False))


def hits(step: str | CleaningStep, rows: Sequence[dict[str, Any]], **parameters: Any) -> dict[int, str]:
    """Row -> the code that it is dropped for."""
    held = make_step(step, parameters) if isinstance(step, str) else step
    found = held.clean(left(rows)) or []
    return {row: vetoes.kind for vetoes in found for row in vetoes.rows.tolist()}


def asked(answer: str, prompt: str = "What is to be said of the matter at hand?") -> dict[str, str]:
    return {"prompt": prompt, "response": answer}


def chat(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def seconds(step: str, rows: Sequence[dict[str, Any]]) -> float:
    start = time.process_time()
    hits(step, rows)
    return time.process_time() - start


HOSTILE = (
    "(" * 50_000,
    "a@" * 30_000,
    "[your " * 10_000,
    "1-" * 30_000,
    "```" * 20_000,
    "sk-" + "a-" * 30_000,
    "# " + "/" * 50_000,
    "'" * 50_001,
    "\\" * 50_000,
    "as an ai " * 9000,
    "\ufffd\u202e\0" * 9000,
    "Ã©" * 30_000,
    " \n" * 30_000 + "x",
    "1.2.3." * 10_000,
    "eyJ" + "a" * 40_000,
    "www." + "x" * 50_000,
    "A " * 30_000,
    "word " * 20_000,
)
"""Texts on which a pattern that goes back would take minutes."""
