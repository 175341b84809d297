"""`make demo`: prune a labelled set with planted duplicates, or your own data, and show what happened.

Without --data the set is made with reasoning-gym: twenty kinds of tasks, very uneven counts, some rows
planted again as they are and some with one word changed. No hub is needed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from itertools import chain, count
from pathlib import Path

import numpy as np

import datapruner as dp

KINDS = [
    "gsm_symbolic",
    "leg_counting",
    "knights_knaves",
    "family_relationships",
    "needle_haystack",
    "time_intervals",
    "syllogism",
    "sentence_reordering",
    "list_functions",
    "circuit_logic",
    "calendar_arithmetic",
    "color_cube_rotation",
    "letter_counting",
    "cryptarithm",
    "word_sequence_reversal",
    "maze",
    "number_filtering",
    "manipulate_matrix",
    "survo",
    "countdown",
]
LARGEST, SHRINK = 500, 0.83
EXACT, NEAR = 150, 150


def make_set(path: Path, seed: int) -> tuple[dict[int, int], dict[int, int]]:
    """Write the labelled set; give the planted rows, each with the row it copies."""
    import reasoning_gym

    rng = np.random.default_rng(seed)
    rows = []
    for number, kind in enumerate(KINDS):
        size = round(LARGEST * SHRINK**number)
        rows += [
            {"kind": kind, "question": item["question"], "answer": str(item["answer"])}
            for item in reasoning_gym.create_dataset(kind, size=size, seed=seed)
        ]
    vocabulary = sorted({word for row in rows for word in row["question"].split() if word.isalpha()})
    originals = rng.choice(len(rows), EXACT + NEAR, replace=False)
    copies = [dict(rows[of]) for of in originals]
    for copy in copies[EXACT:]:
        words = copy["question"].split(" ")
        words[rng.integers(len(words))] = str(rng.choice(vocabulary))
        copy["question"] = " ".join(words)
    tagged = [(row, number, None) for number, row in enumerate(rows)]
    tagged += [
        (copy, None, (int(of), place < EXACT))
        for place, (copy, of) in enumerate(zip(copies, originals, strict=True))
    ]
    order = rng.permutation(len(tagged))
    place_of = {tagged[old][1]: new for new, old in enumerate(order) if tagged[old][1] is not None}
    exact: dict[int, int] = {}
    near: dict[int, int] = {}
    for new, old in enumerate(order):
        if tagged[old][2] is not None:
            of, is_exact = tagged[old][2]
            (exact if is_exact else near)[new] = place_of[of]
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(tagged[old][0], ensure_ascii=False) + "\n" for old in order)
    return exact, near


def found(planted: dict[int, int], dropped: set[int]) -> int:
    """Count planted pairs of which at most one row is left."""
    return sum(copy in dropped or original in dropped for copy, original in planted.items())


def table(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        first = row[0].ljust(widths[0])
        print(
            "  "
            + "  ".join(
                [first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
        )
    print()


def show_shares(selection: dp.Selection, label: str | None) -> None:
    """How the budget was shared over the clusters, the largest first."""
    ranking = selection.scores.rankings[selection.scorer]
    groups = ranking.groups
    names = None if label is None else np.array(selection.scores.samples.column(label))
    weights = ranking.group_weights
    rows = []
    order = np.argsort(-np.bincount(groups[groups >= 0]))
    for cluster in order[:12].tolist():
        of = groups == cluster
        kept = int((of & selection.kept).sum())
        if names is not None:
            kinds, counts = np.unique(names[of], return_counts=True)
            said = f"{kinds[counts.argmax()]} ({100 * counts.max() // of.sum()} %)"
        else:
            typical = int(np.flatnonzero(of)[ranking.columns["centroid_distance"][of].argmin()])
            said = selection.scores.samples[typical].excerpt(44)
        rows.append(
            [
                f"{cluster:3d}  {said}",
                f"{of.sum():,}",
                f"{weights[cluster] * len(weights):.2f}",
                f"{kept:,}",
                f"{100 * kept / of.sum():.0f} %",
            ]
        )
    rest = np.isin(groups, order[12:])
    if rest.any():
        kept = int((rest & selection.kept).sum())
        rows.append(
            [
                f"     {len(order) - 12} smaller clusters",
                f"{rest.sum():,}",
                "",
                f"{kept:,}",
                f"{100 * kept / rest.sum():.0f} %",
            ]
        )
    said = "mostly" if names is not None else "most typical row"
    table([f"cluster  {said}", "rows", "weight", "kept", "of its rows"], rows)


def new_folder(asked: Path | None) -> Path:
    """Make the folder of this run: an earlier run's is left alone."""
    if asked is not None:
        asked.mkdir(parents=True)
        return asked
    for name in chain(["demo-out"], (f"demo-out-{number}" for number in count(2))):
        try:
            Path(name).mkdir()
        except FileExistsError:
            continue
        return Path(name)
    raise AssertionError


