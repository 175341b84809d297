"""A digest of every file of a result, beside them: what is not as it was written is said, never used.

``checksums.txt`` has the format of ``xxhsum -H2``. It finds what disks, copies and edits do to a file; against somebody
who means harm, who could write the digests anew, it is no protection.
"""

from __future__ import annotations

import re
from pathlib import Path

import xxhash

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

CHECKSUMS = "checksums.txt"
_LINE = re.compile(r"([0-9a-f]{32})  (.+)")
_OURS = {"recipe.yaml", "comparison.json", "stability.json", "damage.json"}
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


def as_written(file: Path) -> None:
    """Refuse a file that lies in a result of ours, where it is listed with another digest.

    Parameters
    ----------
    file : Path
        Anything that is about to be read; what lies in no result, or is not listed there, is taken as it is.

    Raises
    ------
    DataPrunerError
        The file is not as the result's run wrote it.
    """
    file = file.absolute()
    for folder in file.parents[:_DEEPEST]:
        wanted = _listed(folder / CHECKSUMS)
        if wanted.keys() & _OURS:  # others' lists of digests have this name too
            name = file.relative_to(folder).as_posix()
            if name in wanted:
                _compare(file, wanted[name])
            return


def _listed(file: Path) -> dict[str, str]:
    """Read names and their digests; nothing where it cannot be read."""
    try:
        said = file.read_text(encoding="utf-8") if file.is_file() else ""  # a pipe would be waited for
    except (OSError, UnicodeDecodeError):
        return {}
    found = (_LINE.fullmatch(line) for line in said.split("\n"))
    return {line[2]: line[1] for line in found if line}


def _compare(file: Path, wanted: str | None) -> None:
    try:
        same = not file.exists() or (file.is_file() and digest(file) == wanted)
    except OSError as error:
        raise _unreadable(file, error) from error
    if not same:
        raise DataPrunerError(
            f"{safe_text(str(file))} is not as it was written ({CHECKSUMS} of its folder has another digest): make it "
            f"again, or remove {CHECKSUMS} to take the folder as it is now"
        )


def _unreadable(file: Path, error: OSError) -> DataPrunerError:
    return DataPrunerError(f"{safe_text(str(file))} cannot be read: {error.strerror}")
