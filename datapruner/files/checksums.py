"""A digest of every file of a result, beside them: what is not as it was written is said, never used.

``checksums.txt`` has the format of ``xxhsum -H2``. It finds what disks, copies and edits do to a file; against somebody
who means harm, who could write the digests anew, it is no protection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import xxhash

from datapruner.errors import DataPrunerError
from datapruner.files.cache import open_plain
from datapruner.files.paths import exists, is_file
from datapruner.text import safe_text

CHECKSUMS = "checksums.txt"
_LINE = re.compile(r"([0-9a-f]{32})  (.+)")
_OURS = {"recipe.yaml", "comparison.json", "stability.json", "damage.json"}
_TABLES = ("selection.parquet", "scores.parquet")
_INSIDE = ("data/", "state/")
"""Folders of a result, in which all is ours."""
_MOST = 64 << 20
"""Bytes of a list: a million files."""
_DEEPEST = 3
"""Folders between a file of a result and the result's own, that one counted: ``data/train/x.arrow``."""


Lists = dict[Path, Mapping[str, str]]
"""Lists that were read, by their path: name -> digest."""


class _Result(NamedTuple):
    """A result of ours: its folder, and the digest that its list names for each file."""

    folder: Path
    wanted: Mapping[str, str]


def digest(file: Path) -> str:
    """Hash a file: XXH3, 128 bits, hexadecimal."""
    hashed = xxhash.xxh3_128()
    with file.open("rb") as handle:
        while chunk := handle.read(1 << 24):
            hashed.update(chunk)
    return hashed.hexdigest()


def write_checksums(folder: Path) -> None:
    """Write the digest of every file below a folder, in the order of their names."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = (f"{digest(folder / name)}  {name}\n" for name in files if name != CHECKSUMS)
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def check(folder: Path, *names: str) -> None:
    """Refuse files of a result that are not as they were written.

    Parameters
    ----------
    folder : Path
        A result; one without ``checksums.txt`` is taken as it is.
    *names : str
        Files that are about to be read, as seen from the folder; one that is not there is left to its reader.

    Raises
    ------
    DataPrunerError
        A file has another digest, or none is written for it.
    """
    listed = folder / CHECKSUMS
    try:
        if not listed.exists():
            return
    except OSError as error:
        raise _unreadable(listed, error) from error
    wanted = _listed(listed)
    for name in names:
        _compare(folder / name, wanted.get(name))


def check_file(file: Path, lists: Lists | None = None) -> None:
    """Refuse a file that lies in a result of ours, where it is listed with another digest, or not at all.

    Parameters
    ----------
    file : Path
        Anything that is about to be read, by a link or not; what lies in no result is taken as it is, and what a user
        put beside a result's files, too.
    lists : dict, optional
        What was read for other files: whoever checks many hands on the same, and each list is read once.

    Raises
    ------
    DataPrunerError
        The file is not as the result's run wrote it.
    """
    for seen in _ways(file):
        found = _result_around(seen.parents, lists)
        if found is None:
            continue
        name = seen.relative_to(found.folder).as_posix()
        if name in found.wanted or name in _OURS or name.startswith(_INSIDE):
            _compare(seen, found.wanted.get(name))


def check_files(folder: Path, files: Iterable[Path]) -> None:
    """Refuse a folder of a result, whose data is about to be read, where files are gone or others were put.

    Parameters
    ----------
    folder : Path
        A result's own, or one inside it; any other is taken as it is.
    files : iterable of Path
        What is about to be read of it; each may be a link, as in what the client of the hub fetches.

    Raises
    ------
    DataPrunerError
        A file of the data is not there, or one is that the result's run did not write.
    """
    lists: Lists = {}
    names = [file.relative_to(folder) for file in files]
    for root in _ways(folder):
        found = _result_around([root, *root.parents], lists)
        if found is not None:
            _check_gone(found, root)
            _check_put_in(found, root, [root / name for name in names])


def _check_gone(result: _Result, root: Path) -> None:
    """Refuse a result of whose data, as far as it lies in a folder, a file is not there."""
    inside = "data/" if root == result.folder else f"{root.relative_to(result.folder).as_posix()}/"
    for name in result.wanted:
        if name.startswith(inside) and name.startswith("data/") and not (result.folder / name).exists():
            raise _other(result.folder / name, f"is gone ({CHECKSUMS} of its result lists it)")


def _check_put_in(result: _Result, root: Path, files: Iterable[Path]) -> None:
    """Refuse files among a result's data that it does not list."""
    for file in files:
        name = file.relative_to(result.folder).as_posix()
        if name not in result.wanted and (root == result.folder or name.startswith("data/")):
            raise _other(file, f"is no file of the result that it lies in ({CHECKSUMS} does not list it)")


def _ways(file: Path) -> tuple[Path, Path]:
    """Give a path as it is named and as it is; a result may hold links, and be led to by some."""
    try:
        return file.absolute(), file.resolve()
    except (OSError, RuntimeError):  # a loop: who opens it says so
        return file.absolute(), file.absolute()


def _result_around(folders: Sequence[Path], lists: Lists | None) -> _Result | None:
    """Give the nearest folder that is a result of ours, and what its list names."""
    lists = {} if lists is None else lists
    for folder in folders[:_DEEPEST]:
        listed = folder / CHECKSUMS
        if listed not in lists:
            lists[listed] = _listed(listed)
        wanted = lists[listed]
        # Others' lists have this name too; ours may be damaged.
        ours = wanted.keys() & _OURS or (
            is_file(folder / "recipe.yaml") and any(is_file(folder / table) for table in _TABLES)
        )
        if ours and exists(listed):
            return _Result(folder, wanted)
    return None


def _listed(file: Path) -> Mapping[str, str]:
    """Read names and their digests; nothing where it cannot be read, no digest where two are given."""
    try:
        with open_plain(file) as handle:
            raw = handle.read(_MOST + 1)
        said = raw.decode("utf-8") if len(raw) <= _MOST else ""
    except (OSError, UnicodeDecodeError):
        return {}
    wanted: dict[str, str] = {}
    for line in filter(None, map(_LINE.fullmatch, said.replace("\r\n", "\n").split("\n"))):
        wanted[line[2]] = line[1] if wanted.get(line[2], line[1]) == line[1] else ""
    return wanted


def _compare(file: Path, wanted: str | None) -> None:
    try:
        same = not file.exists() or (file.is_file() and digest(file) == wanted)
    except OSError as error:
        raise _unreadable(file, error) from error
    if not same:
        has = "another digest" if wanted else "no digest for it, or several"
        raise _other(file, f"is not as it was written ({CHECKSUMS} of its folder has {has})")


def _other(file: Path, what: str) -> DataPrunerError:
    return DataPrunerError(
        f"{safe_text(str(file))} {what}: make it again, or remove {CHECKSUMS} to take the folder as it is now"
    )


def _unreadable(file: Path, error: OSError) -> DataPrunerError:
    return DataPrunerError(f"{safe_text(str(file))} cannot be read: {error.strerror}")
