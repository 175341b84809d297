"""Small facts that a run leaves for the next one: what a file's bytes hash to, what opening a model showed.

A note is never needed: where it is missing, damaged or cannot be written, the fact is found out again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import xxhash

from datapruner.files.cache import hasher, keyed, make_folder, open_plain, write_plain
from datapruner.files.temporary import MARK, sweep

MOST_BYTES = 1 << 20


class Notes:
    """Facts by what they are about, one small file each.

    Parameters
    ----------
    folder : Path
        Of the cache; notes lie in a folder of their own there.
    read_only : bool
        Nothing is noted.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.read_only = read_only
        self.root = folder
        self.folder = folder / keyed("notes")

    def get(self, about: Mapping[str, Any]) -> dict[str, Any] | None:
        """Give the facts that were noted, or None."""
        try:
            with open_plain(self._path(about)) as handle:
                body, _, check = handle.read(MOST_BYTES).rpartition(b"\n")
            if hasher(body).digest().hex().encode() != check:
                return None
            note = json.loads(body)
        except (OSError, ValueError, RecursionError):
            return None
        facts = note.get("facts") if isinstance(note, dict) and note.get("about") == _plain(about) else None
        return facts if isinstance(facts, dict) else None

    def put(self, about: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Note facts, in place of earlier ones about the same; both must be JSON."""
        if self.read_only:
            return
        path = self._path(about)
        body = json.dumps({"about": about, "facts": facts}, sort_keys=True).encode()
        with suppress(OSError):
            make_folder(path.parent, self.root)
            sweep(path.parent.glob(f"*{MARK}*"))
            write_plain(path, self.root, body + b"\n" + hasher(body).digest().hex().encode())

    def _path(self, about: Mapping[str, Any]) -> Path:
        name = xxhash.xxh3_128_hexdigest(json.dumps(about, sort_keys=True).encode())
        return self.folder / f"{name}.json"


def _plain(about: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(about))
