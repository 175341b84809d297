"""Run cases for a while, each in a child of this warm process; write those that fail to a folder of their own.

`--only N` runs one case of a seed again and shows what it says.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = (
    "1"  # as the command line sets it before it imports anything
)

import argparse
import collections
import faulthandler
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.conftest import save_tiny_llama, save_tiny_sentence_transformer
from tests.faults.fork import command, done, redirect, tree
from tests.faults.fuzz import judge, sources
from tests.faults.fuzz.cases import OUT, Case

SECONDS, BYTES = 60.0, 3 << 30
CHECKED = 0.25
"""The share of results that are loaded and compared."""


@dataclass
class Ran:
    code: int
    said: str
    seconds: float


def child(action: Callable[[], None], folder: Path, spare: Path, *, limited: bool = True) -> Ran:
    """Run something in a fork, in a folder, with limits of time and memory; both its outputs together."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as said:
        number = os.fork()
        if number == 0:
            _inside(action, folder, spare, said.fileno(), limited)
        while (ended := os.waitpid(number, os.WNOHANG))[0] == 0:
            if time.monotonic() - started > SECONDS:
                os.kill(number, signal.SIGKILL)
            time.sleep(0.002)
        said.seek(0)
        text = said.read().decode("utf-8", "surrogateescape")
    return Ran(os.waitstatus_to_exitcode(ended[1]), text, time.monotonic() - started)


def _inside(action: Callable[[], None], folder: Path, spare: Path, said: int, limited: bool) -> None:
    code = 70
    try:
        os.setsid()
        redirect(said, said)
        os.environ["TMPDIR"], tempfile.tempdir = str(spare), None
        os.chdir(folder)
        if limited:
            faulthandler.dump_traceback_later(SECONDS - 5, file=sys.__stderr__)
            pages = int(Path("/proc/self/statm").read_text("ascii").split()[5])
            resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + BYTES,) * 2)
        code = done(action)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


