"""What a source's files were when they were read: who finds others at the end of a run says so and writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from datapruner.errors import DataPrunerError
from datapruner.files.fetching import identity_of
from datapruner.files.remote import is_url
from datapruner.text import safe_text

Stamp = tuple[int | str, ...]
"""A file's size in bytes, the time of its last change in nanoseconds, which anybody can set back, that of the last
change of its record, which nobody can, and its number on which disk; on an object store its size, and what the store
says of its content."""


def stamps(files: Iterable[Path]) -> dict[str, Stamp]:
    """Note what the system says of files; what is not there is left to whoever reads it."""
    found = {}
    for file in files:
        stamp = _stamp(file.absolute())
        if stamp is not None:
            found[str(file.absolute())] = stamp
    return found


def check_stamps(noted: Mapping[str, Stamp]) -> None:
    """Refuse to go on with rows whose file is another by now.

    Raises
    ------
    DataPrunerError
        A file is gone, is another one, or has another size or time.
    """
    for name, stamp in noted.items():
        now = identity_of(name) if is_url(name) else _stamp(Path(name))
        if now != stamp:
            sizes = (
                ""
                if now is None or now[0] == stamp[0]
                else f" (it had {stamp[0]:,} bytes and has {now[0]:,})"
            )
            what = "is gone" if now is None else f"changed{sizes}"
            raise DataPrunerError(
                f"{safe_text(name, 200)} {what} since it was read, so that nothing was written; run again, which goes "
                "on from what was measured, or give a copy that nobody writes to"
            )


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev
