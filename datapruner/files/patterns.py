"""Find files by a pattern, as :mod:`glob` does, but each folder once and within limits."""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from datapruner.errors import DataPrunerError
from datapruner.guards.limits import limit, over

Place = tuple[int, int]
MARKS = re.compile(r"[*?[]")


class Search:
    """Counts what was looked at, and ends a search that has no end.

    Parameters
    ----------
    label
        What is looked through, for the sentence.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.looked_at = 0
        self.until = time.monotonic() + limit("search_seconds")

    def entries(self, folder: str) -> list[os.DirEntry[str]]:
        """List a folder by name; one that cannot be read is empty.

        Raises
        ------
        DataPrunerError
            Too much was looked at, or for too long.
        """
        found = []
        try:
            with os.scandir(folder or ".") as listed:
                for entry in listed:
                    self.looked_at += 1
                    if self.looked_at > limit("searched"):
                        raise over(f"'{self.label}' is looked for in", "more files and folders", "searched")
                    if not self.looked_at % 100 and time.monotonic() > self.until:
                        raise over(f"'{self.label}' is looked for", "for more seconds", "search_seconds")
                    found.append(entry)
        except OSError:
            return []
        return sorted(found, key=lambda entry: entry.name)


def place_of(folder: str) -> Place | None:
    """Return where a folder lies on which disk, whatever its name; None where it cannot be reached."""
    try:
        found = os.stat(folder or ".")  # noqa: PTH116 - as the entries are
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_new(folder: str, seen: set[Place]) -> bool:
    """Whether a folder was not met before, under whatever name: a link may lead back to where one is."""
    here = place_of(folder)
    if here is None or here in seen:
        return False
    seen.add(here)
    return True


def files_of(pattern: str, label: str, most: str = "files") -> list[Path]:
    """Return the files that a pattern matches, by name; ``**`` stands for any folders, and meets each once.

    Parameters
    ----------
    pattern, label
        The second is the first as it is shown.
    most
        The limit of how many they may be.

    Raises
    ------
    DataPrunerError
        There are too many, or the search takes too long.
    """
    search = Search(label)
    found: dict[str, None] = {}
    start = os.path.abspath(os.sep) if os.path.isabs(pattern) else ""  # noqa: PTH100, PTH117
    parts = [part for part in Path(pattern).parts if part != Path(pattern).anchor]
    try:
        for name in _matches(start, parts, search):
            if Path(name).is_file():
                found[name] = None
                if len(found) > limit(most):
                    raise over(f"'{label}' matches", "more files", most)
    except RecursionError:
        raise DataPrunerError(f"'{label}' leads into folders inside each other beyond all measure.") from None
    return sorted(map(Path, found))


def _matches(folder: str, parts: list[str], search: Search) -> Iterator[str]:
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        while rest[:1] == ["**"]:
            rest = rest[1:]
        yield from _below(folder, rest or ["*"], search, set())
    elif not MARKS.search(part):
        path = os.path.join(folder, part)  # noqa: PTH118 - "" is the working folder
        if os.path.lexists(path):
            yield from _matches(path, rest, search)
    else:
        for entry in search.entries(folder):
            if _fits(entry.name, part) and (not rest or entry.is_dir()):
                yield from _matches(os.path.join(folder, entry.name), rest, search)  # noqa: PTH118


def _below(folder: str, rest: list[str], search: Search, seen: set[Place]) -> Iterator[str]:
    if not is_new(folder, seen):
        return
    yield from _matches(folder, rest, search)
    for entry in search.entries(folder):
        if not entry.name.startswith(".") and entry.is_dir():
            yield from _below(os.path.join(folder, entry.name), rest, search, seen)  # noqa: PTH118


def _fits(name: str, part: str) -> bool:
    return fnmatch.fnmatch(name, part) and (part.startswith(".") or not name.startswith("."))
