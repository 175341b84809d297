"""What ``datapruner cache`` says and does."""

from __future__ import annotations

import time
from pathlib import Path

from datapruner.errors import DataPrunerError
from datapruner.files.cache import cache_at
from datapruner.guards.limits import size_of
from datapruner.signals.store.upkeep import Done, Held, prune, survey, verify
from datapruner.text import safe_text

ACTIONS = ("show", "prune", "verify")


def carry_out(
    action: str, to: str | None, unused: float | None, folder: str | Path | None, *, dry_run: bool = False
) -> str:
    """Do it, and give what is said of it.

    Raises
    ------
    DataPrunerError
        There is no such action, or it lacks what it needs.
    """
    root = str(cache_at(folder))
    if action not in ACTIONS:
        raise DataPrunerError(f"datapruner cache takes {', '.join(ACTIONS)}, not '{safe_text(action, 40)}'")
    if action != "prune" and (to is not None or unused is not None):
        raise DataPrunerError("--to and --unused say what `datapruner cache prune` drops")
    if action == "show":
        return shown(root, survey(folder))
    if action == "verify":
        done = verify(folder, dry_run=dry_run)
        return _told(root, done, "damaged: ", dry_run, "; the next run computes their rows again")
    if to is None and unused is None:
        raise DataPrunerError("say what may stay: --to=20GB, or --unused=30 (days)")
    if unused is not None and not unused >= 0:
        raise DataPrunerError("--unused is a number of days, from 0")
    most = None if to is None else size_of(to, "--to")
    return _told(root, prune(folder, to=most, unused_days=unused, dry_run=dry_run), "", dry_run, "")


def shown(root: str, held: list[Held]) -> str:
    """Give the table of what lies there, what was used last first."""
    total = sum(one.bytes for one in held)
    lines = [f"cache {safe_text(root)}: {size(total)} of signals in {len(held)} folders"]
    if held:
        lines += ["", f"{'rows':>12} {'shards':>10} {'copies':>10} {'last used':>12}  what"]
    for one in held:
        shards, copies = sum(one.files.values()), sum(one.copies.values())
        what = safe_text(str(one.context.get("signal", "unknown")), 60) + ", being computed" * one.busy
        lines.append(
            f"{one.rows:>12,} {size(shards):>10} {size(copies):>10} {_ago(one.used):>12}  {what} "
            f"({one.shelf.folder.name})"
        )
    return "\n".join(lines)


def size(number: int) -> str:
    """Give bytes in words."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= factor:
            return f"{number / factor:,.1f} {unit}"
    return f"{number} B"


def _ago(moment: float) -> str:
    if not moment:
        return "never"
    seconds = max(time.time() - moment, 0)
    for unit, factor in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:,.0f} {unit}"
    return "now"


def _told(root: str, done: Done, what: str, dry_run: bool, then: str) -> str:
    verb = "would go" if dry_run else "removed"
    said = f"{safe_text(root)}: {done.looked_at:,} files looked at; {what}"
    said += f"{len(done.removed):,} files, {size(done.bytes)} {verb}{then if done.removed else ''}"
    if done.left:
        names = ", ".join(safe_text(str(path), 200) for path in done.left[:3])
        said += f"\n{len(done.left):,} cannot be read, or are not ours to remove, and stay: {names}"
    return said
