"""The identity of files: what loading a model from disk depends on, told without loading it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import xxhash

from datapruner.files.notes import Notes
from datapruner.files.paths import exists, expanded
from datapruner.models import offline

INERT = (
    ".md",
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".svg",
    ".pdf",
    ".log",
    ".h5",
    ".msgpack",
    ".ot",
    ".onnx",
    ".gguf",
)
"""Endings of files that no loading here reads."""
WEIGHTS = ("*.safetensors", "pytorch_model*")
"""What files of weights are called."""
TRAINING = ("optimizer", "scheduler", "rng_state", "trainer_state", "training_args", "scaler", "events.out")
"""Beginnings of the files that a trainer leaves beside a checkpoint."""
SETTLED_SECONDS = 2.0
"""A file that changed so lately may change once more without its times showing it, and is read each time."""
CHUNK = 1 << 24


def local_folder(name: str) -> Path | None:
    """Find the folder that a model's name stands for; None where it is not on this machine.

    A hub name stands for the revision that the hub names now, or for the one fetched last where the hub is not
    reached: as when the model is loaded.
    """
    if name in offline.MODELS:
        return offline.installed_folder(name)
    if exists(folder := expanded(Path(name))) and folder.is_dir():
        return folder
    if "/" not in name or name.startswith((".", "/", "~")):
        return None
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        revision = HfApi().model_info(name, timeout=10).sha
    except HFValidationError:
        return None
    except Exception:  # offline, refused, gone: what was fetched before is what loading falls back to
        revision = None
    for file in ("config.json", "adapter_config.json"):
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def folder_digest(folder: Path, notes: Notes, weights: bool = True) -> str:
    """Hash the names and bytes of a folder's files, except those that no loading reads.

    Parameters
    ----------
    folder : Path
    notes : Notes
        Where the hash of a file that is as it was (size, times, number on its disk) is remembered.
    weights : bool
        Those count too.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    digest = xxhash.xxh3_128()
    for path in sorted(_files(folder)):
        if not weights and any(path.match(pattern) for pattern in WEIGHTS):
            continue
        digest.update(f"{os.path.relpath(path, folder)} {file_digest(path, notes)}\n".encode())
    return digest.hexdigest()


def file_digest(path: Path, notes: Notes) -> str:
    """Hash a file's bytes, or remember what they hashed to; the time of its last change cannot be set back."""
    about = {"file": str(path.absolute())}
    before = _state(path)
    known = notes.get(about)
    if known is not None and known.get("state") == before and isinstance(known.get("digest"), str):
        return str(known["digest"])
    digest = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
    settled = time.time() - max(before[2], before[3]) / 1e9 > SETTLED_SECONDS
    if settled and _state(path) == before:
        notes.put(about, {"state": before, "digest": digest.hexdigest()})
    return digest.hexdigest()


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_dev, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _files(folder: Path) -> Iterator[Path]:
    """Give a model's files: those of the folder, and of the folders that its own listing names."""
    yield from _own_files(folder)
    within = [folder / "additional_chat_templates"]
    try:
        modules = json.loads((folder / "modules.json").read_text("utf-8"))
        within += [folder / str(module["path"]) for module in modules if module.get("path")]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # no sentence-transformers model
        pass
    for inner in within:
        if inner.is_dir():
            yield from _own_files(inner)


def _own_files(folder: Path) -> Iterator[Path]:
    here = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    # Loading takes these where there are both kinds.
    safe = {"model.safetensors", "model.safetensors.index.json"} & {entry.name for entry in here}
    for entry in here:
        name = entry.name.lower()
        inert = name.endswith(INERT) or name.startswith(TRAINING)
        if entry.is_file() and not inert and not (safe and name.startswith("pytorch_model")):
            yield Path(entry.path)
