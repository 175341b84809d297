"""Sets as people have them, with the truth beside them: a messy one, a clean balanced one, one capability alone.

The messy set holds its capabilities in Zipf shares (the largest 40 %, the smallest 1 %), copies of four
kinds, broken answers of eight kinds, leaked test rows, and rows without an answer. What was planted in a row is in
`NAME.truth.jsonl`, for the judge; `NAME.jsonl` holds what a scorer may see. Held-out rows are clean, equally many of
each capability, and share no 8-gram of an answer with any of the sets; the test set whose rows leak is another one.

    python benchmarks/messy.py FOLDER [--rows 5600] [--seed 0] [--source gym]

Rows come from `../shared/data/sft`, or are made by reasoning-gym where that is not there.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import MIXTURE

LARGEST, SMALLEST = 0.40, 0.01
"""Shares of the largest and the smallest capability."""
COPIES, BROKEN, LEAKED, EMPTY = 0.10, 0.12, 0.02, 0.03
COPY_KINDS = ("copy: exact", "copy: one word", "copy: one sentence", "copy: another template")
BROKEN_KINDS = (
    "broken: swapped",
    "broken: shuffled",
    "broken: number",
    "broken: cut off",
    "broken: repeated",
    "broken: echo",
    "broken: refusal",
    "broken: mojibake",
)
NGRAM = 8
LONGEST = 6000
"""Characters of a row: none reaches the length at which a model of 2,048 tokens would cut it."""
FILES = {
    "math": "gsm8k",
    "code": "codegen",
    "roleplay": "roleplay",
    "tools": "toolformer",
    "commonsense": "commonsense",
    "classification": "classification",
    "summarization": "summarization",
}
GYM = {
    "arithmetic": ("chain_sum", "basic_arithmetic", "products"),
    "words": ("word_sorting", "letter_counting", "spell_backward"),
    "logic": ("knights_knaves", "syllogism", "propositional_logic"),
    "algebra": ("simple_equations", "fraction_simplification"),
    "calendar": ("calendar_arithmetic", "time_intervals"),
    "family": ("family_relationships",),
    "numbers": ("number_sorting", "prime_factorization", "lcm"),
}
REFUSALS = (
    "I'm sorry, but as an AI language model I cannot help with that.",
    "As an AI, I do not have access to this information. Please consult a professional.",
    "I'm sorry, I can't assist with that request.",
    "Unfortunately, I am only a language model and am unable to complete this task.",
)
ASKED = (
    "{}",
    "Please answer the following.\n\n{}",
    "### Instruction:\n{}\n\n### Response:",
    "Here is a task for you: {}\nThink carefully before you reply.",
)
"""Templates of the copies that are framed in another way."""
NUMBER = re.compile(r"\d[\d,.]*(?=\D*$)")
WORD = re.compile(r"\w+", re.UNICODE)


@dataclass(frozen=True)
class Row:
    """A prompt and its answer; ``planted`` says what was done to it ('' = clean), ``origin`` to which row."""

    capability: str
    prompt: str
    response: str
    planted: str = ""
    origin: int = -1


@dataclass(frozen=True)
class Sets:
    """The sets of one seed; ``test`` is what may leak, ``held_out`` what a trained model is judged on."""

    messy: list[Row]
    clean: list[Row]
    single: list[Row]
    test: list[Row]
    held_out: list[Row]


def zipf_shares(count: int, largest: float = LARGEST, smallest: float = SMALLEST) -> np.ndarray[Any, Any]:
    """Shares a * rank^-s - b that sum to 1, with the first and the last as asked: Zipf's curve, moved down.

    Zipf's own has one free number: with 40 % first it would give the last of seven 5 %.
    """
    from scipy.optimize import brentq

    ranks = np.arange(1, count + 1, dtype=np.float64)

    def shares(s: float) -> np.ndarray[Any, Any]:
        curve = ranks**-s
        return np.asarray(smallest + (largest - smallest) * (curve - curve[-1]) / (1 - curve[-1]))

    return shares(float(brentq(lambda s: shares(s).sum() - 1, 1e-6, 50)))


def parts_of(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers of these shares that sum to the total: the largest remainders are rounded up."""
    exact = np.asarray(shares, dtype=np.float64) / np.sum(shares) * total
    whole = np.floor(exact).astype(int)
    for place in np.argsort(whole - exact, kind="stable")[: total - int(whole.sum())]:
        whole[place] += 1
    return [int(number) for number in whole]


