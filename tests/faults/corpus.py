"""The hostile corpus: every case ends soon, in little memory, with a result or a sentence; what is found is printed.

A case is a folder that a maker fills and a command line that is run there, in a forked child of this process. In the
folder lie a sound file, vectors and an earlier result; ``out`` is that result again, over which a case writes.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import shlex
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.fork import Forks, Ran, Running, command, tree

SECONDS, MEGABYTES, WAIT = 10.0, 2048.0, 60.0
"""Of processor time and memory, for a case; and how long its child may be there at all, beside others."""
BESIDE = 3
GUARD = 8 << 30
"""Of addresses beyond what the child has, so that a bomb that goes off hits nobody else."""
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TABLES = ("*.csv", "*.json", "*.md", "*.yaml")

Maker = Callable[[Path], None]
Case = tuple[Maker, str]
"""What fills the folder, and the command line: ``W`` is a good run's end, which writes ``out``."""
W = "--scorer random --keep 3 -q -o out --overwrite"


def cases() -> dict[str, dict[str, Case]]:
    """Every case by its kind."""
    from tests.faults import (
        hostile_arguments,
        hostile_models,
        hostile_results,
        hostile_sources,
        hostile_tables,
    )

    found: dict[str, dict[str, Case]] = {}
    for module in (hostile_sources, hostile_tables, hostile_models, hostile_results, hostile_arguments):
        found |= module.CASES
    return found


def materials(good: Path) -> None:
    """Make what cases start from."""
    import numpy as np

    import datapruner as dp
    from datapruner.scorers import Prototypes
    from tests.conftest import save_tiny_llama, save_tiny_sentence_transformer

    good.mkdir()
    os.chdir(good)
    rows = [
        {"question": f"What is {i} and {i}?", "answer": f"It is {2 * i}.", "topic": "ab"[i % 2]}
        for i in range(12)
    ]
    Path("good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save("E.npy", np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32))
    options = {"progress": False, "cache": good / "cache"}
    dp.prune("good.jsonl", scorer="random", keep=3, seed=9, **options).save("out")
    dp.score("good.jsonl", scorers=["random", Prototypes(n_clusters=2)], embeddings="E.npy", **options).save(
        "scores"
    )
    dp.compare("good.jsonl", scorers=["random", "length"], keep=3, **options).save("compared")
    save_tiny_llama(good / "llama")
    save_tiny_sentence_transformer(good)
    dp.prune("good.jsonl", scorer="k_center", keep=3, embedder="./st", **options)


class Judge:
    """Runs one case after another, a few at a time, and notes what is not as it must be."""

    def __init__(self, forks: Forks, good: Path, work: Path) -> None:
        self.forks, self.good, self.work = forks, good, work
        self.before = tree(good / "out")
        self.base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        """What a child has of this process from the start."""
        self.told: list[dict[str, object]] = []
        self.running: list[tuple[str, Path, Running]] = []

    def start(self, name: str, case: Case) -> None:
        place = self.work / f"{len(self.told) + len(self.running)}"
        make, words = case
        place.mkdir()
        for made in ("good.jsonl", "E.npy"):
            shutil.copy(self.good / made, place)
        shutil.copytree(self.good / "out", place / "out")

        def action() -> None:
            os.chdir(place)
            os.environ["DATAPRUNER_CACHE"] = str(place / "cache")
            os.environ["TMPDIR"] = str(place)
            tempfile.tempdir = None
            os.environ["GOOD"] = str(self.good)
            make(place)
            used = resource.getrusage(resource.RUSAGE_SELF)
            if used.ru_maxrss > 1024 * MEGABYTES:
                raise SystemExit(71)  # the maker, not what it made
            given = shlex.split(words.replace(" W", f" {W}").replace("GOOD", str(self.good)))
            if given[0].startswith("DATAPRUNER_"):
                key, _, value = given.pop(0).partition("=")
                os.environ[key] = value
            held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (held + GUARD, resource.RLIM_INFINITY))
            command(*given)()

        self.running.append((name, place, self.forks.start(action, place, most=WAIT)))

    def collect(self, beside: int) -> None:
        """Wait until no more than so many are at work."""
        while len(self.running) > beside:
            for one in list(self.running):
                name, place, child = one
                if (ran := child.ended()) is not None:
                    self.running.remove(one)
                    self.told.append(
                        {
                            "name": name,
                            "code": ran.code,
                            "seconds": round(ran.seconds, 2),
                            "megabytes": round(ran.megabytes),
                            "said": ran.said[:300],
                            "wrong": [what for what in self.wrong(place, ran) if what],
                        }
                    )
                    shutil.rmtree(place, ignore_errors=True)
            time.sleep(0.002)

    def wrong(self, place: Path, ran: Ran) -> list[str | None]:
        out = ran.out.decode("utf-8", "replace")
        after = tree(place / "out")
        same = after == self.before
        raw = [
            file.name
            for kind in TABLES
            for file in place.glob(f"*/{kind}")
            if not same
            and file.parent.name in ("out", "made")
            and RAW.search(file.read_text("utf-8", "replace"))
        ]
        return [
            None if ran.code in (0, 2, 130) else f"exit code {ran.code}: {ran.said[-400:]}",
            "a traceback" if "Traceback" in ran.said else None,
            f"raw control characters in what it says: {ran.said[:200]!r}" if RAW.search(ran.said) else None,
            f"raw control characters in what it writes: {out[:200]!r}" if RAW.search(out) else None,
            f"raw control characters in {raw}" if raw else None,
            f"{ran.seconds:.1f} s" if ran.seconds > SECONDS else None,
            f"{ran.megabytes:.0f} MB" if ran.megabytes - self.base > MEGABYTES else None,
            None
            if same or (ran.code == 0 and whole(place / "out", after))
            else "the earlier result is not as it was",
            f"not one sentence: {ran.said!r}" if ran.code == 2 and not ran.said.strip() else None,
        ]


