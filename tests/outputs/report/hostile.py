"""A selection in which everything that may hold text is hostile: rows, columns, groups, reasons, names, parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import datapruner as dp
from datapruner.scorers import Ranking, Scorer
from datapruner.selection.selector import Choice, Selector
from datapruner.selection.selectors.topk import TopK

SCRIPT = "</script><script>window.pwned = 1; alert(1)</script>"
IMAGE = "<img src=x onerror=window.pwned=1>"
LONE = "\ud800"
HOSTILE = [
    "</script><script>window.pwned = 1</script>",
    "<!--<script>window.pwned = 1//",
    "<img src=x onerror=window.pwned=1>",
    '" onmouseover=window.pwned=1 x="',
    "javascript:window.pwned=1",
    "\u202eright to left\u202c \u2066isolate",
    "\x1b[31mred\x1b[0m\x07\x00",
    '=HYPERLINK("http://evil.example")',
    "{{ 7 * 7 }}{% raw %}",
    "]]>&lt;b&gt;\u2028\u2029",
]


@dataclass(frozen=True)
class Evil(Scorer):
    __doc__ = f"{SCRIPT} {IMAGE}"

    note: str = SCRIPT + LONE
    name: ClassVar[str] = f"evil {IMAGE}\x1b[31m"
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = IMAGE + "\u202e"
    provenance: ClassVar[str] = SCRIPT

    def _score(self, signals: dp.Signals) -> Ranking:
        values = np.arange(signals.num_rows, dtype=np.float64)
        return Ranking(
            values,
            groups=np.arange(signals.num_rows) % 3,
            columns={SCRIPT: values, IMAGE: values.astype(np.str_)},
        )


@dataclass(frozen=True)
class EvilSelector(Selector):
    name: ClassVar[str] = f"select {IMAGE}"

    def _select(self, ranking, portion, rng) -> Choice:
        choice = TopK()._select(ranking, portion, rng)
        texts = [text.replace("among", f"{SCRIPT}{LONE}\x1b[2J") for text in choice.texts]
        return Choice(choice.kept, choice.codes, texts)


def hostile_selections(folder, several: bool = True) -> list[dp.Selection]:
    """Give two selections of hostile rows, or one."""
    texts = [*HOSTILE, "x" * 1_100_000, *(f"harmless {number}" for number in range(30))]
    rows = [
        {
            "question": text,
            "answer": HOSTILE[number % len(HOSTILE)],
            f"col {IMAGE}\u202e": [SCRIPT, IMAGE][number % 2],
        }
        for number, text in enumerate(texts)
    ]
    scores = dp.score(rows, scorers=[Evil(), "random"], progress=False, cache=folder / "cache")
    first = scores.select(Evil.name, keep=10, selector=EvilSelector(), per_group=f"col {IMAGE}\u202e")
    return [first, scores.select("random", keep=10)] if several else [first]
