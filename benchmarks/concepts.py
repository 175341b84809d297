"""Are the extracted concepts what a row is about? 200 rows judged one by one; time and memory beside it.

`concepts_labels.json` has the judgements, one a concept extracted for 200 seeded rows of the mixture: 1 where it
names a topic, an entity, a task or a technical term of the row that would do as a keyword of it, else 0. There was one
annotator, a language model, which had also built the extractor and read long rows shortened; no second one, so that
agreement is not known. The word lists were tuned on other rows of the same mixture and on its most frequent concepts.
Strict cases: names that a programmer made up (`file_path`), first names in word problems, distractors among options,
parts of a longer name and sample data are 0; names from a library (`fstream`) and commands (`mkdir`) are 1.

Precision is the share of ones among the concepts; the interval is the 2.5th to 97.5th percentile over 2,000 resamples
of the rows. A concept that the labels do not know (the extractor has changed since) is counted as unlabelled.

    python benchmarks/concepts.py
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import MIXTURE, RESULTS, machine, timed, versions, write
from xxhash import xxh3_64_hexdigest

from datapruner.signals.texts.concepts import Concepts, extract_concepts
from datapruner.signals.texts.stop_words import FUNCTION_WORDS

LABELS = Path(__file__).resolve().parent / "concepts_labels.json"
SEED = 0
JUDGED = 200
RESAMPLES = 2000
Judged = list[tuple[int, str, str, str, str, int]]  # row, capability, words, place, rows that hold it, label


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--synthetic", type=int, nargs="*", default=[52_000], help="numbers of synthetic rows"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "concepts.json")
    options = parser.parse_args()

    with MIXTURE.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    texts = ["\n".join(message["content"] for message in row["messages"]) for row in rows]
    concepts, cost = measured(lambda: extract_concepts(texts))
    judged, unlabelled = match(concepts, [row["capability"] for row in rows])
    result = {
        "question": "share of concepts that were judged to do as a keyword of the row",
        "rows_judged": JUDGED,
        "rows_without_a_concept": sum(not len(concepts.ids[row]) for row in chosen(len(rows))),
        "concepts_unlabelled": unlabelled,
        "precision": precision(judged),
        "by_capability": parts(judged, 1),
        "by_words": parts(judged, 2),
        "by_place_in_the_row": parts(judged, 3),
        "by_rows_that_hold_it": parts(judged, 4),
        "mixture": {"rows": len(rows), **described(concepts), **cost},
        "synthetic": [synthetic(n) for n in options.synthetic],
        **machine(),
        "versions": versions("numpy", "xxhash"),
    }
    write(options.out, result)
    show(result)


def chosen(n: int) -> list[int]:
    return sorted(np.random.default_rng(SEED).choice(n, JUDGED, replace=False).tolist())


def match(concepts: Concepts, capabilities: list[str]) -> tuple[Judged, int]:
    """Put the judgements beside what is extracted now."""
    labels = json.loads(LABELS.read_text("utf-8"))["rows"]
    judged, unlabelled = [], 0
    for row in chosen(len(capabilities)):
        known = dict(labels[str(row)])
        for place, number in enumerate(concepts.ids[row].tolist(), 1):
            name = str(concepts.names[number])
            label = known.get(xxh3_64_hexdigest(name.encode()))
            if label is None:
                unlabelled += 1
            else:
                held = int(concepts.rows[number])
                span = "2 to 4" if held < 5 else "5 to 19" if held < 20 else "20 or more"
                judged.append((row, capabilities[row], str(len(name.split())), str(place), span, label))
    return judged, unlabelled


def precision(judged: Judged) -> dict[str, Any]:
    """Share of ones, with an interval over resampled rows: concepts of one row are not independent."""
    rows = sorted({entry[0] for entry in judged})
    place = {row: number for number, row in enumerate(rows)}
    ones, count = np.zeros(len(rows)), np.zeros(len(rows))
    for row, *_, label in judged:
        ones[place[row]] += label
        count[place[row]] += 1
    draws = np.random.default_rng(SEED).integers(0, len(rows), (RESAMPLES, len(rows)))
    low, high = np.percentile(ones[draws].sum(axis=1) / count[draws].sum(axis=1), [2.5, 97.5])
    return {
        "concepts": len(judged),
        "precision": round(float(ones.sum() / count.sum()), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
    }


def parts(judged: Judged, field: int) -> dict[str, Any]:
    """Precision for each value of a field."""
    return {
        str(value): precision([entry for entry in judged if entry[field] == value])
        for value in sorted({str(entry[field]) for entry in judged})
    }


def measured(run: Callable[[], Concepts]) -> tuple[Concepts, dict[str, Any]]:
    """Run once; processor seconds say more than the clock's where the cores are shared."""
    start = time.process_time()
    seconds, out, memory = timed(run)
    return out, {
        "seconds": round(seconds, 2),
        "processor_seconds": round(time.process_time() - start, 2),
        "peak_growth_mib": round(memory.grown / 2**20, 1),
    }


def described(concepts: Concepts) -> dict[str, Any]:
    return {
        "concepts": len(concepts.names),
        "concepts_a_row": round(float(concepts.ids.lengths.mean()), 2),
        "rows_without": int((concepts.ids.lengths == 0).sum()),
    }


def synthetic(n: int) -> dict[str, Any]:
    """Rows of 100 words, a third of them stop words, the others drawn from 200,000 by Zipf's law."""
    rng = np.random.default_rng(SEED)
    letters = rng.choice(np.array(list("bcdfghjklmnprstvz")), (200_000, 7))
    words = np.array(["".join(word) for word in letters.tolist()])
    stop = np.array(FUNCTION_WORDS.split())
    odds = 1 / np.arange(1, len(words) + 1)
    edges = np.cumsum(odds) / odds.sum()

    def texts() -> Iterator[str]:
        for _ in range(n):
            drawn = words[np.minimum(np.searchsorted(edges, rng.random(100)), len(words) - 1)]
            yield " ".join(np.where(rng.random(100) < 1 / 3, rng.choice(stop, 100), drawn).tolist())

    made = list(texts())
    concepts, cost = measured(lambda: extract_concepts(made))
    return {"rows": n, "words_a_row": 100, **described(concepts), **cost}


def show(result: dict[str, Any]) -> None:
    print(f"{'':>26}  concepts  precision  interval")
    for kind in ("by_capability", "by_words", "by_place_in_the_row", "by_rows_that_hold_it", "all"):
        table = {"": result["precision"]} if kind == "all" else result[kind]
        for value, part in table.items():
            low, high = part["interval"]
            title = f"{kind.split('_in_')[0].split('_that_')[0].removeprefix('by_')} {value}"
            print(f"{title:>26}  {part['concepts']:8}  {part['precision']:9.3f}  {low:.3f} to {high:.3f}")
    for cost in (result["mixture"], *result["synthetic"]):
        print(
            f"{cost['rows']:,} rows: {cost['seconds']} s, {cost['processor_seconds']} s of processor, "
            f"{cost['peak_growth_mib']} MiB, {cost['concepts']:,} concepts"
        )


if __name__ == "__main__":
    main()