class Fuzzer:
    """A stock of valid results and a model, and the cases that are made of them."""

    def __init__(self, work: Path, kept: Path) -> None:
        self.work, self.kept, self.stock = work, kept, work / "stock"
        self.spare = work / "spare"
        self.spare.mkdir()
        self.found: collections.Counter[str] = collections.Counter()
        self.codes: collections.Counter[int] = collections.Counter()
        self.verbs: collections.Counter[str] = collections.Counter()
        self.said: collections.Counter[str] = collections.Counter()
        self.loaded, self.slowest = 0, (0.0, "")
        self.fill()

    def fill(self) -> None:
        """Results that later cases start from, made by the command line itself."""
        import numpy as np

        save_tiny_llama(self.stock / "llama")
        save_tiny_llama(self.stock / "pruned-llama", seed=1)
        save_tiny_sentence_transformer(self.stock / "embedder")
        model = str(self.stock / "llama")
        draw = Random(0)
        plans = {
            "scored": ["score", "--scorer", "random", "--scorer", "prototypes", "--scorer", "length"],
            "pruned": ["prune", "--scorer", "random", "--keep", "0.5", "--per-group", "topic"],
            "kept": ["prune", "--scorer", "prototypes", "--keep", "9", "--dedup", "--format", "jsonl"],
            "tokens": ["prune", "--scorer", "qtuning", "--keep", "0.5", "--model", "llama"],
        }
        for name, (verb, *options) in plans.items():
            folder = self.stock / name
            folder.mkdir()
            rows = [
                {**row, "topic": ("math", "code")[at % 2], "flag": at % 9 == 0}
                for at, row in enumerate(sources.row_of("alpaca", draw) for _ in range(30))
            ]
            sources.write(rows, "jsonl", folder, "rows")
            np.save(folder / "vectors.npy", sources.vectors(draw, 30))
            if name == "tokens":
                shutil.copytree(self.stock / "llama", folder / "llama")
            given = ["--embeddings", "vectors.npy"] if "prototypes" in options else []
            given += ["--tokenizer", model] if "--model" not in options else []
            ran = child(command(verb, "rows.jsonl", "-o", OUT, *options, *given), folder, self.spare)
            if ran.code:
                raise SystemExit(f"the stock: {name}: {ran.said}")

    def case(self, seed: int, number: int, *, show: bool = False) -> list[str]:
        """Build a case, run it, judge it; what is wrong with it."""
        name = f"{seed}-{number}"
        folder = self.work / "cases" / name
        told = self.work / "told.json"

        def build() -> None:
            case = Case(seed, number, folder, self.stock)
            case.build()
            told.write_text(json.dumps({"words": case.words, "rows": case.rows}, default=str))

        built = child(build, self.work, self.spare, limited=False)
        if built.code:
            raise SystemExit(f"case {name} cannot be built: {built.said}")
        case = json.loads(told.read_text())
        words = case["words"]
        before = tree(folder / OUT)
        inputs = self.inputs(folder)
        ran = child(command(*words), folder, self.spare)
        litter = [path.name for path in (*folder.iterdir(), *self.spare.iterdir()) if ".tmp-" in path.name]
        litter += [path.name for path in self.spare.iterdir()]
        found = judge.faults(
            ran.code, ran.said, folder / OUT, before, litter if ran.code in judge.CODES else []
        )
        if self.inputs(folder) != inputs:
            found.append("an input was changed")
        self.codes[ran.code] += 1
        self.verbs[words[0]] += 1
        if ran.seconds > self.slowest[0]:
            self.slowest = (round(ran.seconds, 1), name)
        changed = tree(folder / OUT) != before
        if changed and words[0] in ("inspect", "explain"):
            found.append("the earlier result was touched")
        if changed and ran.code == 0 and not found and (show or Random(name).random() < CHECKED):
            found += self.load(folder, case)
        if ran.code == 2:
            self.said[(ran.said.strip().splitlines() or [""])[-1][:110]] += 1
        if show:
            print(json.dumps(words), f"\nexit {ran.code} in {ran.seconds:.1f} s\n{ran.said}\n{found}")
        for what in found:
            self.found[what] += 1
        if any(self.found[what] <= 3 for what in found):
            self.keep(name, folder, words, ran, found)
        shutil.rmtree(folder, ignore_errors=True)
        for left in self.spare.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return found

    def inputs(self, folder: Path) -> dict[str, str]:
        return {
            name: digest for name, digest in (tree(folder) or {}).items() if not name.startswith(f"{OUT}/")
        }

    def load(self, folder: Path, case: dict) -> list[str]:
        wrong = self.work / "wrong"
        wrong.unlink(missing_ok=True)

        def check() -> None:
            wrong.write_text(judge.loads(folder / OUT, case["rows"], self.spare / "loaded") or "")

        ran = child(check, folder, self.spare)
        self.loaded += 1
        if ran.code:
            return [f"it does not load: {(ran.said.strip().splitlines() or [str(ran.code)])[-1][:90]}"]
        return [said] if (said := wrong.read_text()) else []

    def keep(self, name: str, folder: Path, words: list[str], ran: Ran, found: list[str]) -> None:
        place = self.kept / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place, symlinks=True)
        (place / "CASE.json").write_text(
            json.dumps({"found": found, "words": words, "code": ran.code}, indent=1)
        )
        (place / "SAID.txt").write_text(ran.said, "utf-8", errors="backslashreplace")

    def summary(self) -> dict[str, object]:
        return {
            "cases": self.codes.total(),
            "codes": self.codes,
            "verbs": self.verbs,
            "loaded and compared": self.loaded,
            "slowest": self.slowest,
            "refused most": dict(self.said.most_common(40)),
            "found": self.found,
        }


def warm() -> None:
    """Load what the children need, once, and start no threads."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet
    import sklearn.cluster
    import torch
    import transformers

    import datapruner.api
    import datapruner.cli
    import datapruner.comparison
    import datapruner.outputs.dataset
    import datapruner.pruning_damage
    from datapruner.scorers import available_scorers, scorer_class

    for name in available_scorers():
        scorer_class(name)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    assert datasets
    assert sklearn
    assert transformers
    assert datapruner
    assert pyarrow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone and show what it says")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where failing cases go")
    given = parser.parse_args()
    kept = given.keep.resolve()
    work = Path(tempfile.mkdtemp(prefix="fuzz-")).resolve()
    os.environ |= {
        "DATAPRUNER_CACHE": str(work / "cache"),
        "HF_HOME": str(work / "hub"),
        "HF_HUB_OFFLINE": "1",
    }
    try:
        warm()
        started = time.monotonic()
        fuzzer = Fuzzer(work, kept)
        if given.only is not None:
            fuzzer.case(given.seed, given.only, show=True)
            return
        number = 0
        with suppress(KeyboardInterrupt):
            while number < given.cases and time.monotonic() - started < given.seconds:
                if found := fuzzer.case(given.seed, number):
                    print(f"{given.seed}-{number}: {found}", file=sys.stderr, flush=True)
                number += 1
        print(json.dumps({**fuzzer.summary(), "seconds": round(time.monotonic() - started)}, indent=1))
        raise SystemExit(bool(fuzzer.found))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
