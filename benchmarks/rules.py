"""How often the rules for noise are right: on real sets, by hits that were read one by one, and on planted noise.

Hits that were read stand in `results/rules.json`, by rule, source and row, with what was judged; this script finds the
hits anew, holds them against what was read, and says which were not. Thresholds were chosen on the sources of `TUNED`,
and precision is told for the others too.

    python benchmarks/rules.py [--rows 10000] [--show RULE] [--messy FOLDER] [--save]
    python benchmarks/rules.py --speed ROWS.jsonl [--before TREE] [--save]

`--speed` times the step `rules` by the CPU time of a process of its own, in turns with the tree of an earlier commit.

`--messy` takes a folder of `benchmarks/messy.py`, `--more` one of further sets: those in the results are the English
and Chinese demo files of LLaMA-Factory (alpaca, dpo, glaive_toolcall, kto, identity), as messages.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from common import MIXTURE

from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.step import Remaining
from datapruner.cleaning.steps._read import rows_read
from datapruner.cleaning.steps._rule import some
from datapruner.cleaning.steps.personal_data import PersonalData, personal
from datapruner.cleaning.steps.rules import EVERY
from datapruner.cleaning.steps.symbols import Symbols
from datapruner.samples import load_samples
from datapruner.samples.samples import Samples

TUNED = (
    "codegen",
    "gsm8k",
    "roleplay",
    "commonsense",
    "alpaca_en",
    "dpo_en_chosen",
    "dpo_en_rejected",
    "glaive_toolcall_en",
)
OTHERS = ("classification", "summarization", "toolformer", "mixture")
RESULT = Path(__file__).parent / "results" / "rules.json"
MOST = 100
"""Hits of a rule that are read."""


def read(path: Path, most: int) -> Samples:
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    if len(lines) > most:
        chosen = np.sort(np.random.default_rng(0).choice(len(lines), most, replace=False))
        lines = [lines[place] for place in chosen]
    rows = [json.loads(line) for line in lines]
    for row in rows:
        for name in ("template", "id", "capability"):
            row.pop(name, None)
    return load_samples(rows)


def hits_of(samples: Samples) -> dict[str, list[int]]:
    """Every rule on all rows, by itself; the rows are read once for all."""
    n = len(samples)
    left = Remaining(samples, np.arange(n), np.zeros(n, dtype=bool), OwnText(samples, True))
    reads = [read for _, read in rows_read(left, left.rows, {})]
    chosen = [reads[row] for row in some(left.rows, left.seed)]
    found = {}
    for rule in (*(rule() for rule in (*EVERY, Symbols)), PersonalData(drop=True)):
        usual = rule.usual(chosen) if rule.reads_the_set else None
        found[rule.name] = [row for row, read in enumerate(reads) if rule.hit(read, usual) is not None]
    logging.info("%s: %d rows, %s", samples.source, n, {rule: len(rows) for rule, rows in found.items()})
    return found


def digest(samples: Samples, row: int) -> str:
    return hashlib.sha256(samples.texts("both", np.array([row]))[0].encode()).hexdigest()[:12]


def shown(samples: Samples, row: int, rule: str) -> str:
    (asked,), (said,) = (samples.texts(part, np.array([row])) for part in ("prompt", "response"))
    if rule == "personal_data":
        both = f"{asked}\n{said}"
        return "; ".join(f"{kind}: {one}" for kind, one in personal(both))[:300]
    cut = said if len(said) < 420 else f"{said[:160]} [...] {said[-240:]}"
    return f"Q {asked[-160:]!r}\n    A {cut!r}"


def messy(folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in ("messy", "clean", "single"):
        samples = load_samples(str(folder / f"{name}.jsonl"))
        truth = [json.loads(line)["planted"] or "clean" for line in (folder / f"{name}.truth.jsonl").open()]
        found = hits_of(samples)
        for counted in ("personal_data", "symbols"):
            found.pop(counted)
        every = {row for rows in found.values() for row in rows}
        whole = Counter(truth)
        caught = Counter(truth[row] for row in every)
        by: dict[str, Counter[str]] = defaultdict(Counter)
        for rule, rows in found.items():
            for row in rows:
                by[truth[row]][rule] += 1
        out[name] = {
            kind: {"rows": whole[kind], "hit": caught[kind], "by": dict(by[kind].most_common())}
            for kind in sorted(whole)
        }
    return out


CHILD = """
import json, sys, time
import numpy as np
from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.step import Remaining
from datapruner.cleaning.steps.rules import Rules
from datapruner.samples import load_samples

