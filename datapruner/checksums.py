"""A digest of every file of a result, beside them: what is not as it was written is said, never used.

``checksums.txt`` has the format of ``xxhsum -H2``. It finds what disks, copies and edits do to a file; against somebody
who means harm, who could write the digests anew, it is no protection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import xxhash

from datapruner.cache import open_plain
from datapruner.errors import DataPrunerError
from datapruner.paths import exists, is_file
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


def check_file(file: Path) -> None:
    """Refuse a file that lies in a result of ours, where it is listed with another digest, or not at all.

    Parameters
    ----------
    file : Path
        Anything that is about to be read, by a link or not; what lies in no result is taken as it is, and what a user
        put beside a result's files, too.

    Raises
    ------
    DataPrunerError
        The file is not as the result's run wrote it.
    """
    for seen in _seen(file):
        for folder, wanted in _results(seen.parents):
            name = seen.relative_to(folder).as_posix()
            if name in wanted or name in _OURS or name.startswith(_INSIDE):
                _compare(seen, wanted.get(name))


def check_files(folder: Path, files: Iterable[Path]) -> None:
    """Refuse a folder of a result, whose data is about to be read, where files are gone or others were put.

    Parameters
    ----------
    folder : Path
        A result's own, or one inside it; any other is taken as it is.
    files : iterable of Path
        What is about to be read of it.

    Raises
    ------
    DataPrunerError
        A file of the data is not there, or one is that the result's run did not write.
    """
    files = list(files)
    for root, *given in zip(_seen(folder), *map(_seen, files), strict=False):
        for place, wanted in _results([root, *root.parents]):
            inside = root.relative_to(place).as_posix()
            inside = "data/" if inside == "." else f"{inside}/"
            gone = (name for name in wanted if name.startswith(inside) and name.startswith("data/"))
            for name in gone:
                if not (place / name).exists():
                    raise _other(place / name, f"is gone ({CHECKSUMS} of its result lists it)")
            for file in given:
                name = file.relative_to(place).as_posix() if file.is_relative_to(place) else str(file)
                if name not in wanted and (root == place or name.startswith("data/")):
                    raise _other(
                        file, f"is no file of the result that it lies in ({CHECKSUMS} does not list it)"
                    )


def _seen(file: Path) -> list[Path]:
    """Give a path as it is named and as it is; a result may hold links, and be led to by some."""
    try:
        return [file.absolute(), file.resolve()]
    except (OSError, RuntimeError):  # a loop: who opens it says so
        return [file.absolute(), file.absolute()]


def _results(folders: Sequence[Path]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Give the nearest folder that is a result of ours, and what its list names."""
    for folder in folders[:_DEEPEST]:
        listed = folder / CHECKSUMS
        wanted = _listed(listed)
        # Others' lists have this name too; ours may be damaged.
        result = wanted.keys() & _OURS or (
            is_file(folder / "recipe.yaml") and any(is_file(folder / table) for table in _TABLES)
        )
        if result and exists(listed):
            yield folder, wanted
            return


def _listed(file: Path) -> dict[str, str]:
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
