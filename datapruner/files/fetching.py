"""Files of an object store come to this machine: listed, fetched piece by piece, and known again."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.files.objects import ObjectFolder
from datapruner.files.remote import label_of
from datapruner.guards.limits import limit, over
from datapruner.text import safe_text

PIECE = 32 << 20
"""Bytes that are fetched at a time, and again where that fails."""
MARKS = "*?["
_IDENTITY = (
    "ETag",
    "etag",
    "md5Hash",
    "crc32c",
    "content_md5",
    "generation",
    "LastModified",
    "mtime",
    "created",
)
"""What stores say of a file's content, or else of when it was put; the first of them that is there."""

Identity = tuple[int, str]
"""A file's size in bytes, and what its store says of its content."""


@dataclass(frozen=True)
class Listed:
    """What an address names.

    Attributes
    ----------
    base : str
        The address of the folder in which the files lie.
    files : mapping
        Path below it -> what the store says of the file.
    is_folder : bool
        The address names the folder itself.
    """

    base: str
    files: Mapping[str, Mapping[str, Any]]
    is_folder: bool

    def url_of(self, name: str) -> str:
        """Give a file's address."""
        return f"{self.base}/{name}"

    def stamp_of(self, name: str) -> Identity:
        """Tell what a file was when it was listed."""
        return _identity(self.files[name])


def listed(url: str) -> Listed:
    """List what an address names: a file, what a pattern matches, or all that lies in a folder.

    Raises
    ------
    DataPrunerError
        Nothing is there, it cannot be reached, or there is too much.
    """
    label = label_of(url)
    scheme, _, path = url.rstrip("/").partition("://")
    try:
        if any(mark in path for mark in MARKS):
            parts = path.split("/")
            fixed = next(place for place, part in enumerate(parts) if any(mark in part for mark in MARKS))
            base = "/".join(parts[:fixed])
            found = ObjectFolder(url).call(
                lambda fs: _matched(fs, f"{scheme}://{base}", "/".join(parts[fixed:]))
            )
            return _below(scheme, base, found, label, is_folder=False)
        info = ObjectFolder(url).call(lambda fs: fs.info(url))
        if info.get("type") == "file":
            return _below(scheme, path.rpartition("/")[0], {path: info}, label, is_folder=False)
        found = ObjectFolder(url).call(lambda fs: fs.find(url, detail=True))
        return _below(scheme, path, found, label, is_folder=True)
    except FileNotFoundError:
        raise DataPrunerError(f"There is no such file, folder or bucket: '{label}'.") from None
    except OSError as error:
        raise DataPrunerError(f"{label} cannot be read ({error.strerror or error})") from None


def _matched(fs: Any, base: str, pattern: str) -> dict[str, Any]:
    """Give the files below a folder that a pattern matches.

    By listings of which none fails unseen: those of ``fs.glob`` leave out what could not be listed.
    """
    from fsspec.utils import glob_translate

    deep = "/" in pattern or "**" in pattern
    listed = fs.find(base, detail=True).values() if deep else fs.ls(base, detail=True)
    fits = re.compile(glob_translate(f"{fs._strip_protocol(base)}/{pattern}".lstrip("/")))
    files = {info["name"]: info for info in listed if info.get("type") == "file"}
    return {name: info for name, info in files.items() if fits.match(name.lstrip("/"))}


def _below(scheme: str, base: str, found: Mapping[str, Any], label: str, *, is_folder: bool) -> Listed:
    """Name files as seen from a folder; refuse names that would lead out of a folder of this machine."""
    if not found:
        raise DataPrunerError(f"There is no such file: nothing lies in, or matches '{label}'.")
    if len(found) > limit("files"):
        raise over(label, "names more files", "files")
    start = base.strip("/")
    files = {}
    for path, info in found.items():
        whole = path.strip("/")
        name = whole[len(start) :].strip("/") if whole.startswith(start) else ""
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or any(len(part) > 200 or not part.isprintable() for part in parts):
            raise DataPrunerError(f"{label} holds a file whose name cannot be taken: {safe_text(path, 100)}")
        files["/".join(parts)] = info
    return Listed(f"{scheme}://{base}".rstrip("/"), files, is_folder)


def fetch(found: Listed, names: Iterable[str], target: Path) -> None:
    """Fetch files into a folder of this machine.

    Raises
    ------
    DataPrunerError
        There is no room, a file is gone, or is another by now.
    """
    names = list(names)
    size = sum(int(found.files[name].get("size") or 0) for name in names)
    free = shutil.disk_usage(target).free
    if size > free:
        raise DataPrunerError(
            f"{label_of(found.base)} has {size / 1e9:,.1f} GB to be fetched, and {target.parent} has room for "
            f"{free / 1e9:,.1f}; make room there, or name another folder with TMPDIR"
        )
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(ObjectFolder(found.base), name, int(found.files[name].get("size") or 0), path)


def _fetch(folder: ObjectFolder, name: str, size: int, path: Path) -> None:
    label = f"{folder}/{safe_text(name, 100)}"
    try:
        with path.open("wb") as out:
            for start in range(0, size, PIECE):
                piece = folder.read(name, start, min(start + PIECE, size))
                if len(piece) != min(PIECE, size - start):
                    raise DataPrunerError(f"{label} changed while it was read; run again")
                out.write(piece)
    except FileNotFoundError:
        raise DataPrunerError(f"{label} is gone since it was listed; run again") from None
    except OSError as error:
        raise DataPrunerError(f"{label} cannot be fetched ({error.strerror or error})") from error


def identity_of(url: str) -> Identity | None:
    """Tell what a file on an object store is now; None where it is gone."""
    try:
        return _identity(ObjectFolder(url).call(lambda fs: fs.info(url)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataPrunerError(f"{label_of(url)} cannot be read ({error.strerror or error})") from None


def _identity(info: Mapping[str, Any]) -> Identity:
    said = next((info[name] for name in _IDENTITY if info.get(name)), "")
    # A listing may have the same moment in another form.
    return int(info.get("size") or 0), str(said.timestamp() if isinstance(said, datetime) else said)
