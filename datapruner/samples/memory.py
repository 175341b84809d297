"""What is in memory already: datasets, frames, Arrow tables, lists, columns, generators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.samples.exact import exact_array
from datapruner.samples.files import SPLIT_WORDS, load_files
from datapruner.samples.plain import say_converted
from datapruner.samples.readers import BLOCK_ROWS, file_format
from datapruner.samples.rows import Rows
from datapruner.samples.tables import Gatherer, Read, checked
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa

STREAMED = 1000
"""Rows of a streaming dataset that are taken at a time."""
KINDS = (
    "give a hub name, a path, a Dataset, a DatasetDict, a list or generator of dictionaries or of texts, a list of"
    " values for each column, a DataFrame or an Arrow table"
)


def load_memory(source: Any) -> tuple[str, dict[str, Read]]:
    """Take what is in memory already, and name it.

    Raises
    ------
    DataPrunerError
        It is nothing that has rows; the sentence says what to call.
    """
    from datasets import Dataset, IterableDataset, IterableDatasetDict

    if isinstance(source, Dataset):
        return "dataset in memory", {str(source.split or "train"): Read(source)}
    if isinstance(source, IterableDataset):
        label = "streaming dataset"
        return label, {str(source.split or "train"): of_streaming(source, label)}
    if isinstance(source, IterableDatasetDict):
        return "streaming datasets", {
            split: of_streaming(rows, f"streaming split '{safe_text(str(split), 40)}'")
            for split, rows in source.items()
        }
    if isinstance(source, Mapping):
        return _load_mapping(source)
    files = _files(source)
    if files is not None:
        return f"{len(files)} files", {"train": load_files(files, f"The list of {len(files)} files")}
    label = f"{_name(source)} in memory"
    return label, {"train": _load_one(source, label)}


def _name(source: Any) -> str:
    return "list" if isinstance(source, (list, tuple)) else type(source).__name__


def _load_one(source: Any, label: str) -> Read:
    """Take one table of rows, whatever holds it."""
    import pyarrow as pa

    if type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "columns"):
        return _of_pandas(source, label)
    if isinstance(source, pa.RecordBatch):
        source = pa.table(source)
    if hasattr(source, "__arrow_c_stream__") and not hasattr(source, "to_frame"):
        return _of_stream(source, label)
    if hasattr(source, "to_frame") or hasattr(source, "tolist"):
        # One column (of pandas, polars or numpy) is texts, or nothing that has rows.
        return _of_rows((source.to_list if hasattr(source, "to_list") else source.tolist)(), label)
    if isinstance(source, (str, bytes, bytearray)):
        raise DataPrunerError(f"A {type(source).__name__} is not a source; {KINDS}.")
    if isinstance(source, (set, frozenset)):
        raise DataPrunerError("A set has no order, hence no row positions; give a list.")
    if isinstance(source, Iterable):
        return _of_rows(source, label)
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return _of_rows((source[place] for place in range(len(source))), label)
    if hasattr(source, "collect"):
        raise DataPrunerError(f"A {type(source).__name__} has no rows yet; give what its .collect() returns.")
    if callable(source):
        raise DataPrunerError("A function is not a source; call it, and give what it returns.")
    raise DataPrunerError(f"A {type(source).__name__} is not a source; {KINDS}.")


def _load_mapping(source: Mapping[Any, Any]) -> tuple[str, dict[str, Read]]:
    """Take splits by name, or columns by name."""
    from datasets import Dataset

    odd = next((key for key in source if not isinstance(key, str)), None)
    if odd is not None:
        raise DataPrunerError(
            f"The key {safe_text(repr(odd), 60)} is no name of a column or a split; use texts."
        )
    if source and all(isinstance(value, Dataset) for value in source.values()):
        return "datasets in memory", {split: Read(dataset) for split, dataset in source.items()}
    if source and all(key.lower() in SPLIT_WORDS for key in source):
        return "splits in memory", {
            split: _load_one(rows, f"split '{safe_text(split, 40)}' in memory")
            for split, rows in source.items()
        }
    label = "columns in memory"
    columns = {name: _values(name, value) for name, value in source.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{safe_text(name, 40)}: {length}" for name, length in list(lengths.items())[:10])
        raise DataPrunerError(
            f"The columns in memory are not of one length ({shown}); give each row's value in each."
        )
    rows = (dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True))
    return label, {"train": _of_rows(rows, label)}


def _values(name: str, value: Any) -> Sequence[Any]:
    """Return a column's values as a sequence."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    elif hasattr(value, "to_pylist"):
        value = value.to_pylist()
    if isinstance(value, (list, tuple)):
        return value
    raise DataPrunerError(
        f"The column '{safe_text(name, 60)}' is a {type(value).__name__}, not a list with a value for each row; give"
        " one row as a list of one dictionary."
    )


def _files(source: Any) -> list[Path] | None:
    """Return the paths that a list is made of; texts that are no data files are rows."""
    if not isinstance(source, (list, tuple)) or not source:
        return None
    if all(isinstance(item, Path) for item in source):
        return [item.expanduser() for item in source]
    if not all(isinstance(item, str) and len(item) < 1024 and file_format(Path(item)) for item in source):
        return None
    return [Path(item).expanduser() for item in source]


