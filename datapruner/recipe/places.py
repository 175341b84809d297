"""Which fields of a recipe are paths, and how they are written and read."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from datapruner.files.paths import exists, expanded, resolved
from datapruner.files.patterns import files_of
from datapruner.files.remote import is_url
from datapruner.models.offline import MODELS
from datapruner.samples.readers import file_format
from datapruner.text import safe_text

FILES = ("embeddings", "target_embeddings", "divergences")
"""Fields that are paths, whatever they look like."""
PATHS = (
    "source",
    "decontaminate",
    "against",
    "target",
    "embedder",
    "tokenizer",
    "model",
    "adapter",
    "sketch_checkpoints",
    "pruned_model",
    "reference_model",
    "classifier",
    "judge",
    *FILES,
)
"""Fields that may be paths; they are saved relative to the recipe's own folder."""


def is_path(value: str, folder: str, *, bare_only: bool = False) -> bool:
    """Whether a field names a path and no model or hub dataset, seen from a folder.

    Parameters
    ----------
    value, folder : str
    bare_only : bool
        What lies in the folder counts only under a bare name: ``org/name`` stays a hub name whatever lies there.
    """
    if value in MODELS or not value or is_url(value):  # an alias stays one, whatever lies beside it
        return False
    if value in (".", "..") or value.startswith(("./", "../", "/", "~")) or Path(value).is_absolute():
        return True
    if has_marks(value) or file_format(Path(value)) is not None:
        return True
    return not (bare_only and "/" in value) and exists(Path(folder) / value)


def has_marks(value: str) -> bool:
    """Whether a path is a pattern."""
    return any(mark in value for mark in "*?[")


def matches(value: str) -> list[str]:
    """Give the files that a pattern matches; of anything else none."""
    path = expanded(Path(value))
    if not has_marks(value) or exists(path):
        return []
    return [str(found) for found in files_of(str(path), safe_text(value, 200))]


def absolute(value: str, folder: str) -> str:
    """Join a path to the folder that it counts from; a mark in that folder's own name is no pattern."""
    path = str(expanded(Path(value)))
    joined = os.path.join(folder, path)  # noqa: PTH118 - Path would not do for the pattern
    if has_marks(path) and not exists(Path(joined)):
        joined = os.path.join(glob.escape(folder), path)  # noqa: PTH118
    return os.path.normpath(joined)


def relative(path: str, folder: Path) -> str:
    """Write an absolute path as seen from a folder; links on the way are followed, the last part's is not."""
    base = str(resolved(expanded(folder)))
    if has_marks(path) and not exists(Path(path)):
        base = glob.escape(base)
    found = Path(os.path.relpath(resolved(Path(path).parent) / Path(path).name, base)).as_posix()
    return found if found.startswith("../") or found in (".", "..") else f"./{found}"
