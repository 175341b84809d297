"""Imported by every Python that has this folder on its PYTHONPATH: what a run and its workers do can be seen outside.

In the folder ``WATCHED``: ``computed`` gets a line for every batch of rows that anybody computes (process, shelf, hash
of each row's key), and ``points`` one for every point that the run itself passes in a phase. At the points of
``WATCHED_AT`` (``embedding 2,writing 0``) it stops until whoever watches has removed ``here``: so the moment of a kill
is a place in the run, and no clock decides what it hits. Points of a phase are told apart by their number.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

FOLDER = os.environ.get("WATCHED")
AT = os.environ.get("WATCHED_AT", "").split(",")
KINDS = {"embedder": "embedding", "language model": "language model"}
_passed: Counter[str] = Counter()


def note(name: str, line: dict[str, Any]) -> None:
    """Add a line in one call, so that those of several processes stay apart."""
    handle = os.open(Path(FOLDER or "", name), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, json.dumps(line).encode() + b"\n")
    os.close(handle)


def point(phase: str) -> None:
    """Pass a point of a phase: in the run itself, not in its workers."""
    if not sys.argv[0].endswith(os.path.join("datapruner", "__main__.py")):  # noqa: PTH118
        return
    name = f"{phase} {_passed[phase]}"
    _passed[phase] += 1
    note("points", {"point": name})
    if name in AT:
        here = Path(FOLDER or "", "here")
        here.with_name("arriving").write_text(name)
        here.with_name("arriving").rename(here)
        while here.exists():
            time.sleep(0.002)


def around(module: Any, name: str, phase: str) -> None:
    """Have a point before a function and one after it."""
    call = getattr(module, name)

    def passing(*given: Any, **more: Any) -> Any:
        point(phase)
        answer = call(*given, **more)
        point(phase)
        return answer

    setattr(module, name, passing)


def pool(module: Any) -> None:
    """Have a point where a model's rows are handed to workers, and one for every block that comes back."""
    fill, bar, cut = module.Pool.fill, module.bar, module.Pool._blocks
    phases: list[str] = []

    def filled(self: Any, name: str | None) -> None:
        model = self.steps[name].measurement.model(self.run.recipe) if name in self.steps else None
        phases.append(KINDS.get(model, ""))
        try:
            fill(self, name)
        finally:
            phases.pop()

    def shown(*given: Any, **more: Any) -> Any:
        made = bar(*given, **more)
        phase, update = phases[-1], made.update
        if phase:
            point(phase)
            made.update = lambda n=1: (update(n), point(phase))[0]
        return made

    def blocks(self: Any, name: str | None, rows: Any) -> Any:
        made = cut(self, name, rows)
        note("blocks", {"measurement": name, "rows": max(len(block.rows) for block in made)})
        return made

    module.Pool.fill, module.bar, module.Pool._blocks = filled, shown, blocks


def filling(module: Any) -> None:
    """Note every row that is computed, as it is put down to be written."""
    put = module.Filling.put

    def noted(self: Any, positions: Any, values: Any) -> None:
        keys = [self.keys[at].hex() for at in positions[self.lacking[positions]].tolist()]
        if keys:
            note("computed", {"process": os.getpid(), "shelf": self.shelf.folder.name, "keys": keys})
        put(self, positions, values)

    module.Filling.put = noted


HOOKS = {
    "datapruner.signals.store.filling": filling,
    "datapruner.measuring.pool": pool,
    "datapruner.cleaning.stage": lambda module: around(module, "checked", "cleaning"),
    "datapruner.geometry.clustering": lambda module: (
        around(module, "_train", "clustering"),
        around(module, "_assign", "clustering"),
    ),
    "datapruner.outputs.dataset": lambda module: (
        around(module, "kept_splits", "writing"),
        around(module, "write_split", "writing"),
        around(module, "write_table", "writing"),
    ),
    "datapruner.outputs.folder": lambda module: (
        around(module, "write_checksums", "writing"),
        around(module, "place", "writing"),
    ),
}


class Finder:
    """Finds what the others find, and hooks what is watched once it is loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in HOOKS:
            return None
        spec = next(
            (
                found
                for finder in sys.meta_path
                if finder is not self and (found := finder.find_spec(name, path, target)) is not None
            ),
            None,
        )
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def loaded(module: Any) -> None:
                load(module)
                HOOKS[name](module)

            spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec


if FOLDER:
    # As from a terminal: what a shell starts in the background ignores it, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