def equal_parts(total: int, there: dict[str, int]) -> dict[str, int]:
    """Equal numbers of each, as far as there are any; the others share what one has not."""
    out: dict[str, int] = {}
    left = dict(sorted(there.items(), key=lambda item: item[1]))
    if sum(there.values()) < total:
        raise SystemExit(f"{total} rows are asked for, and there are {sum(there.values())}")
    while left:
        name = next(iter(left))
        out[name] = min(left.pop(name), (total - sum(out.values())) // (len(left) + 1))
    return dict(sorted(out.items()))


def read_shared(split: str) -> dict[str, list[Row]]:
    """The rows of every capability's file, without repeated prompts and without rows that are too long."""
    found: dict[str, list[Row]] = {}
    for capability, stem in FILES.items():
        rows: dict[str, Row] = {}
        for line in MIXTURE.with_name(f"{stem}.{split}.jsonl").open(encoding="utf-8"):
            row = json.loads(line)
            prompt = row.get("question") or row.get("prompt") or row["instruction"]
            if row.get("input"):
                prompt += f"\n\n{row['input']}"
            answer = row.get("answer") or row.get("completion") or row.get("response") or ""
            if answer.strip() and len(prompt) + len(answer) <= LONGEST:
                rows.setdefault(prompt, Row(capability, prompt, answer))
        found[capability] = list(rows.values())
    return found


def make_gym(seed: int, each: int) -> dict[str, list[Row]]:
    """Labelled questions with answers in a sentence, of seven capabilities."""
    import reasoning_gym

    found: dict[str, list[Row]] = {}
    for capability, tasks in GYM.items():
        rows: dict[str, Row] = {}
        for task in tasks:
            for entry in reasoning_gym.create_dataset(task, size=-(-each // len(tasks)), seed=seed):
                prompt, answer = str(entry["question"]), str(entry["answer"])
                if answer.strip() and len(prompt) + len(answer) <= LONGEST:
                    rows.setdefault(prompt, Row(capability, prompt, f"The answer is {answer}."))
        found[capability] = list(rows.values())
    return found


def grams(text: str) -> set[tuple[str, ...]]:
    """All runs of eight words, in lower case; a shorter text has none."""
    words = WORD.findall(text.lower())
    return {tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)}


def apart(held_out: list[Row], pool: Iterator[Row]) -> list[Row]:
    """The held-out rows of which no 8-gram of the answer, and not the prompt, is in the pool."""
    seen: set[tuple[str, ...]] = set()
    asked: set[str] = set()
    for row in pool:
        seen |= grams(row.response)
        asked.add(row.prompt)
    return [row for row in held_out if row.prompt not in asked and not grams(row.response) & seen]


def distinct(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that say again what an earlier one says, in another template or with a word changed.

    Runs of four words that more than ten rows hold belong to a template; a row is left out if another holds half of
    its other runs. A row of template and one word has none, and is told by its texts alone.
    """
    runs = []
    for row in rows:
        words = WORD.findall(f"{row.prompt} {row.response}".lower())
        runs.append({tuple(words[at : at + 4]) for at in range(len(words) - 3)})
    held = Counter(run for of in runs for run in of)
    first: dict[tuple[str, ...], list[int]] = defaultdict(list)
    out: list[Row] = []
    for place, (row, of) in enumerate(zip(rows, runs, strict=True)):
        own = [run for run in of if held[run] <= 10]
        shared = Counter(other for run in own for other in first[run])
        if shared and shared.most_common(1)[0][1] >= 0.5 * len(own):
            continue
        for run in own:
            first[run].append(place)
        out.append(row)
    return out


class Breaking:
    """Answers that are no good, of eight kinds; each gives None where it would change nothing."""

    def __init__(self, rows: Sequence[Row], rng: np.random.Generator) -> None:
        self.rows = rows
        self.rng = rng

    def swapped(self, row: Row) -> str | None:
        """Another row's answer, of the same capability: the vocabulary alone does not tell it."""
        others = [other.response for other in self._some() if other.response != row.response]
        return others[0] if others else None

    def shuffled(self, row: Row) -> str | None:
        words = row.response.split()
        if len(set(words)) < 4:
            return None
        mixed = words
        while mixed == words:
            mixed = [words[place] for place in self.rng.permutation(len(words))]
        return " ".join(mixed)

    def number(self, row: Row) -> str | None:
        found = NUMBER.search(row.response)
        if found is None:
            return None
        digits = re.sub(r"\D", "", found[0])
        wrong = digits
        while wrong == digits:
            wrong = "".join(str(self.rng.integers(1 if at == 0 else 0, 10)) for at in range(len(digits)))
        return row.response[: found.start()] + wrong + row.response[found.end() :]

    def cut_off(self, row: Row) -> str | None:
        words = row.response.split(" ")
        if len(words) < 8:
            return None
        return " ".join(words[: int(self.rng.integers(len(words) // 4, len(words) // 2 + 1))])

    def repeated(self, row: Row) -> str | None:
        words = row.response.split()
        if len(words) < 4:
            return None
        piece = " ".join(words[: int(self.rng.integers(2, min(len(words), 12) + 1))])
        return " ".join([piece] * int(self.rng.integers(6, 20)))

    def echo(self, row: Row) -> str | None:
        return row.prompt if row.prompt != row.response else None

    def refusal(self, row: Row) -> str | None:
        return REFUSALS[int(self.rng.integers(len(REFUSALS)))]

    def mojibake(self, row: Row) -> str | None:
        """UTF-8 read as Windows' Latin letters, of a text with accents and curly quotes."""
        accents = str.maketrans({"e": "é", "a": "à", "'": "’", "o": "ö", "-": "–"})
        wrong = row.response.translate(accents).encode("utf-8").decode("cp1252", errors="replace")
        return wrong if wrong != row.response else None

    def _some(self) -> list[Row]:
        return [self.rows[place] for place in self.rng.integers(len(self.rows), size=50)]


def copied(row: Row, kind: str, words: Sequence[str], rng: np.random.Generator) -> Row | None:
    """A copy of a row, changed as its kind says; None where it cannot be."""
    if kind == "copy: exact":
        return row
    if kind == "copy: one word":
        parts = re.split(r"(\s+)", row.prompt)
        places = [at for at, part in enumerate(parts) if part.isalpha() and len(part) > 3]
        if not places:
            return None
        at = places[int(rng.integers(len(places)))]
        parts[at] = str(next(word for word in rng.permutation(words) if word != parts[at]))
        return replace(row, prompt="".join(parts))
    if kind == "copy: one sentence":
        sentence = f" {str(rng.choice(words)).capitalize()} {' '.join(map(str, rng.choice(words, 6)))}."
        return replace(row, response=row.response.rstrip() + sentence)
    template = ASKED[int(rng.integers(1, len(ASKED)))]
    return replace(row, prompt=template.format(row.prompt))


def make_messy(
    clean: dict[str, list[Row]], test: Sequence[Row], total: int, rng: np.random.Generator
) -> list[Row]:
    """Plant what people's sets hold into clean rows of Zipf shares; shuffled, ``origin`` in places of the result."""
    names = _order(clean, total, rng)
    own = total - round(LEAKED * total) - round(COPIES * total)
    rows: list[Row] = []
    for name, count in zip(names, parts_of(own, zipf_shares(len(names)).tolist()), strict=True):
        rows += [clean[name][place] for place in rng.permutation(len(clean[name]))[:count]]
    rows = [rows[place] for place in rng.permutation(len(rows))]
    free = iter(rng.permutation(len(rows)).tolist())
    by_capability = {name: [row for row in rows if row.capability == name] for name in names}
    breakings = {name: Breaking(of, rng) for name, of in by_capability.items()}
    spoilt: dict[int, Row] = {}
    for kind, count in zip(
        BROKEN_KINDS, parts_of(round(BROKEN * total), [1] * len(BROKEN_KINDS)), strict=True
    ):
        method = kind.removeprefix("broken: ").replace(" ", "_")
        passed: list[int] = []
        left = count
        while left:
            place = next(free)
            breaking: Callable[[Row], str | None] = getattr(breakings[rows[place].capability], method)
            answer = breaking(rows[place])
            if answer is None:
                passed.append(place)
                continue
            spoilt[place] = replace(rows[place], response=answer, planted=kind)
            left -= 1
        free = iter(passed + list(free))
    for number in range(round(EMPTY * total)):
        place = next(free)
        said = ("", " ", "Yes", "OK")[number % 4]
        spoilt[place] = replace(rows[place], response=said, planted="empty" if number % 4 < 2 else "one word")
    out = [spoilt.get(place, row) for place, row in enumerate(rows)]
    words = sorted({word for row in rows for word in row.prompt.split() if word.isalpha() and len(word) > 3})
    untouched = list(free)
    for kind, count in zip(COPY_KINDS, parts_of(round(COPIES * total), [1] * len(COPY_KINDS)), strict=True):
        left = count
        while left:
            place = untouched[int(rng.integers(len(untouched)))]
            copy = copied(rows[place], kind, words, rng)
            if copy is not None:
                out.append(replace(copy, planted=kind, origin=place))
                left -= 1
    leaks = rng.permutation(len(test))[: round(LEAKED * total)]
    if len(leaks) < round(LEAKED * total):
        raise SystemExit(f"{round(LEAKED * total)} rows should leak, and the test set has {len(test)}")
    out += [replace(test[place], planted="leaked", origin=int(place)) for place in leaks]
    order = rng.permutation(len(out))
    place_of = np.argsort(order)
    return [
        replace(out[old], origin=int(place_of[out[old].origin]))
        if out[old].planted.startswith("copy")
        else out[old]
        for old in order.tolist()
    ]


def _order(clean: dict[str, list[Row]], total: int, rng: np.random.Generator) -> list[str]:
    """The capabilities from the largest share to the smallest, at random among the orders that have the rows."""
    wanted = parts_of(total, zipf_shares(len(clean)).tolist())
    for _ in range(1000):
        names = [str(name) for name in rng.permutation(sorted(clean))]
        if all(len(clean[name]) >= count for name, count in zip(names, wanted, strict=True)):
            return names
    raise SystemExit("no capability has the rows for the largest share; ask for fewer with --rows")


def make_sets(total: int, seed: int, source: str | None = None, held_out: int = 700) -> Sets:
    """All sets of a seed."""
    rng = np.random.default_rng(seed)
    if source is None:
        source = "shared" if MIXTURE.exists() else "gym"
    if source == "shared":
        train, tests = read_shared("train"), read_shared("test")
    else:
        train = make_gym(seed, total)
        tests = {}
        for name, rows in train.items():
            cut = 3 * len(rows) // 4
            train[name], tests[name] = rows[:cut], rows[cut:]
    for name, rows in sorted(train.items()):
        # The sources hold copies of their own: what is said to be clean must not, nor what is held out.
        kept = distinct([*tests[name], *rows])
        of_test = set(tests[name])
        tests[name] = [row for row in kept if row in of_test]
        train[name] = [row for row in kept if row not in of_test]
    each = held_out // len(train)
    leak = max(-(-round(LEAKED * total) // len(tests)), 1)
    for name, rows in sorted(train.items()):
        # Where a test file has too few rows that are apart from the pool some of the others are set aside for them.
        order = rng.permutation(len(rows)).tolist()
        spare = len(rows) - math.ceil(1.3 * SMALLEST * total)
        aside = max(0, min(leak + round(2.3 * each) - len(tests[name]), spare))
        tests[name] = [*tests[name], *(rows[place] for place in order[:aside])]
        train[name] = [rows[place] for place in sorted(order[aside:])]
    # What may leak and what a model is judged on are apart.
    halves: dict[str, tuple[list[Row], list[Row]]] = {}
    for name, rows in sorted(tests.items()):
        order = rng.permutation(len(rows)).tolist()
        halves[name] = ([rows[place] for place in order[:leak]], [rows[place] for place in order[leak:]])
    test = [row for leaks, _ in halves.values() for row in leaks]
    messy = make_messy(train, test, total, rng)
    balanced: list[Row] = []
    for name, count in equal_parts(total, {name: len(rows) for name, rows in train.items()}).items():
        balanced += [train[name][place] for place in rng.permutation(len(train[name]))[:count]]
    clean = [balanced[place] for place in rng.permutation(len(balanced))]
    largest = max(train, key=lambda name: len(train[name]))
    single = [train[largest][place] for place in rng.permutation(len(train[largest]))[:total]]
    judged: list[Row] = []
    for _, (_, rest) in sorted(halves.items()):
        judged += apart(rest, iter([*messy, *clean, *single]))[:each]
    return Sets(messy, clean, single, test, judged)


def census(rows: Sequence[Row]) -> dict[str, Any]:
    """How many rows of each capability and of what was planted."""
    planted = Counter(row.planted or "clean" for row in rows)
    by: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        by[row.capability].append(len(row.response.split()))
    return {
        "rows": len(rows),
        "capabilities": {
            name: {
                "rows": len(words),
                "share": round(len(words) / len(rows), 4),
                "words": round(float(np.mean(words)), 1),
            }
            for name, words in sorted(by.items(), key=lambda item: -len(item[1]))
        },
        "planted": dict(sorted(planted.items())),
    }


def shared_answers(held_out: Sequence[Row], pool: Sequence[Row]) -> float:
    """The share of held-out rows whose answer has an 8-gram in common with the pool's."""
    seen = set().union(*(grams(row.response) for row in pool))
    return float(np.mean([bool(grams(row.response) & seen) for row in held_out]))


def write_set(folder: Path, name: str, rows: Sequence[Row], *, truth: bool) -> None:
    """Write what a scorer may see, and what only the judge may."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            turns = [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.response}]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    if truth:
        with (folder / f"{name}.truth.jsonl").open("w", encoding="utf-8") as file:
            for row in rows:
                said = {"capability": row.capability, "planted": row.planted, "origin": row.origin}
                file.write(json.dumps(said) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=5600)
    parser.add_argument("--held-out", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--source", choices=("shared", "gym"))
    asked = parser.parse_args()
    sets = make_sets(asked.rows, asked.seed, asked.source, asked.held_out)
    said: dict[str, Any] = {}
    for name in ("messy", "clean", "single", "test", "held_out"):
        rows = getattr(sets, name)
        write_set(asked.folder, name, rows, truth=name != "test")
        said[name] = census(rows)
    pool = [*sets.messy, *sets.clean, *sets.single]
    said["held_out"]["share with an 8-gram of the pool's answers"] = shared_answers(sets.held_out, pool)
    (asked.folder / "census.json").write_text(json.dumps(said, indent=1), encoding="utf-8")
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
