"""Columns whose values are read from where they say: only from the source's own folder, else they stay what they say.

A file's metadata may declare a column of images, sounds or films, of which a row holds no bytes but a path or an
address. `datasets` opens it when the rows are shown, hashed or written, and so would copy any file of this machine, or
connect anywhere.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from datapruner.files.paths import is_file, resolved
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from datapruner.samples.tables import Read

logger = logging.getLogger(__name__)


def decodes(feature: Any) -> bool:
    """Whether values of a feature of `datasets` are read from elsewhere, at any depth."""
    if isinstance(feature, dict):
        return any(map(decodes, feature.values()))
    if isinstance(feature, (list, tuple)):
        return any(map(decodes, feature))
    if type(feature).__name__ == "Json":  # decoded from what is stored alone
        return False
    if hasattr(feature, "decode_example") or hasattr(feature, "embed_storage"):
        return True
    inner = getattr(feature, "feature", None)
    return inner is not None and decodes(inner)


def offline() -> bool:
    """Whether the user asked for no connection."""
    from datasets import config

    return bool(config.HF_HUB_OFFLINE)


def confined(read: Read, folders: list[Path] | None, source: str) -> Read:
    """Return what was read with columns that lead out of folders as plain structs.

    Parameters
    ----------
    read
        Rows of somebody else's.
    folders
        Where files may be opened; nowhere else, and nothing of another machine. None: any file of this machine, whether
        or not it is there.
    source
        Its name, for the warning.
    """
    dataset = read.dataset
    features = dataset.features
    columns = [name for name, feature in features.items() if decodes(feature)]
    if not columns:
        return read
    inside = _inside(folders)
    table, types = dataset.data.table, features.arrow_schema
    gone = set()
    for name in columns:
        kind = features[name]
        told = types.field(name).type
        column = table.column(name)
        wrong = None if column.type == told else f"is stored as {column.type}"
        if wrong is None:
            out = next((path for path in _opened(column) if not inside(path)), None)
            wrong = None if out is None else f"names {safe_text(out, 100)}"
        if wrong is not None:
            gone.add(name)
            logger.warning(
                "%s: the column '%s' is declared as %s and %s, which is not in the source's own folder: it is read as "
                "what is stored, and nothing is opened",
                safe_text(str(source)),
                safe_text(name, 60),
                type(kind).__name__,
                wrong,
            )
    return replace(read, dataset=_as_stored(dataset, gone)) if gone else read


def _as_stored(dataset: Dataset, names: set[str]) -> Dataset:
    """Return a dataset that knows of some columns no more than Arrow does."""
    import pyarrow as pa
    from datasets import Features

    schema = dataset.data.schema
    stored = Features.from_arrow_schema(pa.schema([schema.field(name) for name in schema.names]))
    info = dataset.info.copy()
    info.features = Features(
        {name: stored[name] if name in names else kind for name, kind in dataset.features.items()}
    )
    return type(dataset)(
        dataset.data.replace_schema_metadata(None),
        info=info,
        split=dataset.split,
        indices_table=dataset._indices,
    )


def _opened(column: pa.ChunkedArray) -> Iterator[str]:
    """Give the paths that stand where there are no bytes."""
    for chunk in column.chunks:
        yield from _paths(chunk)


def _paths(array: pa.Array) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from _paths(array.storage)
    elif t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        yield from _paths(array.flatten())
    elif t.is_struct(kind):
        names = [field.name for field in kind]
        if "path" in names and "bytes" in names:
            named = array.filter(pc.and_(array.is_valid(), pc.is_null(array.field("bytes"))))
            yield from (path for path in named.field("path").to_pylist() if isinstance(path, str))
        for child in array.flatten():  # a column may have any names, and more below them
            yield from _paths(child)


def _elsewhere(path: str) -> bool:
    """Whether `datasets` and fsspec take a path for an address, or for a file inside of another."""
    return "::" in path or bool(urlparse(path).scheme and not os.path.isabs(path))  # noqa: PTH117


def _inside(folders: list[Path] | None) -> Callable[[str], bool]:
    """Give what tells whether a path is that of a file in one of the folders, links followed."""
    if folders is None:
        return lambda path: not _elsewhere(path)
    roots = [resolved(folder) for folder in folders]

    @cache
    def holds(path: str) -> bool:
        place = resolved(Path(path))
        return any(place.is_relative_to(root) for root in roots)

    def inside(path: str) -> bool:
        if not roots or _elsewhere(path):
            return False
        if not is_file(Path(path)) or not holds(os.path.split(path)[0] or "."):
            return False
        return not Path(path).is_symlink() or holds(path)

    return inside
