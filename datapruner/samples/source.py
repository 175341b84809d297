"""From what the user names (hub, folder, files, memory) to samples."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.samples.base import Samples
from datapruner.samples.layouts import detect_layout
from datapruner.samples.readers import FORMATS, PACKED, arrow_table, file_format, read_tables
from datapruner.samples.tables import Gatherer, checked, dataset_of_rows
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    from datasets import Dataset

    Splits = dict[str, Dataset]

_HUB_NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@]+))?(?:@(?P<revision>\S+))?")
_SHA = re.compile(r"@([0-9a-f]{40})/")

# The folders' files that describe data and hold none.
_NOT_DATA = {
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "selection.parquet",
}
_SPLIT_WORDS = {
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


def load_samples(
    source: Any,
    *,
    split: str | None = None,
    columns: dict[str, str] | None = None,
    layout: str | None = None,
    embeddings_given: bool = False,
    prefer: str = "train",
) -> Samples:
    """Load a dataset and find out how its rows are read.

    Parameters
    ----------
    source
        A hub name ``org/name[:config][@revision]``, a file (Parquet, JSON, JSON lines, CSV, TSV, Arrow;
        plain, ``.gz`` or ``.zst``), a quoted glob, a folder (of data files, from ``save_to_disk`` or from
        datapruner), or a Dataset, DatasetDict, list of dictionaries or pandas DataFrame. What is on disk is
        a path.
    split
        The split to read; ``train``, or the only one there is, by default.
    columns
        Which column plays which role, e.g. ``{"question": "Q", "answer": "A"}``.
    layout
        The layout's name, where detection should not decide.
    embeddings_given
        Embeddings come from elsewhere, so a source without text is fine.
    prefer
        The split that is taken where there are several and none was named: ``train``, or ``test`` for a test set.
    """
    revision: str | None = None
    if isinstance(source, (str, Path)):
        name = str(source)
        splits, revision = _load_named(name)
    else:
        name, splits = _load_memory(source)
    chosen = _choose(splits, split, safe_text(name, 200), prefer)
    dataset = splits[chosen]
    if len(dataset) == 0:
        raise DataPrunerError(f"{safe_text(name, 200)} has no rows; give a source with at least one row.")
    found = detect_layout(dataset, columns=columns, layout=layout, embeddings_given=embeddings_given)
    others = {key: value for key, value in splits.items() if key != chosen}
    return Samples(dataset, found, source=name, split=chosen, others=others, revision=revision)


def _choose(splits: Splits, split: str | None, source: str, prefer: str) -> str:
    """Return the split to read."""
    listed = ", ".join(safe_text(name, 40) for name in splits)
    option = "--split" if prefer == "train" else "--decontaminate-split"
    if split is not None:
        if split not in splits:
            raise DataPrunerError(
                f"{source} has no split '{safe_text(split, 40)}'.{did_you_mean(split, splits)} Its"
                f" splits: {listed}."
            )
        return split
    for usual in (prefer, "train"):
        if usual in splits:
            return usual
    if len(splits) == 1:
        return next(iter(splits))
    if not splits:
        raise DataPrunerError(f"{source} has no splits, hence no rows; give a source with at least one row.")
    raise DataPrunerError(f"{source} has the splits {listed}; name one with {option}.")


def _load_memory(source: Any) -> tuple[str, Splits]:
    """Take a dataset that is in memory already."""
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

    if isinstance(source, Dataset):
        return "dataset in memory", {str(source.split or "train"): source}
    if isinstance(source, DatasetDict):
        return "datasets in memory", dict(source)
    if isinstance(source, (IterableDataset, IterableDatasetDict)):
        raise DataPrunerError(
            "A streaming dataset has no row positions to prune; load it without streaming=True."
        )
    if type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "columns"):
        label = "DataFrame in memory"
        return label, {"train": checked(lambda: Dataset.from_pandas(source, preserve_index=False), label)}
    if isinstance(source, (list, tuple)):
        label = "list in memory"
        if any(_is_image(value) for row in source[:1] if isinstance(row, dict) for value in row.values()):
            # `datasets` encodes images; Arrow knows nothing of them.
            return label, {"train": checked(lambda: Dataset.from_list(list(source)), label)}
        return label, {"train": dataset_of_rows(source, label)}
    raise DataPrunerError(
        f"A {type(source).__name__} is not a source; give a hub name, a path, a Dataset, a DatasetDict, a"
        f" list of"
        f" dictionaries or a DataFrame."
    )


def _is_image(value: Any) -> bool:
    return type(value).__module__.startswith("PIL.")


def _load_named(name: str) -> tuple[Splits, str | None]:
    """Load a path or, when nothing on disk has that name, a hub dataset."""
    label = safe_text(name, 200)
    try:
        path = Path(name).expanduser()
        exists = bool(name.strip()) and path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataPrunerError(
            f"'{label}' is neither a path nor a hub name ({safe_text(str(error), 80)})."
        ) from error
    if exists:
        return (_load_folder(path, label) if path.is_dir() else {"train": _load_files([path], label)}), None
    if any(character in name for character in "*?["):
        files = sorted(Path(found) for found in glob.glob(str(path), recursive=True))  # noqa: PTH207
        files = [file for file in files if file.is_file()]
        if not files:
            raise DataPrunerError(f"There is no such file: nothing matches '{label}'.")
        return {"train": _load_files(files, label)}, None
    hub = _HUB_NAME.fullmatch(name)
    looks_like_path = name.startswith(("/", "./", "../", "~", "\\")) or file_format(path) is not None
    if looks_like_path or hub is None:
        raise DataPrunerError(f"There is no such file or folder: '{label}'.{_near_path(path)}")
    return _load_hub(hub["name"], hub["config"], hub["revision"], label)


def _near_path(path: Path) -> str:
    """Suggest a neighbour of a path that is not there."""
    if not path.parent.is_dir():
        return ""
    return did_you_mean(path.name, [entry.name for entry in path.parent.iterdir()])


def _load_files(files: list[Path], source: str) -> Dataset:
    """Read data files one after another."""
    from datasets import Dataset
    from datasets.table import InMemoryTable

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
    _one_format({kind for kind in kinds.values() if kind}, source)
    if len(files) == 1 and kinds[files[0]] == ".arrow" and files[0].suffix.lower() == ".arrow":
        table, is_stream = arrow_table(files[0], source)
        # Mapped as it lies; only a stream can be mapped again by a worker process from its path.
        path = str(files[0])
        return checked(
            lambda: Dataset.from_file(path) if is_stream else Dataset(InMemoryTable(table)), source
        )
    gatherer = Gatherer(source)
    for file in files:
        label = safe_text(str(file), 200)
        for table in read_tables(file, label):
            gatherer.add(table, label)
    return gatherer.dataset()


def _one_format(kinds: set[str], source: str) -> None:
    """Refuse a mixture: the same rows often lie side by side as CSV and as JSON."""
    if len(kinds) > 1:
        first, *_, last = sorted(kinds)
        raise DataPrunerError(
            f"{source} holds data files of several formats ({', '.join(sorted(kinds))}); name those of one,"
            f" e.g. '*{first}' or '*{last}', in quotes."
        )


def _load_folder(folder: Path, label: str) -> Splits:
    """Load a folder from save_to_disk, one that datapruner wrote, or any folder of data files."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _load_saved(folder, label)
    files = _data_files(folder)
    # The usual repository: a card on top, the files under data/.
    files = files or (_data_files(folder / "data") if (folder / "data").is_dir() else [])
    if not files:
        inside = sorted(
            entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
        )
        hint = f" Its folders: {', '.join(safe_text(name, 40) for name in inside[:10])}." if inside else ""
        raise DataPrunerError(f"The folder {label} holds no data files ({', '.join(FORMATS)}).{hint}")
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file), []).append(file)
    return {split: _load_files(members, label) for split, members in splits.items()}


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


