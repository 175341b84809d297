"""Results on an object store: built whole on this machine, then put file by file.

The list of digests goes first, so that data is held against it, and the file that marks the result as whole last. It is
put beside what lies there, and copied over that once it is whole (:mod:`datapruner.files.staging`).

A store has no locks, and two runs may write to one address at the same time. Each looks at the end whether what lies
there is what it wrote, by what the store says of each file, and writes all of it again where it is not; so whichever
ends last has its result there, whole. Of files that both wrote at a time some may be of one run and some of the other;
these are not taken for a result, since they are not what the list of digests says.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from datapruner.errors import DataPrunerError
from datapruner.files.checksums import CHECKSUMS
from datapruner.files.fetching import Identity, fetch, identity_of, listed
from datapruner.files.objects import ObjectFolder
from datapruner.files.paths import expanded
from datapruner.files.remote import address_of, check_url, is_url, label_of
from datapruner.files.staging import LAST, is_whole, new_name, parted, settled
from datapruner.files.temporary import private_folder
from datapruner.samples.remote import TABLES
from datapruner.text import safe_text

ROUNDS = 5
"""Times that a result is put, where another run writes to its address each time."""


def check_address(
    url: str, ours: Iterable[re.Pattern[str]], *, overwrite: bool, reads: Iterable[str]
) -> None:
    """Refuse an address where a result could not be put at the end.

    Parameters
    ----------
    url : str
    ours : iterable of pattern
        The names that a result's files have; a folder that holds anything else is never replaced.
    overwrite : bool
        An earlier result, or a part of one, may be replaced.
    reads : iterable of str
        What the run reads.

    Raises
    ------
    DataPrunerError
        Something is there, or the bucket is not.
    """
    label = label_of(check_url(url))
    folder = ObjectFolder.of(url)
    inside = [name for name in reads if is_url(name) and f"{name.rstrip('/')}/".startswith(f"{folder.url}/")]
    listed = folder.tree()
    try:
        bucket = url.split("/")[2]
        if not url.startswith("memory://") and _kind(folder, bucket) is None:
            raise DataPrunerError(
                f"the output {label} cannot be written: there is no bucket '{safe_text(bucket, 100)}'"
            )
        if _kind(folder, folder.url) == "file":
            raise DataPrunerError(f"the output {label} is a file; name a folder that does not exist yet")
    except OSError as error:
        raise DataPrunerError(f"the output {label} cannot be written: {error.strerror or error}") from None
    if not listed:
        return
    own, staged = parted(listed)
    found = [*own, *(name for files in staged.values() for name in files)]
    if inside:
        raise DataPrunerError(
            f"the output folder {label} would replace {label_of(inside[0])}, which is read; name another"
        )
    fits = [pattern for pattern in ours if all(pattern.fullmatch(name) for name in found)]
    if not fits:
        other = next(name for name in found if not any(pattern.fullmatch(name) for pattern in ours))
        raise DataPrunerError(
            f"the output folder {label} holds other files ({safe_text(other, 60)}); name one that is empty or does not "
            "exist"
        )
    if not overwrite:
        raise DataPrunerError(
            f"the output folder {label} holds an earlier result, or a part of one; pass --overwrite to replace it"
        )


def _kind(folder: ObjectFolder, path: str) -> str | None:
    """Tell what a store says that a path is; None where nothing is there."""
    try:
        return str(folder.call(lambda fs: fs.info(path))["type"])
    except FileNotFoundError:
        return None
    except PermissionError:  # who may not look at a bucket may be allowed to put into it
        return ""


def upload(made: Path, url: str) -> None:
    """Put a finished folder; an earlier result goes once this one is whole on the store.

    It is put under a name that nobody else uses, also where nothing is there yet: a put, or a removal, that a store
    carries out long after it was given up and made again then meets no file of a later result.

    Raises
    ------
    DataPrunerError
        The store cannot be written, or does not hold what was put.
    """
    folder = ObjectFolder.of(url)
    files = {path.relative_to(made).as_posix(): path for path in sorted(made.rglob("*")) if path.is_file()}
    try:
        _replace(files, folder)
    except OSError as error:
        raise DataPrunerError(
            f"the output folder {folder} cannot be written: {error.strerror or error}"
        ) from error


def _replace(files: Mapping[str, Path], folder: ObjectFolder) -> None:
    """Replace what lies in a folder, again where another run writes there meanwhile."""
    for attempt in range(ROUNDS):
        began = time.monotonic()
        if _is_replaced(files, folder):
            return
        # Two runs that take turns would never end; one that waits longer than the other takes lets it.
        time.sleep(secrets.SystemRandom().uniform(0, 2**attempt) * (time.monotonic() - began))
    raise DataPrunerError(
        f"another run writes into the output folder {folder} at the same time, and neither ends; write the result again"
    )


def _is_replaced(files: Mapping[str, Path], folder: ObjectFolder) -> bool:
    """Put files beside an earlier result, and copy them over it once all are there; whether nobody else wrote there."""
    own, staged = parted(folder.tree())
    new = folder / new_name()
    try:
        _put(files, new)
    except BaseException:
        with suppress(OSError, DataPrunerError):  # where that fails the next run removes it
            _discard(new, files)
        raise
    copied = {}
    try:
        for name in sorted(files, key=_turn):
            new.copy(name, folder)
            copied[name] = identity_of(f"{folder.url}/{name}")
    except FileNotFoundError:  # a run that began later took it for what a dead one had left
        _discard(new, files)
        return False
    _discard(folder, [name for name in own if name not in files])
    if not _lies(folder, files, copied):
        return False
    for other, names in {new.name: files, **staged}.items():
        _discard(folder / other, names)
    return True


def _put(files: Mapping[str, Path], folder: ObjectFolder) -> None:
    """Put files, and see that each has its size; one that is gone another run took for what a dead one had left."""
    for name in sorted(files, key=_turn):
        folder.put_file(name, files[name])
        found = identity_of(f"{folder.url}/{name}")
        if found is not None and found[0] != files[name].stat().st_size:
            raise DataPrunerError(f"{folder}/{safe_text(name, 60)} is not what was put; write it again")


def _lies(folder: ObjectFolder, files: Mapping[str, Path], put: Mapping[str, Identity | None]) -> bool:
    """Whether a folder holds files as they were just put, and nothing else: nobody else wrote there meanwhile."""
    found = listed(folder.url)
    there = {name: found.stamp_of(name) for name in parted(found.files)[0]}
    return there == put and all(there[name][0] == path.stat().st_size for name, path in files.items())


def _discard(folder: ObjectFolder, names: Iterable[str]) -> None:
    """Remove files, the one that marks a result as whole first."""
    for name in sorted(names, key=lambda name: name not in LAST):
        if not folder.discard(name):
            raise DataPrunerError(f"{folder}/{safe_text(name, 60)} cannot be removed; write the result again")


def _turn(name: str) -> tuple[int, str]:
    """Give a file's place among those that are put: data follows what says that it belongs to a result."""
    return (0 if name == CHECKSUMS else 1 if name in TABLES else 3 if name in LAST else 2), name


def brought(path: str | Path) -> Path:
    """Give the folder of a result: of an address a private copy, else the path as it is.

    Raises
    ------
    DataPrunerError
        Nothing is there, or what is there is not whole.
    """
    url = address_of(path)
    if url is None:
        return expanded(Path(path))
    found = settled(listed(check_url(url)))
    if not found.is_folder or not is_whole(found.files):
        raise DataPrunerError(
            f"{label_of(url)} holds no result of datapruner that is whole: its upload was interrupted, or it is "
            "something else"
        )
    folder = private_folder() / (Path(url).name or "out")
    folder.mkdir()
    fetch(found, found.files, folder)
    return folder
