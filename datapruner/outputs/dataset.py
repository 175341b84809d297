"""Write a selection as a Hugging Face dataset with its card, its reasons and its recipe."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.files.paths import expanded
from datapruner.moved import moved
from datapruner.outputs.card import dataset_card
from datapruner.outputs.data_files import digest_of, quiet_writing, write_split, write_table
from datapruner.outputs.folder import whole_folder
from datapruner.outputs.tokens import kept_splits
from datapruner.samples.portable import check_format, check_splits

if TYPE_CHECKING:
    from datasets import Dataset

    from datapruner.results.scored import Scored
    from datapruner.results.selected import Selected

REASONS = "selection.parquet"


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
    recipe = selection.recipe.model_copy(update={"format": format}).with_content(samples)
    source = {samples.split: samples.dataset, **samples.others}
    check_splits(source)
    check_format(samples, format)
    samples.unchanged()
    with (
        whole_folder(path, overwrite=overwrite, reads=files_read(selection.scores)) as folder,
        quiet_writing(),
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
            digest_of(folder / "data"),
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


__getattr__ = moved(__name__, ["datapruner.outputs.hub"])
