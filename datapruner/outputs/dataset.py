"""Write a selection as a Hugging Face dataset with its card, its reasons and its recipe."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import xxhash

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.files.paths import expanded
from datapruner.outputs.card import dataset_card
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.json_lines import write_json_lines
from datapruner.outputs.tokens import kept_splits
from datapruner.samples.portable import check_format, check_splits

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from datapruner.results.scored import Scored
    from datapruner.results.selected import Selected

REASONS = "selection.parquet"
MEDIA = 100
"""Rows of images or sound in memory at a time, and in a group of a parquet file."""


def save_selection(
    selection: Selected,
    path: Path,
    *,
    format: str = "parquet",
    overwrite: bool = False,
    leaves: bool = False,
    report: bool = False,
) -> Path:
    """Write ``OUT``: data, README.md, selection.parquet, recipe.yaml and perhaps report.html; whole or not at all.

    Parameters
    ----------
    selection : Selected
    path : Path
    format : {"parquet", "jsonl", "arrow"}
        ``arrow`` is the layout of ``save_to_disk``.
    overwrite : bool
        Replace an earlier result of datapruner.
    leaves : bool
        The folder goes to another machine, where the recipe's paths mean nothing.
    report : bool
        Write the page too; see :func:`datapruner.outputs.report.write_report`.

    Returns
    -------
    Path
        The folder.
    """
    if report:
        from datapruner.outputs.report import require_report, write_report

        require_report()
    path = expanded(path)
    samples = selection.scores.samples
    recipe = selection.recipe.model_copy(update={"format": format}).with_content(lambda: samples.content)
    source = {samples.split: samples.dataset, **samples.others}
    check_splits(source)
    check_format(source, format)
    samples.unchanged()
    with (
        whole_folder(path, overwrite=overwrite, reads=files_read(selection.scores)) as folder,
        _quiet_writing(),
    ):
        work = folder / "tokens"
        declared: dict[str, dict[str, Any]] = {}
        splits = kept_splits(selection, work)
        if format == "arrow":
            splits.save_to_disk(str(folder / "data"))
        else:
            (folder / "data").mkdir()
            for split, dataset in splits.items():
                file = folder / "data" / f"{split}-00000-of-00001.{format}"
                rows = selection.indices if split == samples.split else None
                declared[split] = write_split(dataset, file, format, samples.given_nulls.get(split), rows)
        shutil.rmtree(work, ignore_errors=True)
        write_table(selection.table(), folder / REASONS)
        card = dataset_card(
            selection,
            format,
            _digest(folder / "data"),
            configurations(splits, declared),
            recipe.source_content,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / "recipe.yaml").write_text(recipe.save_yaml(None if leaves else path), encoding="utf-8")
        if report:
            write_report(folder / "report.html", [selection])
    return path


def files_read(scores: Scored) -> list[str]:
    """List what a result was made from: what its recipe names, and what its rows are mapped from."""
    datasets = [scores.samples.dataset, *scores.samples.others.values()]
    return scores.recipe.reads + [file["filename"] for dataset in datasets for file in dataset.cache_files]


def _digest(folder: Path) -> str:
    """Hash the data files, in the order of their names."""
    digest = xxhash.xxh3_64()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        with file.open("rb") as handle:
            while chunk := handle.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _quiet_writing() -> Iterator[None]:
    """Keep `datasets`' bars off the terminal for a while."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    if shown:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


class _Patient(io.RawIOBase):
    """A file for `datasets` to write Parquet to, which keeps its error to itself until the writing is over.

    An error inside Arrow's content-defined chunking, which `datasets` asks for, aborts the process.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None
        self.written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.written

    def write(self, block: Any) -> int:
        if self.error is None:
            try:
                self.file.write(block)
            except OSError as error:
                self.error = error
        self.written += len(block)
        return len(block)


def write_split(
    dataset: Dataset,
    file: Path,
    format: str,
    given_nulls: Mapping[str, Ints] | None = None,
    rows: Ints | None = None,
) -> dict[str, Any]:
    """Write one split as parquet or as JSON lines, and return what the card is to say of it."""
    if format == "jsonl":
        return write_json_lines(dataset, file, given_nulls, rows)
    if format != "parquet":
        raise DataPrunerError(f"the data can be written as parquet, jsonl or arrow, not '{format}'")
    with file.open("wb") as handle:
        patient = _Patient(handle)
        if any(map(_is_media, dataset.features.values())):
            _write_media(dataset, patient)
        else:
            dataset.to_parquet(patient)
        if patient.error is not None:
            raise patient.error
    return {}


def _is_media(feature: Any) -> bool:
    from datasets import Audio, Image

    return isinstance(getattr(feature, "feature", feature), (Audio, Image))


def _write_media(dataset: Dataset, file: BinaryIO | io.RawIOBase) -> None:
    """Write images and sound into the table itself, few rows at a time, where they were but named."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets.table import embed_table_storage

    schema = dataset.features.arrow_schema
    with pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema) as writer:
        for table in dataset.with_format("arrow").iter(MEDIA):
            writer.write_table(embed_table_storage(table.cast(schema)))


def configurations(
    splits: Mapping[str, Dataset], declared: Mapping[str, dict[str, Any]]
) -> list[tuple[list[str], dict[str, Any]]]:
    """Group the splits by their columns and types, since `load_dataset` reads those of one configuration as one."""
    groups: list[tuple[list[str], Any, dict[str, Any]]] = []
    for split, dataset in splits.items():
        found = declared.get(split, {})
        same = (dataset.features, found.get("features"))
        group = next((group for group in groups if group[1] == same), None)
        if group is None:
            groups.append(([split], same, dict(found)))
        else:
            group[0].append(split)
            group[2].update(found)
    return [(names, found) for names, _, found in groups]


def write_table(table: pa.Table, file: Path) -> None:
    """Write a table as parquet, compressed."""
    import pyarrow.parquet as pq

    pq.write_table(table, file, compression="zstd")


def check_repository(name: str) -> None:
    """Refuse a name that no repository can have, before a run whose result is to go there."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise DataPrunerError(f"the hub did not take '{name}': {error}") from error


def push_to_hub(selection: Selected, name: str, *, private: bool = True) -> str:
    """Upload what :func:`save_selection` writes to a dataset repository on the hub.

    Parameters
    ----------
    selection : Selected
    name : str
        ``org/name``.
    private : bool
        A new repository is private unless this is False.

    Returns
    -------
    str
        The commit's address.

    Raises
    ------
    DataPrunerError
        The hub refused, or cannot be reached.
    """
    import tempfile

    from huggingface_hub import HfApi

    check_repository(name)
    with tempfile.TemporaryDirectory() as work:
        folder = save_selection(selection, Path(work) / "dataset", leaves=True)
        api = HfApi()
        try:
            api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=name, repo_type="dataset", folder_path=str(folder))
        except (
            Exception
        ) as error:  # what the client's version and its HTTP library raise: no list is complete
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataPrunerError(f"the hub did not take '{name}': {reason}") from error
    return str(commit)
