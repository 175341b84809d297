"""From rows or tables, piece by piece, to one dataset: little in memory, the rest in a private file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.samples.base import column_list
from datapruner.temporary import private_folder
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

IN_MEMORY_BYTES = 128 << 20
"""A source that is larger as Arrow goes to a temporary file and is memory-mapped."""


@contextmanager
def spilling(source: str) -> Iterator[None]:
    """Turn a full or read-only temporary folder into a sentence."""
    try:
        yield
    except OSError as error:
        reason = safe_text(" ".join(str(error.strerror or error).split()), 120)
        raise DataPrunerError(
            f"{source} does not fit into memory, and the temporary folder {tempfile.gettempdir()} cannot be "
            f"written ({reason}); make room there, or name another folder with TMPDIR."
        ) from error


def table_of_rows(rows: list[dict[str, Any]], place: Callable[[int], str]) -> pa.Table:
    """Build a table of a block of rows; a key that a row lacks is null.

    Parameters
    ----------
    rows
        The rows.
    place
        Says where a row of the block stands, for the errors: ``"a.jsonl, line 17"``.
    """
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    arrays = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            arrays[name] = pa.array(values, from_pandas=False)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise _bad_value(name, values, place, error) from None
    return pa.table(arrays)


def _bad_value(
    name: str, values: list[Any], place: Callable[[int], str], error: Exception
) -> DataPrunerError:
    """Find the first row that cannot join the rows before it, and say why."""
    import pyarrow as pa

    def fails(stop: int) -> bool:
        try:
            pa.array(values[:stop], from_pandas=False)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return True
        return False

    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    where = f"{place(high - 1)}: column '{safe_text(name, 60)}'"
    value = values[high - 1]
    before = next((item for item in values[: high - 1] if item is not None), None)
    if isinstance(error, UnicodeEncodeError):
        what = "holds a lone surrogate (half a character, such as \\ud800), which is not text; remove it."
    elif isinstance(error, OverflowError):
        what = "holds an integer that does not fit into 64 bits; store it as a string."
    elif before is not None and type(before) is not type(value):
        what = (
            f"holds {type(value).__name__} where earlier rows hold {type(before).__name__};"
            f" make the column one type."
        )
    else:
        reason = safe_text(str(error).splitlines()[0], 120)
        what = f"mixes types inside its values ({reason}); make them one type."
    return DataPrunerError(f"{where} {what}")


class Gatherer:
    """Take tables one after another and give one dataset, in memory when small and memory-mapped when not."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tables: list[tuple[str, pa.Table]] = []
        self.bytes = 0
        self.folder: Path | None = None
        self.segments: list[tuple[str, pa.Schema, Path]] = []
        self.writer: Any = None

    def add(self, table: pa.Table, file: str) -> None:
        """Take the next table; ``file`` is its origin, for the errors."""
        doubles = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        if doubles:
            raise DataPrunerError(
                f"{file} has more than one column called '{safe_text(doubles[0], 60)}'; rename one."
            )
        table = _plain(table)
        if self.folder is not None:
            self._write(table, file)
            return
        self.tables.append((file, table))
        self.bytes += table.nbytes
        if self.bytes > IN_MEMORY_BYTES:
            with spilling(self.source):
                self.folder = private_folder()
            for origin, kept in self.tables:
                self._write(kept, origin)
            self.tables = []

    def _write(self, table: pa.Table, file: str) -> None:
        """Append to the segment on disk; a table with another schema starts the next segment."""
        import pyarrow as pa

        if not self.segments or self.segments[-1][1] != table.schema:
            self._close()
            assert self.folder is not None
            path = self.folder / f"segment-{len(self.segments):06d}.arrow"
            self.segments.append((file, table.schema, path))
            with spilling(self.source):
                self.writer = pa.ipc.new_stream(str(path), table.schema)
        with spilling(self.source):
            self.writer.write_table(table)

    def _close(self) -> None:
        if self.writer is not None:
            with spilling(self.source):
                self.writer.close()
            self.writer = None

    def dataset(self) -> Dataset:
        """Return what was gathered."""
        import pyarrow as pa
        from datasets import Dataset
        from datasets.table import InMemoryTable

        self._close()
        schema = self._schema()
        if self.folder is None:
            tables = [_cast(table, schema, file) for file, table in self.tables]
            return checked(lambda: Dataset(InMemoryTable(pa.concat_tables(tables))), self.source)
        path = self.segments[0][2]
        if len(self.segments) > 1 or self.segments[0][1] != schema:
            path = self.folder / "data.arrow"
            with spilling(self.source), pa.ipc.new_stream(str(path), schema) as writer:
                for file, _, segment in self.segments:
                    with pa.ipc.open_stream(pa.memory_map(str(segment))) as reader:
                        for batch in reader:
                            writer.write_table(_cast(pa.Table.from_batches([batch]), schema, file))
                    segment.unlink()
        return checked(lambda: Dataset.from_file(str(path)), self.source)

    def _schema(self) -> pa.Schema:
        """Merge the tables' schemas; say which column of which file does not agree."""
        import pyarrow as pa

        found = [(file, schema) for file, schema, _ in self.segments]
        found += [(file, table.schema) for file, table in self.tables]
        if not found:
            raise DataPrunerError(f"{self.source} has no rows; give a source with at least one row.")
        first_file, merged = found[0]
        for file, schema in found[1:]:
            if schema == merged:
                continue
            if file != first_file and not set(schema.names) & set(merged.names):
                raise DataPrunerError(
                    f"{first_file} and {file} have no column in common ({column_list(merged.names, 5)}; "
                    f"{column_list(schema.names, 5)}); name the files of one dataset."
                )
            try:
                merged = pa.unify_schemas([merged, schema], promote_options="permissive")
            except pa.ArrowException:
                raise _disagreement(merged, schema, first_file, file) from None
        metadata = {k: v for k, v in (found[0][1].metadata or {}).items() if k == b"huggingface"}
        merged = merged.with_metadata(metadata or None)
        return merged if _metadata_holds(merged) else merged.remove_metadata()


