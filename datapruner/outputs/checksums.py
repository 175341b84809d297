"""A digest of every file of a result, beside them: what is not as it was written is said, never used.

``checksums.txt`` has the format of ``xxhsum -H2``. It finds what disks, copies and edits do to a file; against somebody
who means harm, who could write the digests anew, it is no protection.
"""

from __future__ import annotations

from pathlib import Path

import xxhash

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

CHECKSUMS = "checksums.txt"


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
    try:
        listed = folder / CHECKSUMS  # a pipe would be waited for
        said = "" if listed.exists() and not listed.is_file() else listed.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        said = ""
    wanted = {name: hashed for hashed, _, name in (line.partition("  ") for line in said.split("\n"))}
    for name in names:
        file = folder / name
        try:
            same = not file.exists() or (file.is_file() and digest(file) == wanted.get(name))
        except OSError as error:
            raise DataPrunerError(f"{file} cannot be read: {error.strerror}") from error
        if not same:
            raise DataPrunerError(
                f"{safe_text(str(file))} is not as it was written ({CHECKSUMS} beside it has another digest): make it "
                f"again, or remove {CHECKSUMS} to take the folder as it is now"
            )