def _split_of(file: Path) -> str:
    """Return the split that a file's name tells: ``train-00000-of-00001``, ``mixture.test``; else train."""
    words = re.split(r"[^a-z]+", file.name.lower())
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), "train")


def _load_saved(folder: Path, label: str) -> Splits:
    """Load a folder that save_to_disk wrote."""
    import pyarrow as pa
    from datasets import Dataset, load_from_disk

    try:
        loaded = load_from_disk(str(folder))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        reason = safe_text(" ".join(str(error).split()), 160)
        raise DataPrunerError(f"The folder {label} cannot be loaded ({reason}); save it again.") from error
    if isinstance(loaded, Dataset):
        return {str(loaded.split or "train"): loaded}
    return dict(loaded)


def _load_hub(name: str, config: str | None, revision: str | None, label: str) -> tuple[Splits, str | None]:
    """Load a dataset from the hub; its code, if it has any, is never run."""
    import datasets

    # Before datasets 4 a dataset could bring a script; later versions do not know the argument.
    old = int(datasets.__version__.split(".")[0]) < 4
    options = {"trust_remote_code": False} if old else {}
    try:
        loaded = datasets.load_dataset(name, config, revision=revision, **options)
    except Exception as error:
        # The hub client raises what its version, its HTTP library and the builder raise: no list is complete.
        raise DataPrunerError(_hub_problem(error, label)) from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if revision is None:
        for dataset in splits.values():
            found = _SHA.search(" ".join(dataset.info.download_checksums or {}))
            revision = revision or (found[1] if found else None)
    return splits, revision


def _hub_problem(error: Exception, label: str) -> str:
    """Return one sentence for what went wrong with the hub."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 10:
        chain.append(cause)
    names = " ".join(type(link).__name__ for link in chain)
    reason = safe_text(" ".join(str(error).split()), 200)
    if re.search(r"Connect|Offline|Timeout|LocalEntryNotFound|MaxRetry|ProxyError", names):
        return (
            f"'{label}' is not on disk, and the Hugging Face hub cannot be reached ({reason}); check the"
            f" name, go"
            f" online, or give a file or folder."
        )
    if "DatasetNotFound" in names or "RepositoryNotFound" in names:
        return f"'{label}' is neither on disk nor on the Hugging Face hub (or it is private); check the name."
    return f"'{label}' could not be loaded from the Hugging Face hub ({reason})."
