"""From rows or tables, piece by piece, to one dataset: little in memory, the rest in a private file."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import MALFORMED, DataPrunerError
from datapruner.files.mapped import let_go
from datapruner.files.temporary import private_folder
from datapruner.samples.exact import as_type, merged
from datapruner.samples.fingerprint import dataset_of
from datapruner.samples.plain import is_plain, plain, say_converted
from datapruner.samples.rows import Rows
from datapruner.samples.sample import column_list
from datapruner.samples.stamps import Stamp
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


@dataclass(frozen=True)
class Read:
    """A dataset as it was read.

    Parameters
    ----------
    dataset
        The rows.
    given_nulls
        For each column that some rows do not have at all, the rows that have it and hold a null there: in all
        other rows a null stands for nothing. Empty for sources that know no missing keys.
    exact
        No null inside a struct is padding: every object had that key.
    stamps
        The files that it was read from; see :mod:`datapruner.samples.stamps`.
    layouts
        What a result says of how its rows are read; see :mod:`datapruner.samples.recorded`.
    """

    dataset: Dataset
    given_nulls: Mapping[str, Ints] = field(default_factory=dict)
    exact: bool = False
    stamps: Mapping[str, Stamp] = field(default_factory=dict)
    layouts: Sequence[Mapping[str, Any]] = ()


class Gatherer:
    """Take blocks one after another and give one dataset, in memory when small and memory-mapped when not."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tables: list[tuple[str, pa.Table]] = []
        self.bytes = 0
        self.folder: Path | None = None
        self.segments: list[tuple[str, pa.Schema, Path]] = []
        self.writer: Any = None
        self.exact = False
        self.padded = False
        self.rows = 0
        self.nulls: dict[str, list[Ints]] = {}
        self.held: Counter[str] = Counter()

    def add(self, block: pa.Table | Rows, file: str) -> None:
        """Take the next block; ``file`` is its origin, for the errors."""
        if isinstance(block, Rows):
            table = block.table()
            self.exact = True
            self.padded = self.padded or block.padded
            self._note_keys(block.rows, table)
        else:
            table = plain(block, file)
        self.rows += len(table)
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

    def _note_keys(self, rows: list[dict[str, Any]], table: pa.Table) -> None:
        """Note which nulls are the rows' own, and how many rows have each column."""
        whole = sum(map(len, rows)) == len(rows) * table.num_columns
        for name, column in zip(table.column_names, table.columns, strict=True):
            if whole or not column.null_count:
                self.held[name] += len(rows)
            else:
                self.held[name] += sum(name in row for row in rows)
            if column.null_count:
                null = np.flatnonzero(column.is_null().to_numpy())
                own = null if whole else [row for row in null.tolist() if name in rows[row]]
                self.nulls.setdefault(name, []).append(self.rows + np.asarray(own, dtype=np.int64))

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

    def read(self) -> Read:
        """Return what was gathered."""
        none: Ints = np.zeros(0, dtype=np.int64)
        dataset = self._dataset()
        partial = [name for name, rows in self.held.items() if rows < self.rows]
        nulls = {name: np.concatenate([none, *self.nulls.get(name, [])]) for name in partial}
        return Read(dataset, nulls, exact=self.exact and not self.padded)

    def _dataset(self) -> Dataset:
        import pyarrow as pa
        from datasets import Dataset

        self._close()
        schema = self._schema()
        if self.folder is None:
            tables = [_cast(table, schema, file) for file, table in self.tables]
            return checked(lambda: dataset_of(pa.concat_tables(tables)), self.source)
        path = self.segments[0][2]
        if len(self.segments) > 1 or self.segments[0][1] != schema:
            path = self.folder / "data.arrow"
            with spilling(self.source), pa.ipc.new_stream(str(path), schema) as writer:
                for file, _, segment in self.segments:
                    with pa.ipc.open_stream(pa.memory_map(str(segment))) as reader:
                        for batch in reader:
                            writer.write_table(_cast(pa.Table.from_batches([batch]), schema, file))
                            let_go([str(segment)])
                    segment.unlink()
        return checked(lambda: Dataset.from_file(str(path)), self.source)

    def _schema(self) -> pa.Schema:
        """Merge the tables' schemas; say which column of which file does not agree."""
        found = [(file, schema) for file, schema, _ in self.segments]
        found += [(file, table.schema) for file, table in self.tables]
        if not found:
            raise DataPrunerError(f"{self.source} has no rows; give a source with at least one row.")
        first_file, whole = found[0]
        for file, schema in found[1:]:
            if schema == whole:
                continue
            if file != first_file and not set(schema.names) & set(whole.names):
                raise DataPrunerError(
                    f"{first_file} and {file} have no column in common ({column_list(whole.names, 5)}; "
                    f"{column_list(schema.names, 5)}); name the files of one dataset."
                )
            whole = _joined(
                whole, schema, first_file if first_file == file else f"{first_file} and {file}", self.exact
            )
        metadata = {k: v for k, v in (found[0][1].metadata or {}).items() if k == b"huggingface"}
        whole = whole.with_metadata(metadata or None)
        return whole if _metadata_holds(whole) else whole.remove_metadata()


