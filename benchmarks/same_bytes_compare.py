"""What differs between two records of ``same_bytes.py``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def differences(
    before: dict[str, Any], after: dict[str, Any], only: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """What is another: what counts, and what may be reworded.

    Of a record of recipes, the runs that it holds are looked at, and of them what a recipe decides.
    """
    again = bool(after["recipes"])
    counts: list[str] = []
    reworded: list[str] = []
    for name in only or dict.fromkeys([*before["runs"], *after["runs"]]):
        old, new = (_nested(held["runs"], name) for held in (before, after))
        if new is None or old is None:
            if new is not None or not again:
                counts.append(f"{name}: the run is in one record only")
            continue
        if old["code"] != new["code"]:
            counts.append(f"{name}: exit code {old['code']}, then {new['code']}")
        for kind, told in (("files", counts), ("shown", reworded)):
            for file in sorted({*old[kind], *new[kind]}):
                first, second = old[kind].get(file), new[kind].get(file)
                if first != second and not (again and kind == "shown"):
                    told.append(f"{name}: {file}: {_how(old, new, file, first, second)}")
        if old["said"] != new["said"] and not again:
            reworded.append(f"{name}: what was printed")
    return counts, reworded


def _nested(held: dict[str, Any], name: str) -> dict[str, Any] | None:
    """A run, or a result in a folder of its own below a run's."""
    if name in held:
        return dict(held[name])
    run, _, below = name.partition("/")
    if not below or run not in held:
        return None
    inside = {
        kind: {
            file.removeprefix(f"{below}/"): value
            for file, value in held[run][kind].items()
            if file.startswith(f"{below}/")
        }
        for kind in ("files", "shown", "columns")
    }
    return {**inside, "code": held[run]["code"], "said": ""}


def _how(old: dict[str, Any], new: dict[str, Any], file: str, first: str | None, second: str | None) -> str:
    if first is None or second is None:
        return "only written before" if second is None else "only written after"
    one, two = old["columns"].get(file), new["columns"].get(file)
    if one is None or two is None:
        return "other bytes"
    moved = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
    if moved:
        return f"other columns: {', '.join(moved)}"
    return "the same values and types in other bytes" + (
        "" if list(one) == list(two) else ", in another order"
    )


def compare(before: Path, after: Path, only: Sequence[str], *, strict: bool) -> int:
    """Print what differs; the exit code."""
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    for key in ("python", "machine", "cpu", "libraries"):
        if old["about"][key] != new["about"][key]:
            print(f"another {key}, so that bytes may differ: {old['about'][key]}, then {new['about'][key]}")
    if old["sources"] != new["sources"]:
        print("THE SOURCES DIFFER, so nothing can be said of the runs")
        return 1
    counts, reworded = differences(old, new, only)
    for title, found in (("differ", counts), ("may be reworded on purpose, and differ", reworded)):
        print(f"{len(found)} {title}")
        print("".join(f"  {line}\n" for line in found), end="")
    return int(bool(counts or (strict and reworded)))