def _of_pandas(frame: Any, label: str) -> Read:
    """Take a pandas DataFrame; NaN among objects is no value, and objects are kept as they are."""
    import pyarrow as pa

    def column(name: str, values: Any) -> pa.Array:
        try:
            if values.dtype == object:
                held = values.where(values.notna(), None).tolist()
                if any(isinstance(value, (dict, list, tuple)) for value in held):
                    return exact_array(held)
            return pa.array(values, from_pandas=True)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            reason = safe_text(" ".join(str(error).split()), 120)
            raise DataPrunerError(
                f"{label}: column '{safe_text(name, 60)}' holds values that make no column ({reason}); make them one"
                " type."
            ) from error

    doubles = frame.columns[frame.columns.duplicated()]
    if len(doubles):
        raise DataPrunerError(
            f"{label} has more than one column called '{safe_text(str(doubles[0]), 60)}'; rename one."
        )
    if not len(frame.columns):
        return Gatherer(label).read()
    columns = {str(name): column(str(name), frame.iloc[:, place]) for place, name in enumerate(frame.columns)}
    gatherer = Gatherer(label)
    gatherer.add(pa.table(columns), label)
    return gatherer.read()


def _of_stream(source: Any, label: str) -> Read:
    """Take what hands out Arrow's batches: polars, duckdb, pyarrow and others."""
    import pyarrow as pa

    gatherer = Gatherer(label)
    try:
        with pa.RecordBatchReader.from_stream(source) as reader:
            say_converted(reader.schema, label)
            for batch in reader:
                gatherer.add(pa.Table.from_batches([batch]), label)
    except (pa.ArrowException, ValueError, TypeError) as error:
        reason = safe_text(" ".join(str(error).split()), 160)
        raise DataPrunerError(f"{label} hands out no table of Arrow ({reason}); {KINDS}.") from error
    return gatherer.read()


def of_streaming(source: Any, label: str) -> Read:
    """Take a streaming dataset to its end, once and block by block; what does not fit into memory goes to a file.

    Raises
    ------
    DataPrunerError
        It cannot be read to its end.
    """
    if source.features is None:
        return _of_rows(_read_on(source, label), label)
    kinds = source.features
    gatherer = Gatherer(label)
    for table in _read_on(source.with_format("arrow").iter(batch_size=STREAMED), label, STREAMED):
        gatherer.add(table.replace_schema_metadata(None), label)
    read = gatherer.read()
    made = read.dataset
    if {*kinds} == {*made.features} and kinds.arrow_schema.equals(made.features.arrow_schema):
        info = made.info.copy()
        info.features = type(made.features)({name: kinds[name] for name in made.features})
        made = type(made)(made.data, info=info, split=made.split)
    return replace(read, dataset=made)


def _read_on(stream: Iterable[Any], label: str, step: int = 1) -> Iterator[Any]:
    """Give what a stream gives, so many rows at a time; what it raises is a sentence that says how far it got."""
    steps = iter(stream)
    number = 0
    while True:
        try:
            one = next(steps)
        except StopIteration:
            return
        except Exception as error:
            reason = safe_text(" ".join(str(error).split()), 160) or type(error).__name__
            where = (
                f"row {number:,}" if step == 1 else f"rows {number * step:,} to {(number + 1) * step - 1:,}"
            )
            raise DataPrunerError(
                f"The {label} ended in an error at {where} ({reason}); try again, or load it without streaming=True."
            ) from error
        number += 1
        yield one


def _of_rows(rows: Iterable[Any], label: str) -> Read:
    """Take dictionaries or texts one after another."""
    from datasets import Dataset

    rows = iter(rows)
    first = list(islice(rows, 1))
    rows = chain(first, rows)
    if any(_is_image(value) for row in first if isinstance(row, dict) for value in row.values()):
        # `datasets` encodes images; Arrow knows nothing of them.
        return Read(checked(lambda: Dataset.from_list(list(rows)), label))
    gatherer = Gatherer(label)
    for block in _blocks(rows, label):
        gatherer.add(block, label)
    return gatherer.read()


def _is_image(value: Any) -> bool:
    return type(value).__module__.startswith("PIL.")


def _blocks(rows: Iterable[Any], source: str) -> Iterator[Rows]:
    """Cut rows into blocks."""
    block = Rows(source)
    texts: bool | None = None
    for number, row in enumerate(rows):
        texts = isinstance(row, str) if texts is None else texts
        block.add(f"row {number}", 0, _row(row, texts, f"{source}, row {number}"))
        if len(block.rows) == BLOCK_ROWS:
            yield block
            block = Rows(source)
    if block.rows:
        yield block


def _row(row: Any, texts: bool, where: str) -> dict[str, Any]:
    """Check that this is a row: a dictionary with names as its keys, or a text where all rows are texts."""
    if texts and isinstance(row, str):
        return {"text": row}
    if texts or not isinstance(row, dict) or not row:
        kind = "an empty dictionary" if isinstance(row, dict) and not row else type(row).__name__
        wanted = (
            "a text, as the rows before it are" if texts else "a list of dictionaries from column to value"
        )
        raise DataPrunerError(f"{where}: {kind} is not a row; give {wanted}.")
    odd = next((key for key in row if not isinstance(key, str)), None)
    if odd is not None:
        raise DataPrunerError(f"{where}: the key {safe_text(repr(odd), 60)} is not a string.")
    if any(type(value).__module__ == "torch" for value in row.values()):
        return {
            key: value.tolist() if type(value).__module__ == "torch" else value for key, value in row.items()
        }
    return row
