"""Token-pruned data: the original columns beside ``input_ids`` and ``labels``, which a trainer reads as they are.

A token that was pruned keeps its place in ``input_ids`` and has the label -100: it leaves the loss, not the input.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError, RowError
from datapruner.ragged import offsets_of
from datapruner.samples.portable import TOKEN_COLUMNS, check_free
from datapruner.selection.tokens import tokens_scored
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

    from datapruner.results.selected import Selected
    from datapruner.samples.rendered import Rendered
    from datapruner.samples.samples import Samples

logger = logging.getLogger(__name__)

IGNORED = -100
"""What trainers leave out of the loss."""
BATCH = 1000

Row = tuple[NDArray[np.int32], NDArray[np.int32]]


def kept_splits(selection: Selected, folder: Path) -> DatasetDict:
    """Give the kept rows beside the other splits: as they are, or with token columns where tokens were pruned.

    Parameters
    ----------
    selection : Selected
    folder : Path
        Where files go that token columns need; the caller's to remove.
    """
    from datasets import DatasetDict

    samples = selection.scores.samples
    if selection.token_masks is not None:
        return token_splits(selection, folder)
    return DatasetDict({samples.split: samples.dataset.select(selection.indices), **samples.others})


def token_splits(selection: Selected, folder: Path) -> DatasetDict:
    """Write the kept rows and the other splits, all with token columns, as Arrow files that are then mapped.

    The other splits are whole: without the columns ``load_dataset`` would refuse splits that differ, and so they
    serve for evaluation as they are. A split that cannot be read like the pruned one has nulls there, and a warning
    says so.

    Parameters
    ----------
    selection : Selected
        With token masks.
    folder : Path
        Where the files go; the caller's to remove.

    Raises
    ------
    DataPrunerError
        The columns are taken, or the rows are not those that were scored.
    """
    from datasets import DatasetDict

    samples = selection.scores.samples
    check_free(samples)
    folder.mkdir(exist_ok=True)
    kept = samples.dataset.select(selection.indices)
    with samples.naming():
        splits = {samples.split: _written(kept, _pruned(selection), folder / "kept.arrow")}
    for number, split in enumerate(samples.others):
        splits[split] = _other(selection, split, folder / f"{number}.arrow")
    return DatasetDict(splits)


def _rendered(selection: Selected, samples: Samples, rows: Ints) -> Iterator[Rendered]:
    if selection.scores.renderer is None:
        raise DataPrunerError(
            "token-pruned data needs the tokenizer of the model that scored the rows, which these scores do not have; "
            "keep whole rows with token_keep=1"
        )
    return selection.scores.renderer(samples, rows)


def _labels(rendered: Rendered) -> NDArray[np.int32]:
    """Label what is supervised; nothing predicts a row's first token."""
    labels = np.where(rendered.supervised, rendered.input_ids, IGNORED).astype(np.int32)
    labels[:1] = IGNORED
    return labels


def _pruned(selection: Selected) -> Iterator[Row]:
    """Give the kept rows' tokens, and their labels without what was pruned."""
    masks, rows = selection.token_masks, selection.indices
    lengths = tokens_scored(selection.scores.rankings[selection.scorer].state)
    assert masks is not None
    for row, rendered in zip(
        rows.tolist(), _rendered(selection, selection.scores.samples, rows), strict=True
    ):
        labels, mask = _labels(rendered), masks[row]
        targets = np.flatnonzero(labels != IGNORED)
        scored = (len(mask) or len(targets)) if lengths is None else int(lengths[row])
        if len(targets) != scored or len(mask) not in (0, scored):
            raise RowError(
                f"row {row} has {len(targets)} supervised tokens, but had {scored} when it was scored: the tokenizer, "
                "its chat template or max_length has changed; score again",
                row,
            )
        if len(mask):
            labels[targets[~mask]] = IGNORED
        yield rendered.input_ids, labels


def _other(selection: Selected, split: str, file: Path) -> Dataset:
    """Write another split, all of its rows and all of their tokens."""
    samples = selection.scores.samples
    dataset = samples.others[split]
    ways = samples.other_ways.get(split, ())
    own = replace(samples, dataset=dataset, split=split, others={}, ways=ways, origins=())
    try:
        if samples.ways and not ways:
            raise DataPrunerError("nothing says how its rows are read")
        _check_columns(own)
        whole = _rendered(selection, own, np.arange(len(dataset)))
        return _written(dataset, ((row.input_ids, _labels(row)) for row in whole), file)
    except DataPrunerError as error:
        logger.warning(
            "the split '%s' is carried over without tokens, input_ids and labels being null: %s",
            safe_text(split, 60),
            error,
        )
    return _written(dataset, None, file)


def _check_columns(own: Samples) -> None:
    """Refuse a split without the columns that its rows are read by."""
    lacking = [(f"the rows of '{safe_text(way.name, 60)}' have", way.missing) for way in own.ways]
    if not own.ways:
        lacking = [("it has", [name for name in own.layout.spoken if name not in own.dataset.column_names])]
    said = [
        f"{who} no column {' and '.join(repr(safe_text(name, 60)) for name in names)}"
        for who, names in lacking
        if names
    ]
    if said:
        raise DataPrunerError("; ".join(said))


def _written(dataset: Dataset, tokens: Iterator[Row] | None, file: Path) -> Dataset:
    """Write a dataset with its token columns (nulls without tokens), a batch at a time, and map the file."""
    import pyarrow as pa
    from datasets import Dataset, Features

    integers = pa.list_(pa.int32())
    added = Features.from_arrow_schema(pa.schema([(name, integers) for name in TOKEN_COLUMNS]))
    info = dataset.info.copy()
    info.features = Features({**dataset.features, **added})
    schema = info.features.arrow_schema
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for table in dataset.with_format("arrow").iter(BATCH):
            if tokens is None:
                columns: list[Any] = [pa.nulls(len(table), integers)] * 2
            else:
                batch = list(islice(tokens, len(table)))
                columns = [_list_array([row[place] for row in batch]) for place in range(2)]
            for name, column in zip(TOKEN_COLUMNS, columns, strict=True):
                table = table.append_column(name, column)  # noqa: PLW2901
            writer.write_table(table.select(schema.names).cast(schema))
    return Dataset.from_file(str(file), info=info, split=dataset.split)


def _list_array(rows: list[NDArray[np.int32]]) -> pa.Array:
    import pyarrow as pa

    offsets = offsets_of(np.array([len(row) for row in rows], dtype=np.int64))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(np.concatenate(rows)))
