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

from datapruner.temporary import MARK, sweep, whole_file


class Notes:
    """Facts by what they are about, one small file each.

    Parameters
    ----------
    folder : Path
        Of the cache; notes lie in a folder of their own there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "notes"

    def get(self, about: Mapping[str, Any]) -> dict[str, Any] | None:
        """Give the facts that were noted, or None."""
        try:
            body, _, check = self._path(about).read_text("utf-8").rpartition("\n")
            if xxhash.xxh3_128_hexdigest(body.encode()) != check:
                return None
            note = json.loads(body)
        except (OSError, ValueError):
            return None
        facts = note.get("facts") if isinstance(note, dict) and note.get("about") == _plain(about) else None
        return facts if isinstance(facts, dict) else None

    def put(self, about: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Note facts, in place of earlier ones about the same; both must be JSON."""
        path = self._path(about)
        body = json.dumps({"about": about, "facts": facts}, sort_keys=True)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent.glob(f"*{MARK}*"))
            with whole_file(path) as handle:
                handle.write(f"{body}\n{xxhash.xxh3_128_hexdigest(body.encode())}".encode())

    def _path(self, about: Mapping[str, Any]) -> Path:
        name = xxhash.xxh3_128_hexdigest(json.dumps(about, sort_keys=True).encode())
        return self.folder / f"{name}.json"


def _plain(about: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(about))
