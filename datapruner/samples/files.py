"""Data files, one after another, and folders of them."""

from __future__ import annotations

import glob
import json
import re
from dataclasses import replace
from pathlib import Path

from datapruner.errors import MALFORMED, DataPrunerError
from datapruner.files.checksums import Lists, check_file, check_files
from datapruner.files.paths import is_file, resolved
from datapruner.files.patterns import Place, Search, files_of, is_new, place_of
from datapruner.samples.confined import confined
from datapruner.samples.fingerprint import dataset_of
from datapruner.samples.media import is_media, media_rows, metadata_of, with_media
from datapruner.samples.readers import FORMATS, PACKED, arrow_table, file_format, read_blocks, refuse_pointer
from datapruner.samples.recorded import recorded
from datapruner.samples.sound import check_dataset
from datapruner.samples.stamps import stamps
from datapruner.samples.tables import Gatherer, Read, gathered
from datapruner.text import safe_text

# The folders' files that describe data and hold none.
_NOT_DATA = {
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "selection.parquet",
}
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
_DEPTH = 6


def load_files(files: list[Path], source: str, folder: Path | None = None) -> Read:
    """Read data files one after another; what they name may be opened in their folder, if they have one."""
    noted = stamps(files)
    return replace(confined(_load_files(files, source), [folder] if folder else [], source), stamps=noted)


def _load_files(files: list[Path], source: str) -> Read:
    from datasets import Dataset

    lists: Lists = {}
    kinds = {file: file_format(file) for file in files}
    for file, kind in kinds.items():
        if kind is None:
            raise DataPrunerError(
                f"'{safe_text(str(file), 200)}' is not a data file that can be read; it should end in"
                f" {', '.join(FORMATS)}, or one of these with {' or '.join(PACKED)} (pickles are never"
                f" loaded)."
            )
        if not file.is_file():
            raise DataPrunerError(f"'{safe_text(str(file), 200)}' is not a file.")
        check_file(file, lists)
    _one_format({kind for kind in kinds.values() if kind}, source)
    if len(files) == 1 and kinds[files[0]] == ".arrow" and files[0].suffix.lower() == ".arrow":
        refuse_pointer(files[0], source)
        table, is_stream = arrow_table(files[0], source)
        # Mapped as it lies; only a stream can be mapped again by a worker process from its path.
        path = str(files[0])
        return gathered(
            table,
            source,
            lambda: Dataset.from_file(path) if is_stream else dataset_of(table, content=repr(stamps(files))),
        )
    gatherer = Gatherer(source)
    for file in files:
        label = safe_text(str(file), 200)
        for block in read_blocks(file, label):
            gatherer.add(block, label)
    return gatherer.read()


def _one_format(kinds: set[str], source: str) -> None:
    """Refuse a mixture: the same rows often lie side by side as CSV and as JSON."""
    if len(kinds) > 1:
        first, *_, last = sorted(kinds)
        raise DataPrunerError(
            f"{source} holds data files of several formats ({', '.join(sorted(kinds))}); name those of one,"
            f" e.g. '*{first}' or '*{last}', in quotes."
        )


def load_folder(folder: Path, label: str) -> dict[str, Read]:
    """Load a folder from save_to_disk, one that datapruner wrote, or any folder of data files or media."""
    noted = recorded(folder)
    loaded = _load_folder(folder, label)
    return {split: replace(read, layouts=noted.get(split, ())) for split, read in loaded.items()}


def _load_folder(folder: Path, label: str) -> dict[str, Read]:
    saved = [path for path in (folder / "dataset_dict.json", folder / "state.json") if path.is_file()]
    files = saved or _find(folder, folder, label)
    check_files(folder, files)
    if saved:
        return _load_saved(folder, label)
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file, folder), []).append(file)
    loaded = {}
    for split, members in splits.items():
        noted = stamps(members)
        if all(map(is_media, members)):
            loaded[split] = media_rows(members, folder, label)
        elif all(metadata_of(member) for member in members):
            loaded[split] = with_media(
                [(member, load_files([member], label, folder)) for member in members], label
            )
        else:
            loaded[split] = load_files(members, label, folder)
        loaded[split] = replace(loaded[split], stamps=noted)
    return loaded


