"""Every call that changes a file is a place to die, to fail once, to run out of room; what is found is printed as JSON.

Three stories: a new result, a result over an earlier one, and the store of signals. After each accident a result is
the old one or the new one, whole; a run that is not killed says one sentence and leaves nothing; the next run makes
the new result and leaves nothing either.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.faults.fork import FULL, KILL, ONCE, Forks, command, tree

ACCIDENTS = {
    "killed": (KILL, 0),
    "input/output error": (ONCE, errno.EIO),
    "no room": (FULL, errno.ENOSPC),
}
ROWS = 12


class Story:
    """A run in a folder, and what may be found there after it was disturbed."""

    name = ""

    def __init__(self, forks: Forks, work: Path) -> None:
        self.forks, self.place = forks, work / self.name.replace(" ", "-")
        self.violations: list[str] = []

    def reset(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()

    def action(self) -> None: ...

    def wrong(self) -> str | None:
        """What is not as it may be after an accident."""

    def unfinished(self) -> str | None:
        """What is not as it must be after a run that nothing disturbed."""

    def litter(self) -> list[str]:
        return [path.name for path in self.place.rglob("*") if ".tmp-" in path.name or ".was-" in path.name]

    def tell(self) -> dict[str, object]:
        self.reset()
        whole = self.forks.run(self.action, self.place)
        if whole.code or self.litter() or self.unfinished():
            raise SystemExit(f"{self.name} undisturbed: {whole}, {self.litter()}, {self.unfinished()}")
        for at in range(1, whole.calls + 1):
            for accident, (how, number) in ACCIDENTS.items():
                self.reset()
                ran = self.forks.run(self.action, self.place, at, how, number)
                found = [self.wrong()]
                if accident != "killed":
                    found += [f"{ran.code}: {ran.said[-300:]}" if ran.rude else None, *self.litter()]
                    if ran.code == 0:
                        found.append(self.unfinished())
                again = self.forks.run(self.action, self.place)
                found += [
                    f"again {again.code}: {again.said[-300:]}" if again.code else None,
                    self.unfinished(),
                ]
                found += [f"{name} is left" for name in self.litter()]
                self.violations += [f"{self.name}, call {at}, {accident}: {what}" for what in found if what]
        return {"calls": whole.calls, "violations": self.violations}


class New(Story):
    name = "a new result"

    def __init__(self, forks: Forks, work: Path, source: Path, new: dict[str, str]) -> None:
        super().__init__(forks, work)
        self.out, self.source, self.new = self.place / "out", source, new

    def action(self) -> None:
        command(
            "prune",
            self.source,
            "--scorer",
            "random",
            "--keep",
            5,
            "--seed",
            1,
            "-q",
            "-o",
            self.out,
            "--overwrite",
        )()

    def found(self) -> dict[str, str] | None:
        return tree(self.out)

    def wrong(self) -> str | None:
        return None if self.found() in (None, self.new) else "half a result"

    def unfinished(self) -> str | None:
        return None if self.found() == self.new else "not the result"


class Over(New):
    name = "over an earlier result"

    def __init__(self, forks: Forks, work: Path, source: Path, new: dict[str, str], old: Path) -> None:
        super().__init__(forks, work, source, new)
        self.old, self.before = old, tree(old)

    def reset(self) -> None:
        super().reset()
        shutil.copytree(self.old, self.out)

    def wrong(self) -> str | None:
        found = self.found()
        return None if found in (self.before, self.new) else f"{'no' if found is None else 'half a'} result"


class Store(Story):
    name = "the store"

    def action(self) -> None:
        from datapruner.errors import DataPrunerError
        from datapruner.signals.store import SignalStore, row_keys

        context = {"signal": "test"}
        contents = [f"row {number}".encode() for number in range(ROWS)]
        values = np.arange(2 * ROWS, dtype=np.float32).reshape(ROWS, 2)

        def compute(rows):
            for row in rows:
                yield np.array([row]), values[[row]]

        logging.disable(logging.CRITICAL)
        try:
            store = SignalStore(self.place, flush_rows=4)  # several shards
            found = store.fetch(row_keys(contents, context), context, 2, compute)
        except DataPrunerError as error:
            sys.stderr.write(f"{error}\n")
            raise SystemExit(2) from None
        if not np.array_equal(found, values):
            raise SystemExit(3)  # wrong numbers

    def wrong(self) -> str | None:
        return None


def main() -> None:
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    started = time.monotonic()
    try:
        # What the children need is loaded once, here.
        import datasets  # noqa: F401
        import pyarrow.parquet  # noqa: F401

        import datapruner.api
        import datapruner.cli
        import datapruner.outputs.dataset  # noqa: F401

        source = work / "rows.jsonl"
        source.write_text("".join(json.dumps({"text": f"row {number}"}) + "\n" for number in range(ROWS)))
        forks = Forks()
        made = {}
        for name, seed in (("old", 0), ("new", 1)):
            out = work / name / "out"
            ran = forks.run(
                command("prune", source, "--scorer", "random", "--keep", 5, "--seed", seed, "-q", "-o", out),
                work / "x",
            )
            if ran.code:
                raise SystemExit(f"the result to compare with: {ran}")
            made[name] = out
        new = tree(made["new"])
        stories = [
            New(forks, work, source, new),
            Over(forks, work, source, new, made["old"]),
            Store(forks, work),
        ]
        told = {story.name: story.tell() for story in stories}
        took = time.monotonic() - started
        print(json.dumps({"stories": told, "runs": forks.runs, "seconds": round(took, 1)}, indent=1))
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
