"""Folders of images or sound: ``metadata.jsonl`` beside the files, or a folder for each label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.files.paths import is_file, resolved
from datapruner.samples.fingerprint import dataset_of
from datapruner.samples.readers import refuse_pointer
from datapruner.samples.tables import Read
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES = frozenset(
    [
        ".apng",
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".heic",
        ".heif",
        ".j2k",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".jpx",
        ".jxl",
        ".png",
        ".ppm",
        ".pgm",
        ".pbm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
SOUNDS = frozenset(
    [".aac", ".aif", ".aiff", ".au", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wave"]
)
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SMALL = 400
"""A file of fewer bytes may be what git left in place of the file."""


def is_media(file: Path) -> bool:
    """Whether a file's name is that of an image or a sound."""
    return file.suffix.lower() in IMAGES | SOUNDS and not file.name.startswith(".")


def metadata_of(file: Path) -> bool:
    """Whether a file describes the media beside it, by its name."""
    return file.name.lower() in METADATA


def with_media(parts: Sequence[tuple[Path, Read]], label: str) -> Read:
    """Put images and sound in the place of their files' names, as `datasets` does.

    ``file_name`` becomes the column ``image`` (or ``audio``), ``x_file_name`` the column ``x``, and ``file_names``
    lists. A name counts from the folder of the metadata, which it may not leave.

    Raises
    ------
    DataPrunerError
        A file is not there, lies outside the folder, or was left to Git LFS.
    """
    from datasets import concatenate_datasets

    made = [_with_media(read, file.parent, f"{label}, {file.name}") for file, read in parts]
    if len(made) == 1:
        return made[0]
    return Read(concatenate_datasets([read.dataset for read in made]))


def _with_media(read: Read, folder: Path, label: str) -> Read:
    import pyarrow as pa
    from datasets import Audio, DatasetInfo, Features, Image, List

    table = read.dataset.data.table
    features: dict[str, Any] = {}
    known = read.dataset.features
    nulls = dict(read.given_nulls)
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        many = name.endswith("file_names") and pa.types.is_list(column.type)
        values = column.combine_chunks() if many or _names_files(name, column.type) else None
        names = values.flatten() if many and values is not None else values
        kind = None if names is None else _kind_of(names)
        if names is None or values is None or kind is None:
            features[name] = known[name]
            continue
        stem = name.removesuffix("s") if many else name
        own = (stem[: -len("_file_name")] if stem != "file_name" else kind + "s" * many) or name
        paths = _paths(names.to_pylist(), folder, label)
        media = _media_array(paths)
        if many:
            mask = values.is_null() if values.null_count else None
            media = pa.ListArray.from_arrays(values.offsets, media, mask=mask)
        feature = Image() if kind == "image" else Audio()
        features[own] = List(feature) if many else feature
        table = table.set_column(place, own, media)
        if name in nulls:
            nulls[own] = nulls.pop(name)
    info = DatasetInfo(features=Features(features))
    return Read(dataset_of(table.cast(info.features.arrow_schema), info=info), nulls, read.exact)


def _names_files(name: str, kind: pa.DataType) -> bool:
    import pyarrow as pa

    return (name == "file_name" or name.endswith("_file_name")) and kind in (pa.string(), pa.large_string())


def _kind_of(names: pa.Array) -> str | None:
    """Tell images from sound by the first name; None for files of another kind."""
    first = next((name for name in names.to_pylist() if name is not None), "")
    suffix = Path(first).suffix.lower()
    return "image" if suffix in IMAGES else "audio" if suffix in SOUNDS else None


def _paths(names: list[str | None], folder: Path, label: str) -> list[str | None]:
    """Return the files' paths; every one is there, and inside the folder."""
    root = resolved(folder)

    @cache
    def leads_out(place: Path) -> bool:
        return not resolved(place).is_relative_to(root)

    paths: list[str | None] = []
    for row, name in enumerate(names):
        if name is None:
            paths.append(None)
            continue
        path = root / name
        shown = f"{label}, row {row}: the file '{safe_text(name, 100)}'"
        if "://" in name or leads_out(path.parent) or (path.is_symlink() and leads_out(path)):
            raise DataPrunerError(f"{shown} lies outside the folder of the metadata; move it there.")
        if not is_file(path):
            raise DataPrunerError(f"{shown} is not there; mend its name, or remove the row.")
        if path.stat().st_size < SMALL:
            refuse_pointer(path, shown)
        paths.append(str(path))
    return paths


def _media_array(paths: list[str | None]) -> pa.Array:
    """Return the files as `datasets` stores images and sound that were not read yet."""
    import pyarrow as pa

    columns = [pa.nulls(len(paths), pa.binary()), pa.array(paths, pa.string())]
    mask = pa.array([path is None for path in paths])
    return pa.StructArray.from_arrays(columns, ["bytes", "path"], mask=mask)


def media_rows(files: list[Path], folder: Path, label: str) -> Read:
    """Read media without metadata: a row for each, with its folder's name as the label if there are several."""
    import pyarrow as pa
    from datasets import Audio, ClassLabel, DatasetInfo, Features, Image

    kind = "image" if files[0].suffix.lower() in IMAGES else "audio"
    files = [file for file in files if file.suffix.lower() in (IMAGES if kind == "image" else SOUNDS)]
    names = [file.relative_to(folder).as_posix() for file in files]
    columns: dict[str, Any] = {kind: _media_array(_paths(list(names), folder, label))}
    features: dict[str, Any] = {kind: Image() if kind == "image" else Audio()}
    labels = sorted({file.parent.name for file in files})
    if len(labels) > 1 and len({name.count("/") for name in names}) == 1:
        columns["label"] = pa.array([labels.index(file.parent.name) for file in files], pa.int64())
        features["label"] = ClassLabel(names=labels)
    info = DatasetInfo(features=Features(features))
    return Read(dataset_of(pa.table(columns).cast(info.features.arrow_schema), info=info))