def left(samples):
    n = len(samples)
    return Remaining(samples, np.arange(n), np.zeros(n, dtype=bool), OwnText(samples, True))

samples = load_samples(sys.argv[1])
Rules().clean(left(load_samples([{"prompt": "Is it so?", "response": "It is so."}] * 3)))
start = time.process_time()
Rules().clean(left(samples))
print(json.dumps([len(samples), time.process_time() - start]))
"""
"""Everything is imported before the clock runs; the models of the rules, which load when they are asked, are not."""


def speed(rows: str, before: str, runs: int) -> dict[str, Any]:
    trees = {"now": str(RESULT.parents[2]), **({"before": before} if before else {})}
    seconds: dict[str, list[float]] = defaultdict(list)
    count = 0
    for _ in range(runs):
        for name, tree in trees.items():
            asked = [sys.executable, "-c", CHILD, rows]
            environment = {**os.environ, "PYTHONPATH": tree, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                asked, env=environment, cwd=tree, check=True, capture_output=True, text=True
            )
            count, took = json.loads(done.stdout)
            seconds[name].append(took)
    return {
        "rows": count,
        "runs": runs,
        "rows_per_cpu_second": {
            name: round(count / float(np.median(took))) for name, took in seconds.items()
        },
        "seconds": {name: [round(one, 2) for one in took] for name, took in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--show", default="")
    parser.add_argument("--messy", type=Path)
    parser.add_argument("--more", type=Path, help="a folder of further sets, NAME.jsonl")
    parser.add_argument(
        "--labels", type=Path, help="JSON of what was read: rule -> source and row -> right, or wrong: why"
    )
    parser.add_argument("--speed", default="", help="rows that are timed")
    parser.add_argument("--before", default="", help="a tree of an earlier commit")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    asked = parser.parse_args()
    held = json.loads(RESULT.read_text()) if RESULT.exists() else {"read": {}}
    if asked.speed:
        held["speed"] = speed(str(Path(asked.speed).resolve()), asked.before, asked.runs)
        print(json.dumps(held["speed"]))
        if asked.save:
            RESULT.write_text(json.dumps(held, indent=1) + "\n")
        return
    labels = json.loads(asked.labels.read_text()) if asked.labels else {}
    totals: dict[str, Any] = {}
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    sets = {}
    own = [source for source in (*TUNED, *OTHERS) if MIXTURE.with_name(f"{source}.train.jsonl").exists()]
    files = {source: MIXTURE.with_name(f"{source}.train.jsonl") for source in own}
    files |= {path.stem: path for path in sorted(asked.more.glob("*.jsonl"))} if asked.more else {}
    for source, path in files.items():
        sets[source] = read(path, asked.rows)
        found = hits_of(sets[source])
        totals[source] = {"rows": len(sets[source]), **{rule: len(rows) for rule, rows in found.items()}}
        for rule, rows in found.items():
            places[rule] += [(source, row) for row in rows]
    told: dict[str, Any] = {}
    for rule, every in places.items():
        chosen = np.sort(np.random.default_rng(0).permutation(len(every))[:MOST])
        hits = [every[place] for place in chosen]
        known = held["read"].get(rule, {})
        tally: dict[str, Counter[str]] = {"tuned": Counter(), "others": Counter()}
        for source, row in hits:
            key = f"{source} {row} {digest(sets[source], row)}"
            judged = known.get(key, "unread")
            if asked.labels and judged == "unread" and f"{source} {row}" in labels.get(rule, {}):
                judged = held["read"].setdefault(rule, {})[key] = labels[rule][f"{source} {row}"]
            tally["tuned" if source in TUNED else "others"][judged.split(":")[0]] += 1
            if rule == asked.show and judged == "unread":
                print(f"{key}\n    {shown(sets[source], row, rule)}")
        told[rule] = {"hits": len(every), **{name: dict(counts) for name, counts in tally.items()}}
    for source, counts in totals.items():
        print(source, json.dumps(counts))
    print(json.dumps(told, indent=1))
    planted = messy(asked.messy) if asked.messy else held.get("by_rule", {})
    if asked.messy:
        print(json.dumps(planted))
    if asked.save:
        RESULT.write_text(
            json.dumps(
                {**held, "sources": totals, "precision": told, "by_rule": planted, "read": held["read"]},
                indent=1,
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