def beside(program: str) -> str:
    """How a program of this environment is called from here, whether or not the environment is active."""
    path = Path(sys.executable).parent / program
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="your own file, folder or hub name")
    parser.add_argument("--keep", type=float, default=0.3)
    parser.add_argument("--out", type=Path, help="a new folder; by default demo-out, demo-out-2, ...")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    try:
        folder = new_folder(options.out)
    except FileExistsError:
        print(f"{options.out} is there already; give --out another name", file=sys.stderr)
        return 2
    source, exact, near = options.data, {}, {}
    if source is None:
        source = str(folder / "reasoning.jsonl")
        exact, near = make_set(Path(source), options.seed)
        smallest = round(LARGEST * SHRINK ** (len(KINDS) - 1))
        print(f"Made {source}: {len(KINDS)} kinds of tasks, {LARGEST} to {smallest} rows each,")
        print(f"  and planted {EXACT} of the rows again as they are, {NEAR} with one word changed.\n")
    try:
        # Duplicates go first, so that they neither blow up a cluster nor get kept twice.
        selection = dp.prune(source, keep=options.keep, dedup=True, seed=options.seed)
        selection.save(folder / "pruned")
    except dp.DataPrunerError as error:
        print(f"datapruner: {error}", file=sys.stderr)
        return 2
    total = len(selection.kept)
    dropped = {vetoes.kind: set(vetoes.rows.tolist()) for vetoes in selection.scores.vetoes}
    print("Duplicates")
    if exact:
        everything = set().union(*dropped.values())
        rows = [
            [
                "exact",
                f"{EXACT}",
                f"{found(exact, everything)}",
                f"{len(dropped['exact_duplicate'] - set(exact) - set(exact.values()))}",
            ],
            [
                "one word changed",
                f"{NEAR}",
                f"{found(near, everything)}",
                f"{len(dropped['near_duplicate'] - set(near) - set(near.values()))}",
            ],
        ]
        table(["", "planted", "found", "other rows dropped"], rows)
    else:
        table(["", "dropped"], [[kind.replace("_", " "), f"{len(rows):,}"] for kind, rows in dropped.items()])
    clusters = len(selection.scores.rankings[selection.scorer].group_weights)
    print(
        f"Budget: {len(selection):,} of {total:,} rows, shared over {clusters} clusters by their complexity"
    )
    show_shares(selection, "kind" if options.data is None else None)
    print(f"Result: {folder / 'pruned'} ({time.monotonic() - start:.0f} s). Look at it:\n")
    row = next((row for row in range(total) if not selection.kept[row]), 0)
    held = shlex.quote(str(folder / "pruned"))
    arguments = f"{json.dumps(str(folder / 'pruned'))}, split={json.dumps(selection.scores.samples.split)}"
    load = f"import datasets; print(datasets.load_dataset({arguments}))"
    print(f"  {beside('datapruner')} explain {held} --row {row} --text")
    print(f"  {beside('python')} -c {shlex.quote(load)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