def _disagreement(merged: pa.Schema, schema: pa.Schema, first: str, file: str) -> DataPrunerError:
    """Return the error that names the column whose types cannot be merged."""
    import pyarrow as pa

    for field in schema:
        if field.name in merged.names:
            other = merged.field(field.name)
            try:
                pa.unify_schemas([pa.schema([other]), pa.schema([field])], promote_options="permissive")
            except pa.ArrowException:
                kinds = f"{safe_text(str(other.type), 80)} and {safe_text(str(field.type), 80)}"
                where = first if first == file else f"{first} and {file}"
                name = safe_text(field.name, 60)
                return DataPrunerError(f"Column '{name}' mixes {kinds} in {where}; make the column one type.")
    return DataPrunerError(
        f"{first} and {file} have columns that cannot be merged; make each column one type."
    )


def _metadata_holds(schema: pa.Schema) -> bool:
    """Whether the features that `datasets` once stored in a file still describe its columns."""
    from datasets import Features

    if not schema.metadata:
        return True
    try:
        features = Features.from_arrow_schema(schema)
        return bool(set(features) == set(schema.names)) and bool(features.arrow_schema.equals(schema))
    except (ValueError, TypeError, KeyError, AttributeError):
        # Written by another version of `datasets`; the columns' own types are as good.
        return False


def _plain(table: pa.Table) -> pa.Table:
    """Decode dictionaries (pandas' categories), which are a way to store and no type of their own."""
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, pa.field(field.name, field.type.value_type), values)
    return table


def _cast(table: pa.Table, schema: pa.Schema, file: str) -> pa.Table:
    """Bring a table to the merged schema; a column that it lacks is null."""
    import pyarrow as pa

    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.chunked_array([pa.nulls(len(table), field.type)]))
            continue
        try:
            columns.append(table.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise DataPrunerError(
                f"{file}: column '{safe_text(field.name, 60)}' does not fit {safe_text(str(field.type), 80)}"
                f" ({safe_text(str(error).splitlines()[0], 120)}); make the column one type."
            ) from None
    return pa.Table.from_arrays(columns, schema=schema)


def checked(make: Callable[[], Dataset], source: str) -> Dataset:
    """Make a dataset, and turn a column type that `datasets` cannot hold into a sentence."""
    import pyarrow as pa

    try:
        return make()
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError, KeyError) as error:
        reason = safe_text(" ".join(str(error).split()), 200)
        raise DataPrunerError(
            f"{source} cannot be held as a dataset ({reason}); mend that column."
        ) from error


def dataset_of_rows(rows: Iterable[Any], source: str) -> Dataset:
    """Return a dataset of dictionaries that are in memory already."""
    gatherer = Gatherer(source)
    for start, block in _blocks(rows, source):

        def place(index: int, start: int = start) -> str:
            return f"{source}, row {start + index}"

        gatherer.add(table_of_rows(block, place), source)
    return gatherer.dataset()


def _blocks(
    rows: Iterable[Any], source: str, size: int = 10_000
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Cut rows into blocks, each with its first row's number."""
    block: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not row:
            raise DataPrunerError(
                f"{source}, row {number}: {type(row).__name__} is not a row; give a list of"
                f" dictionaries from column to value."
            )
        odd = next((key for key in row if not isinstance(key, str)), None)
        if odd is not None:
            raise DataPrunerError(
                f"{source}, row {number}: the key {safe_text(repr(odd), 60)} is not a string."
            )
        block.append(row)
        if len(block) == size:
            yield number + 1 - size, block
            block = []
    if block:
        yield number + 1 - len(block), block
