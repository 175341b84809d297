"""`make demo`: what the default recipe makes of a messy set, planted against found; or of your own data.

Without --data the set is made with reasoning-gym, as benchmarks/messy.py plants it: seven capabilities in very uneven
shares, copies, leaks, empty and broken answers. No hub is needed, and no language model.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from itertools import chain, count
from pathlib import Path

import numpy as np
from messy import Row, make_sets, write_set

import datapruner as dp
from datapruner.errors import flags

ROWS = 1000


def table(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells))
    print()


def show_found(selection: dp.Selection, truth: list[Row]) -> None:
    """What was planted, and what of it cleaning dropped; of a copy and what it copies, either will do."""
    out: dict[int, str] = {}
    for vetoes in selection.scores.vetoes:
        out |= dict.fromkeys(vetoes.rows.tolist(), vetoes.kind)
    planted = Counter(row.planted for row in truth if row.planted)
    found: Counter[str] = Counter()
    copied = set()
    for place, row in enumerate(truth):
        is_copy = row.planted.startswith("copy")
        copied |= {row.origin} if is_copy else set()
        found[row.planted] += place in out or (is_copy and row.origin in out)
    table(
        ["kind", "planted", "found"],
        [[kind, f"{number:,}", f"{found[kind]:,}"] for kind, number in sorted(planted.items())],
    )
    others = Counter(
        cause for place, cause in out.items() if not truth[place].planted and place not in copied
    )
    clean = sum(not row.planted for row in truth)
    said = ", ".join(f"{number} as {cause.replace('_', ' ')}" for cause, number in others.most_common())
    print(f"Other rows dropped: {others.total()} of {clean:,}{f' ({said})' if said else ''}\n")


def show_shares(selection: dp.Selection, truth: list[Row]) -> None:
    """How the budget was shared over the capabilities, of which the scorer was told nothing."""
    scored = np.isfinite(selection.values)
    left = Counter(row.capability for row, there in zip(truth, scored, strict=True) if there)
    kept = Counter(row.capability for row, here in zip(truth, selection.kept, strict=True) if here)
    table(
        ["capability", "rows left", "kept", ""],
        [
            [name, f"{number:,}", f"{kept[name]:,}", f"{100 * kept[name] / number:.0f} %"]
            for name, number in left.most_common()
        ],
    )


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
    source, truth, tests = options.data, [], None
    if source is None:
        sets = make_sets(ROWS, options.seed, "gym", held_out=70)
        source, truth, tests = str(folder / "messy.jsonl"), sets.messy, str(folder / "test.jsonl")
        write_set(folder, "messy", truth, truth=True)
        write_set(folder, "test", sets.test, truth=False)
        print(
            f"Made {source}: {len(truth):,} rows of {len({row.capability for row in truth})} capabilities, "
            f"{sum(bool(row.planted) for row in truth):,} of them planted\n"
        )
    command = ["prune", source, *(["--decontaminate", tests] if tests else []), "--keep", str(options.keep)]
    command += ["-o", str(folder / "pruned")]
    print(f"$ datapruner {shlex.join(command)}\n", flush=True)
    try:
        selection = dp.prune(source, keep=options.keep, decontaminate=tests, seed=options.seed)
        selection.save(folder / "pruned")
    except dp.DataPrunerError as error:
        print(f"datapruner: {error}", file=sys.stderr)
        return 2
    with flags():
        print(f"{selection.summary}\n")
    if truth:
        show_found(selection, truth)
        show_shares(selection, truth)
    print(f"Result: {folder / 'pruned'} ({time.monotonic() - start:.0f} s). Look at it:\n")
    row = next((row for row in range(len(selection.kept)) if not selection.kept[row]), 0)
    held = shlex.quote(str(folder / "pruned"))
    arguments = f"{json.dumps(str(folder / 'pruned'))}, split={json.dumps(selection.scores.samples.split)}"
    load = f"import datasets; print(datasets.load_dataset({arguments}))"
    print(f"  {beside('datapruner')} explain {held} --row {row} --text")
    print(f"  {beside('python')} -c {shlex.quote(load)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