def whole(folder: Path, held: dict[str, str] | None) -> bool:
    """Whether a folder is a result with every file as its digests say."""
    from datapruner.files.checksums import CHECKSUMS, check

    if not held or CHECKSUMS not in held:
        return False
    check(folder, *(name for name in held if name != CHECKSUMS))
    return "recipe.yaml" in held


FIRST_HEAVY = "arrays"
"""From this kind on children need torch: what has been loaded makes every fork dearer."""


def load() -> None:
    """Load once what the children need; nothing of it is run, since threads do not survive a fork."""
    import peft  # noqa: F401
    import sentence_transformers  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401

    import datapruner.models.loading  # noqa: F401

    gc.freeze()  # a collection in a child would copy what it looks at


def main() -> None:
    warnings.simplefilter("ignore")
    started, only = time.monotonic(), [word for word in sys.argv[1:] if not word.startswith("--every=")]
    every = next((int(word[8:]) for word in sys.argv[1:] if word.startswith("--every=")), 1)
    work = Path(tempfile.mkdtemp(prefix="corpus-"))
    try:
        import datasets  # noqa: F401
        import pyarrow.parquet  # noqa: F401

        import datapruner.api
        import datapruner.cli
        import datapruner.outputs.dataset  # noqa: F401

        gc.freeze()
        forks = Forks()
        made = forks.run(lambda: materials(work / "good"), work)
        if made.code:
            raise SystemExit(f"the materials: {made.said}")
        judge = Judge(forks, work / "good", work)
        found = {kind: dict(list(table.items())[::every]) for kind, table in cases().items()}
        for kind, table in found.items():
            if kind == FIRST_HEAVY:
                judge.collect(0)
                load()
                judge.base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            for name, case in table.items():
                if not only or any(word in f"{kind}: {name}" for word in only):
                    judge.start(f"{kind}: {name}", case)
                    judge.collect(BESIDE - 1)
        judge.collect(0)
        codes = Counter(str(one["code"]) for one in judge.told)
        print(
            json.dumps(
                {
                    "cases": {kind: len(table) for kind, table in found.items()},
                    "ran": len(judge.told),
                    "codes": codes,
                    "violations": [one for one in judge.told if one["wrong"]],
                    "slowest": sorted(((one["seconds"], one["name"]) for one in judge.told), reverse=True)[
                        :5
                    ],
                    "largest": sorted(((one["megabytes"], one["name"]) for one in judge.told), reverse=True)[
                        :3
                    ],
                    "seconds": round(time.monotonic() - started, 1),
                    **({"told": judge.told} if only else {}),
                },
                indent=1,
            )
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