def _joined(whole: pa.Schema, schema: pa.Schema, where: str, exact: bool) -> pa.Schema:
    """Merge two schemas, column by column; say which column does not agree."""
    import pyarrow as pa

    fields = {column.name: column for column in whole}
    for column in schema:
        other = fields.setdefault(column.name, column)
        try:
            if exact:
                fields[column.name] = pa.field(column.name, merged(other.type, column.type))
            else:
                pair = [pa.schema([other]), pa.schema([column])]
                fields[column.name] = pa.unify_schemas(pair, promote_options="permissive").field(0)
        except (pa.ArrowException, TypeError):
            kinds = f"{safe_text(str(other.type), 80)} and {safe_text(str(column.type), 80)}"
            name = safe_text(column.name, 60)
            raise DataPrunerError(
                f"Column '{name}' mixes {kinds} in {where}; make the column one type."
            ) from None
    return pa.schema(list(fields.values()))


def _metadata_holds(schema: pa.Schema) -> bool:
    """Whether the features that `datasets` once stored in a file still describe its columns."""
    from datasets import Features

    if not schema.metadata:
        return True
    try:
        features = Features.from_arrow_schema(schema)
        return bool(set(features) == set(schema.names)) and bool(features.arrow_schema.equals(schema))
    except MALFORMED:
        # Written by another version of `datasets`; the columns' own types are as good.
        return False


def _cast(table: pa.Table, schema: pa.Schema, file: str) -> pa.Table:
    """Bring a table to the merged schema; a column that it lacks is null."""
    import pyarrow as pa

    columns = []
    held = dict(zip(table.column_names, table.columns, strict=True))  # by name, a table looks through all
    for wanted in schema:
        if wanted.name not in held:
            columns.append(pa.chunked_array([pa.nulls(len(table), wanted.type)]))
            continue
        try:
            columns.append(as_type(held[wanted.name], wanted.type))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise DataPrunerError(
                f"{file}: column '{safe_text(wanted.name, 60)}' does not fit {safe_text(str(wanted.type), 80)}"
                f" ({safe_text(str(error).splitlines()[0], 120)}); make the column one type."
            ) from None
    return pa.Table.from_arrays(columns, schema=schema)


def checked(make: Callable[[], Dataset], source: str) -> Dataset:
    """Make a dataset, and turn a column type that `datasets` cannot hold into a sentence."""
    import pyarrow as pa

    try:
        return make()
    except (pa.ArrowException, *MALFORMED) as error:
        reason = safe_text(" ".join(str(error).split()), 200)
        raise DataPrunerError(
            f"{source} cannot be held as a dataset ({reason}); mend that column."
        ) from error


def gathered(table: pa.Table, source: str, make: Callable[[], Dataset]) -> Read:
    """Return a table as it lies, unless its types are such as no dataset holds."""
    say_converted(table.schema, source)
    if all(is_plain(field.type) for field in table.schema):
        return Read(checked(make, source))
    gatherer = Gatherer(source)
    for batch in table.to_batches():
        gatherer.add(type(table).from_batches([batch]), source)
    return gatherer.read()


def held(dataset: Dataset, source: str) -> Dataset:
    """Return a dataset of `datasets` whose every type can be read and written; most are returned as they are."""
    if all(is_plain(column.type) for column in dataset.features.arrow_schema):
        return dataset
    gatherer = Gatherer(source)
    for table in dataset.with_format("arrow").iter(1000):
        gatherer.add(table.replace_schema_metadata(None), source)
    made = gatherer.read().dataset
    kinds = dataset.features.arrow_schema
    own = {name: kind for name, kind in dataset.features.items() if is_plain(kinds.field(name).type)}
    info = dataset.info.copy()
    info.features = type(dataset.features)({**made.features, **own})
    return type(dataset)(made.data, info=info, split=dataset.split)
