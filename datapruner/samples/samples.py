"""A source's rows, untouched, and the ways to read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from datapruner.errors import DataPrunerError, RowError
from datapruner.files.mapped import COLUMN_BLOCK, Pages, blocks
from datapruner.files.remote import label_of
from datapruner.samples.conversation import conversation
from datapruner.samples.hashing import content_hash
from datapruner.samples.identity import digest
from datapruner.samples.origins import Origin
from datapruner.samples.preference import pairs, votes
from datapruner.samples.reading import Row
from datapruner.samples.sample import Layout, Part, Sample, column_list
from datapruner.samples.stamps import Stamp, check_stamps
from datapruner.samples.ways import Mixed, Reader, Way
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    from datasets import Dataset

BLOCK = 1000
"""Rows read at a time: enough to be quick, few enough that 10 MB rows still fit."""

T = TypeVar("T")


@dataclass
class Samples:
    """A source's rows, untouched, and the way to read them.

    Parameters
    ----------
    dataset
        The source rows with all their columns.
    layout
        How they are read; of several sources, what their layouts are together.
    source
        The source as the user named it.
    split
        The split that ``dataset`` is.
    others
        The other splits, carried over.
    revision
        The hub revision, where it is known.
    given_nulls
        For each split whose rows have different keys: for each column that some rows lack, the rows that hold a
        null of their own there.
    exact
        No null inside a struct of the source is padding; see :func:`datapruner.samples.exact.exact_array`.
    stamps
        The size and time of the files that were read.
    origins
        The sources, where there are several: their rows follow each other.
    source_column
        The column that names each row's source then.
    ways
        How the rows of each of several sources are read, one source after another; empty where all are read alike.
    other_ways
        The same of other splits.
    """

    dataset: Dataset
    layout: Layout
    source: str
    split: str = "train"
    others: dict[str, Dataset] = field(default_factory=dict)
    revision: str | None = None
    given_nulls: dict[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    exact: bool = False
    stamps: dict[str, Stamp] = field(default_factory=dict)
    origins: tuple[Origin, ...] = ()
    source_column: str | None = None
    ways: tuple[Way, ...] = ()
    other_ways: dict[str, tuple[Way, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Return one row as a conversation."""
        rows = len(self)
        if not -rows <= index < rows:
            # IndexError, so that `for sample in samples` ends as for any sequence.
            raise IndexError(f"row {index} is out of range: the source has {rows} rows")
        return next(self.iter_samples(np.array([index % rows])))

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over all rows, block by block."""
        return self.iter_samples()

    @cached_property
    def own_content(self) -> str:
        """The hash of the rows' columns, types and values; see :func:`~datapruner.samples.hashing.content_hash`."""
        return content_hash(self.dataset)

    @cached_property
    def content(self) -> str:
        """The hash of the rows and of the other splits, which are carried over."""
        others = {split: content_hash(dataset) for split, dataset in self.others.items()}
        return digest({self.split: self.own_content, **others}).hex() if others else self.own_content

    @cached_property
    def origin_contents(self) -> dict[str, str]:
        """Of each of several sources the hash of its rows, without columns that they may have from another alone."""
        found, start = {}, 0
        for origin in self.origins:
            rows = self.dataset.select(range(start, start + origin.rows))
            own = [name for name in rows.column_names if _holds(rows, name)]
            found[origin.name] = content_hash(rows.select_columns(own))
            start += origin.rows
        return found

    @property
    def origin_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every row the number of its source among several, and its position in that; int64 (n,) each."""
        counts = np.array([origin.rows for origin in self.origins], dtype=np.int64)
        codes = np.repeat(np.arange(len(counts)), counts)
        return codes, np.arange(len(codes)) - (np.cumsum(counts) - counts)[codes]

    def origin_of(self, row: int) -> tuple[Origin, int] | None:
        """Give a row's source among several, and its position in that; None where there is but one."""
        for origin in self.origins:
            if row < origin.rows:
                return origin, row
            row -= origin.rows
        return None

    def row_words(self, row: int) -> str:
        """Name a row in a sentence, where there are several sources with its place in its own: ``row 9 (row 3 of b)``.

        Parameters
        ----------
        row
            Its position.
        """
        place = self._place(row)
        return f"row {row} ({place})" if place else f"row {row}"

    def _place(self, row: int) -> str:
        found = self.origin_of(row)
        return "" if found is None else f"row {found[1]} of {safe_text(label_of(found[0].source), 200)}"

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Say of an error that names a row in which of several sources it lies, and where."""
        try:
            yield
        except RowError as error:
            error.place("" if error.row is None else self._place(error.row))
            raise

    def unchanged(self) -> Samples:
        """Return itself, and refuse rows whose files have changed since they were read."""
        check_stamps(self.stamps)
        return self

    @property
    def unread(self) -> list[str]:
        """The columns that no role was found for: rows that differ there alone are read as equal."""
        found = {name for _, names in self.left for name in names}
        return [name for name in self.dataset.column_names if name in found]

    @property
    def left(self) -> list[tuple[Layout, list[str]]]:
        """The layouts, and of each the columns that no role was found for."""
        names = [(reader.layout, reader.way.unread) for reader in self._readers]
        return [(layout, [name for name in found if name != self.source_column]) for layout, found in names]

    @cached_property
    def _readers(self) -> list[Reader]:
        if not self.ways:
            return [Reader(self.dataset, Way(len(self), self.layout, self.dataset.features, self.exact))]
        starts = np.cumsum([0, *(way.rows for way in self.ways)]).tolist()
        return [Reader(self.dataset, way, start) for way, start in zip(self.ways, starts, strict=False)]

    @property
    def layouts(self) -> list[tuple[str, Layout]]:
        """Each source's name and the layout that its rows are read in, where these are several; empty else."""
        mixed = isinstance(self.layout, Mixed)
        return [(way.name, way.layout) for way in self.ways] if mixed else []

    @cached_property
    def _pages(self) -> Pages:
        """Those of the files that the rows are mapped from, and of those that were read, which may be the same."""
        return Pages(self.dataset, self.stamps)

    def spans(self) -> Iterator[tuple[int, int, Layout]]:
        """Give the rows, from the first to before the last, that are read in one layout, and this layout."""
        for reader in self._readers:
            yield reader.start, reader.start + reader.way.rows, reader.layout

    def _each(
        self, rows: np.ndarray | None, read: Callable[[Reader, np.ndarray], Iterable[T]]
    ) -> Iterator[T]:
        """Read rows a block at a time, each in its own way."""
        total = len(self) if rows is None else len(rows)
        starts = [reader.start for reader in self._readers]
        for start in range(0, total, BLOCK):
            stop = min(start + BLOCK, total)
            numbers = np.arange(start, stop) if rows is None else np.asarray(rows[start:stop], dtype=np.int64)
            self._pages.cross(int(np.ptp(numbers)) + 1)
            codes = np.searchsorted(starts, numbers, side="right") - 1
            if (codes == codes[0]).all():
                yield from read(self._readers[codes[0]], numbers)
                continue
            found: dict[int, T] = {}
            for code in np.unique(codes).tolist():
                places = np.flatnonzero(codes == code)
                found |= zip(places.tolist(), read(self._readers[code], numbers[places]), strict=True)
            yield from (found[place] for place in range(len(numbers)))
        self._pages.leave()

    def iter_samples(self, rows: np.ndarray | None = None, *, identity: bool = True) -> Iterator[Sample]:
        """Read rows as conversations, a block at a time.

        Parameters
        ----------
        rows
            The rows to read, in this order; all of them by default.
        identity
            Read what tells rows apart besides the conversation too. Without it, :meth:`Sample.key` is an error.
        """
        if not self.layout.has_text:
            raise DataPrunerError(
                f"{safe_text(self.source, 200)} was read as layout '{self.layout.name}', which has no text;"
                f" use a scorer that"
                f" works on embeddings or images, or name the text columns, --columns=text=COLUMN."
            )
        with self.naming():
            yield from self._each(rows, lambda reader, numbers: reader.samples(numbers, identity=identity))

    def iter_rows(self, rows: np.ndarray | None = None) -> Iterator[Row]:
        """Read rows by their roles, a block at a time, before they are conversations."""
        with self.naming():
            yield from self._each(rows, lambda reader, numbers: reader.rows(numbers))

    def iter_keys(self, rows: np.ndarray | None = None) -> Iterator[str]:
        """Give a text for each row that two rows share only when all that their layout gives meaning to is the same.

        Unlike :meth:`iter_samples` it knows images and vectors, too, whose content is hashed.
        """
        if self.layout.has_text:
            yield from (sample.key() for sample in self.iter_samples(rows))
            return
        if not self.layout.columns:
            raise DataPrunerError(
                f"{safe_text(self.source, 200)} has no column that could tell its rows apart; name one with --columns"
            )
        yield from self._each(
            rows, lambda reader, numbers: [found.hex() for found in reader.digests(numbers)]
        )

    def iter_parts(self, which: Part, rows: np.ndarray | None = None) -> Iterator[str]:
        """Read one part (prompt, response or both) of each row as text."""
        return (sample.part(which) for sample in self.iter_samples(rows, identity=False))

    def texts(self, which: Part = "both", rows: np.ndarray | None = None) -> list[str]:
        """Return one part of each row as a list of texts."""
        return list(self.iter_parts(which, rows))

    def excerpts(self, rows: np.ndarray, limit: int) -> list[str]:
        """Return what stands for each row on one line; see :meth:`Sample.excerpt`."""
        return [sample.excerpt(limit) for sample in self.iter_samples(rows, identity=False)]

    def check_column(self, name: str) -> str:
        """Return the column's name, or say which columns there are."""
        names = list(self.dataset.column_names)
        if name not in names:
            raise DataPrunerError(
                f"{safe_text(self.source, 200)} has no column '{safe_text(name, 60)}'."
                f"{did_you_mean(name, names)}"
                f" Its columns: {column_list(names)}."
            )
        return name

    def column(self, name: str) -> list[Any]:
        """Return one column's values as Python objects."""
        # As a slice, which is read in one go; a column that is iterated over is read in small batches.
        return _shared(self.dataset, self.check_column(name)) or list(self.dataset.with_format(None)[name][:])

    def preference(self, rows: np.ndarray | None = None) -> Dataset:
        """Return rows as trl's preference trainers read them: pairs, or votes.

        Parameters
        ----------
        rows
            The rows to take, in this order; all of them by default.

        Raises
        ------
        DataPrunerError
            The rows have no rejected answers and no votes.
        """
        if self.layout.name == "unpaired_preference":
            label: list[Any] = []
            for start, stop, layout in self.spans():
                label += self.column(layout.columns["label"])[start:stop]
            held = label if rows is None else [label[row] for row in np.asarray(rows).tolist()]
            with self.naming():
                return votes(self.iter_rows(rows), held)
        if "rejected" not in self.layout.columns:
            raise DataPrunerError(
                f"{safe_text(self.source, 200)} holds no preference data: its layout is '{self.layout.name}', "
                "without rejected answers or votes; `conversation()` gives its rows for SFTTrainer"
            )
        with self.naming():
            return pairs(self.iter_rows(rows))

    def conversation(self, rows: np.ndarray | None = None) -> Dataset:
        """Return rows as trl's SFTTrainer reads them: whole ``messages`` (and ``tools``), or ``text``.

        Parameters
        ----------
        rows
            The rows to take, in this order; all of them by default.
        """
        return conversation(lambda: self.iter_samples(rows, identity=False))


def _holds(dataset: Dataset, name: str) -> bool:
    """Whether a column has anything but nulls."""
    column = dataset.select_columns([name]).with_format("arrow")[:].column(name)
    return bool(column.null_count < len(column))


def _shared(dataset: Dataset, name: str) -> list[Any]:
    """Give a column of texts of which many are equal, each text once in memory; nothing of any other column."""
    import pyarrow as pa

    kinds = dataset.features.arrow_schema.field(name).type
    if not pa.types.is_string(kinds) or not len(dataset):
        return []
    source = dataset.select_columns([name])
    looked_at = source.with_format("arrow")[: min(len(dataset), BLOCK)].column(name)
    if len(looked_at.unique()) > len(looked_at) / 2:
        return []
    out: list[Any] = []
    known: dict[Any, Any] = {}
    for _, table in blocks(source, COLUMN_BLOCK):
        block = table.column(name).combine_chunks().dictionary_encode()
        names = [known.setdefault(value, value) for value in block.dictionary.to_pylist()]
        out += [None if code is None else names[code] for code in block.indices.to_pylist()]
    return out