def _find(folder: Path, root: Path, label: str, above: frozenset[Place] = frozenset()) -> list[Path]:
    """Return the files of a folder that hold its rows: its own, or those of the folders that are its splits.

    Folders of other names may hold other datasets, of which one is to be named, unless there is but one.
    """
    files = _data_files(folder)
    inside = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] not in "._")
    search = Search(label)
    above = above | {place for place in [place_of(str(folder))] if place}
    met = set(above)
    once = [entry for entry in sorted(inside, key=Path.is_symlink) if is_new(str(entry), met)]
    below = [entry for entry in sorted(once) if _holds_data(entry, search, set(above))]
    media = []
    if not files and not below:
        media = list(filter(is_media, files_of(f"{glob.escape(str(folder))}/**/*", label, "searched")))
    if files and not all(map(metadata_of, files)):
        return files
    if files and not below:
        return files
    parts = [entry for entry in below if entry.name.lower() == "data" or _split_word(entry.name)]
    if not below:
        if media:
            return media
        names = (
            f" Its folders: {', '.join(safe_text(entry.name, 40) for entry in inside[:10])}."
            if inside
            else ""
        )
        raise DataPrunerError(f"The folder {label} holds no data files ({', '.join(FORMATS)}).{names}")
    if not files and len(below) > 1 and len(parts) < len(below):
        shown = ", ".join(safe_text(entry.relative_to(root).as_posix(), 60) for entry in below[:10])
        raise DataPrunerError(
            f"The folder {label} holds data in several folders ({shown}), which may be datasets of their own; name one,"
            f" e.g. {label}/{safe_text(below[0].relative_to(root).as_posix(), 60)}."
        )
    return files + [file for entry in (parts or below) for file in _find(entry, root, label, above)]


def _holds_data(folder: Path, search: Search, seen: set[Place], depth: int = _DEPTH) -> bool:
    """Whether a folder, or one inside of it, holds data; one that a link leads back to does not count again."""
    if not is_new(str(folder), seen):
        return False
    entries = search.entries(str(folder))
    if _data_files(folder):
        return True
    return depth > 0 and any(
        entry.is_dir()
        and entry.name[0] not in "._"
        and _holds_data(Path(entry.path), search, seen, depth - 1)
        for entry in entries
    )


def _data_files(folder: Path) -> list[Path]:
    """Return a folder's data files by name."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and file_format(file) is not None
        and not file.name.startswith((".", "_"))
        and file.name not in _NOT_DATA
    )


def _split_word(name: str) -> str | None:
    """Return the split that a name tells: ``train-00000-of-00001``, ``mixture.test``."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def _split_of(file: Path, root: Path) -> str:
    """Return the split that a file's name tells, or the nearest folder's; else train."""
    names = [file.name, *reversed(file.relative_to(root).parts[:-1])]
    return next((split for name in names if (split := _split_word(name))), "train")


def _load_saved(folder: Path, label: str) -> dict[str, Read]:
    """Load a folder that save_to_disk wrote."""
    import pyarrow as pa
    from datasets import Dataset, load_from_disk

    _check_saved(folder, label)
    try:
        loaded = load_from_disk(str(folder))
    except (OSError, pa.ArrowException, *MALFORMED) as error:
        reason = safe_text(" ".join(str(error).split()), 160)
        raise DataPrunerError(f"The folder {label} cannot be loaded ({reason}); save it again.") from error
    splits = {str(loaded.split or "train"): loaded} if isinstance(loaded, Dataset) else loaded
    for dataset in splits.values():
        check_dataset(dataset, label)
    return {
        split: confined(
            Read(dataset, stamps=stamps(Path(file["filename"]) for file in dataset.cache_files)),
            [folder],
            label,
        )
        for split, dataset in splits.items()
    }


def _check_saved(folder: Path, label: str) -> None:
    """Refuse what is opened by its name alone and is no file, such as a pipe that nobody writes to."""
    search, lists = Search(label), Lists()
    splits = [Path(entry.path) for entry in search.entries(str(folder)) if entry.is_dir()]
    for place in (folder, *splits):
        for entry in search.entries(str(place)):
            if not entry.is_dir() and not is_file(Path(entry.path)):
                raise DataPrunerError(
                    f"The folder {label} cannot be loaded: {safe_text(entry.name, 60)} is no file; save it again."
                )
            if not entry.is_dir():
                check_file(Path(entry.path), lists)
        for name in [*_named_in(place / "state.json"), *_splits_in(place / "dataset_dict.json")]:
            if not resolved(place / name).is_relative_to(resolved(place)):
                raise DataPrunerError(
                    f"The folder {label} cannot be loaded: it names {safe_text(name, 60)} outside of it."
                )


def _splits_in(listing: Path) -> list[str]:
    """Return the folders that a saved folder names as its splits; what is wrong with the list is left to `datasets`."""
    try:
        held = json.loads(listing.read_bytes())["splits"] if is_file(listing) else []
        return [str(one) for one in held]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []


def _named_in(state: Path) -> list[str]:
    """Return the data files that a saved folder names; what is wrong with the list is left to `datasets`."""
    try:
        held = json.loads(state.read_bytes())["_data_files"] if is_file(state) else []
        return [str(one["filename"]) for one in held]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
