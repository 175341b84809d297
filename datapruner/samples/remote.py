"""Sources on an object store: what an address names is fetched into a private folder, and read as if it lay there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datapruner.errors import DataPrunerError
from datapruner.files.fetching import fetch, listed
from datapruner.files.remote import check_url, label_of
from datapruner.files.staging import settled
from datapruner.files.temporary import private_folder
from datapruner.samples.confined import decodes
from datapruner.samples.files import load_files, load_folder
from datapruner.samples.media import is_media
from datapruner.samples.readers import FORMATS, PACKED, file_format
from datapruner.samples.tables import Read
from datapruner.text import safe_text

BESIDE = ("checksums.txt", "recipe.yaml")
"""Files of a result of ours that say whether its data is as it was written."""
TABLES = ("selection.parquet", "scores.parquet")


def load_address(url: str) -> dict[str, Read]:
    """Load what an address of an object store names: a file, what a pattern matches, or a folder; by its splits.

    Raises
    ------
    DataPrunerError
        Nothing is there, it cannot be reached, or it holds nothing that can be read.
    """
    label = label_of(check_url(url))
    found = listed(url)
    found = settled(found) if found.is_folder else found
    names = _wanted(found.files, label) if found.is_folder else dict(found.files)
    for name in names if not found.is_folder else ():
        if file_format(Path(name)) is None:
            raise DataPrunerError(
                f"'{label}' names {safe_text(name, 100)}, which is no data file that can be read; it should end in "
                f"{', '.join(FORMATS)}, or one of these with {' or '.join(PACKED)}"
            )
    target = private_folder()
    kept = False
    try:
        fetch(found, names, target)
        files = [target / name for name in sorted(names)]
        splits = load_folder(target, label) if found.is_folder else {"train": load_files(files, label)}
        noted = {found.url_of(name): found.stamp_of(name) for name in names}
        splits = {split: replace(read, stamps=noted) for split, read in splits.items()}
        kept = any(_lies_in(read, target) for read in splits.values())
        return splits
    except DataPrunerError as error:
        raise DataPrunerError(error.sentence.replace(f"{target}/", f"{label_of(found.base)}/")) from error
    finally:
        if not kept:
            shutil.rmtree(target, ignore_errors=True)


def _wanted(files: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Choose what of a folder is fetched, and refuse a result that is not whole."""
    if any(name in files for name in TABLES) and "recipe.yaml" not in files:
        raise DataPrunerError(
            f"{label} holds a result that is not whole, since its upload was interrupted; write it again"
        )
    return {
        name: info
        for name, info in files.items()
        if name in BESIDE or file_format(Path(name)) is not None or is_media(Path(name))
    }


def _lies_in(read: Read, folder: Path) -> bool:
    """Whether rows are read from files of a folder later on."""
    mapped = any(Path(file["filename"]).is_relative_to(folder) for file in read.dataset.cache_files)
    return mapped or any(map(decodes, read.dataset.features.values()))
