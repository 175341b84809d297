"""Results that take another's place on an object store, which renames nothing: put whole inside of its folder first.

Until the new one is whole there, the earlier one stays as it is; then the store copies it over that, file by file.
Whoever reads meanwhile, or since a run died as it copied, takes the new one from where it was put.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from datapruner.files.checksums import CHECKSUMS
from datapruner.files.fetching import Listed

File = TypeVar("File")

LAST = ("recipe.yaml", "comparison.json", "stability.json", "damage.json", "validation.json")
"""Without its file of these a result is none: put last, and removed first."""
_STAGED = re.compile(r"(\.new-[0-9a-f]{12})/(.+)")
"""Hidden, so that `datasets` passes it over."""


def new_name() -> str:
    """Give a folder's name for a result that is being put."""
    return f".new-{secrets.token_hex(6)}"


def parted(files: Mapping[str, File]) -> tuple[dict[str, File], dict[str, dict[str, File]]]:
    """Tell what lies in a folder itself from what was put there to take its place, by the name that this was given."""
    own: dict[str, File] = {}
    staged: dict[str, dict[str, File]] = {}
    for name, file in files.items():
        if (found := _STAGED.fullmatch(name)) is None:
            own[name] = file
        else:
            staged.setdefault(found[1], {})[found[2]] = file
    return own, staged


def is_whole(names: Iterable[str]) -> bool:
    """Whether a result of these files is whole."""
    return any(name in LAST for name in names)


def _is_taken(names: Iterable[str]) -> bool:
    """Whether what was put there is whole: a last file alone was put late, after all of them had been removed."""
    held = set(names)
    return is_whole(held) and (CHECKSUMS in held or "recipe.yaml" not in held)


def settled(found: Listed) -> Listed:
    """Give what counts of a folder: its own files, or a result that is whole and was to be copied over them."""
    own, staged = parted(found.files)
    for name, files in staged.items():
        if _is_taken(files):
            return replace(found, base=f"{found.base}/{name}", files=files)
    return replace(found, files=own)
