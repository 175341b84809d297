"""A source's rows, untouched, and the ways to read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.files.mapped import let_go
from datapruner.samples.confined import decodes
from datapruner.samples.conversation import conversation
from datapruner.samples.hashing import content_hash
from datapruner.samples.identity import TEXTS, digest
from datapruner.samples.origins import Origin
from datapruner.samples.preference import pairs, votes
from datapruner.samples.reading import Row, read_block, read_rows
from datapruner.samples.sample import Layout, Part, Sample, column_list
from datapruner.samples.stamps import Stamp, check_stamps
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    from datasets import Dataset

BLOCK = 1000
"""Rows read at a time: enough to be quick, few enough that 10 MB rows still fit."""

LET_GO = 64
"""Blocks after which the pages of mapped rows leave the process's memory."""

LABELS = 100_000
"""Texts of a column read at a time."""

IMAGES = 50
"""Rows of columns that may hold images read at a time."""


@dataclass
class Samples:
    """A source's rows, untouched, and the way to read them.

    Parameters
    ----------
    dataset
        The source rows with all their columns.
    layout
        How they are read.
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

    def unchanged(self) -> Samples:
        """Return itself, and refuse rows whose files have changed since they were read."""
        check_stamps(self.stamps)
        return self

    @property
    def unread(self) -> list[str]:
        """The columns that no role was found for: rows that differ there alone are read as equal."""
        read = {*self.layout.columns.values(), self.source_column}
        return [name for name in self.dataset.column_names if name not in read]

    @cached_property
    def _spoken(self) -> Dataset:
        """The conversation's columns alone, as Arrow: images and vectors are not read to get at a text."""
        return self.dataset.select_columns(self.layout.spoken).with_format("arrow")

    @cached_property
    def _identified(self) -> Dataset:
        """The conversation's columns, and those beside it that are compared as texts."""
        beside = [self.layout.columns[role] for role in TEXTS if role in self.layout.beside]
        return self.dataset.select_columns(list(dict.fromkeys([*self.layout.spoken, *beside]))).with_format(
            "arrow"
        )

    @cached_property
    def _digested(self) -> tuple[dict[str, str], Dataset, np.ndarray, np.ndarray]:
        """The columns that are compared by a hash, and the hashes so far: images are read once."""
        roles = self.layout.beside if self.layout.has_text else tuple(self.layout.columns)
        columns = {role: self.layout.columns[role] for role in roles if role not in TEXTS}
        source = self.dataset.select_columns(list(dict.fromkeys(columns.values()))).with_format("arrow")
        return columns, source, np.zeros((len(self), 16), np.uint8), np.zeros(len(self), np.bool_)

    def _digests(self, numbers: np.ndarray) -> list[bytes]:
        """Hash what rows hold in the columns that are compared so; empty where there are none."""
        columns, source, hashes, known = self._digested
        if not columns:
            return [b""] * len(numbers)
        features = self.dataset.features
        opened = {role for role, name in columns.items() if decodes(features[name])}
        missing = np.unique(numbers[~known[numbers]])
        for start in range(0, len(missing), IMAGES):
            block = missing[start : start + IMAGES]
            first, stop = int(block[0]), int(block[-1]) + 1
            table = source[first:stop] if stop - first == len(block) else source[block]
            for row, place in enumerate(block.tolist()):
                values = {role: table.column(name)[row].as_py() for role, name in columns.items()}
                hashes[place] = np.frombuffer(digest(values, opened), np.uint8)
            known[block] = True
        return [bytes(hashes[number]) for number in numbers.tolist()]

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
        source = self._identified if identity else self._spoken
        for numbers in self._numbers(rows):
            # A slice of a memory-mapped table is free; a list of rows is a gather.
            table = source[int(numbers[0]) : int(numbers[-1]) + 1] if rows is None else source[numbers]
            digests = self._digests(numbers) if identity else None
            yield from read_block(table, self.layout, numbers, digests, padded=not self.exact)

    @cached_property
    def _mapped(self) -> list[str]:
        """The files that the rows are mapped from."""
        return [str(file["filename"]) for file in self.dataset.cache_files]

    def _numbers(self, rows: np.ndarray | None) -> Iterator[np.ndarray]:
        total = len(self) if rows is None else len(rows)
        for start in range(0, total, BLOCK):
            if start % (BLOCK * LET_GO) == 0 and start:
                let_go(self._mapped)
            stop = min(start + BLOCK, total)
            yield np.arange(start, stop) if rows is None else np.asarray(rows[start:stop], dtype=np.int64)

    def iter_rows(self, rows: np.ndarray | None = None) -> Iterator[Row]:
        """Read rows by their roles, a block at a time, before they are conversations."""
        for numbers in self._numbers(rows):
            yield from read_rows(self._identified[numbers], self.layout, numbers, padded=not self.exact)

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
        for numbers in self._numbers(rows):
            yield from (found.hex() for found in self._digests(numbers))

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
            label = self.column(self.layout.columns["label"])
            held = label if rows is None else [label[row] for row in np.asarray(rows).tolist()]
            return votes(self.iter_rows(rows), held)
        if "rejected" not in self.layout.columns:
            raise DataPrunerError(
                f"{safe_text(self.source, 200)} holds no preference data: its layout is '{self.layout.name}', "
                "without rejected answers or votes; `conversation()` gives its rows for SFTTrainer"
            )
        return pairs(self.iter_rows(rows))

    def conversation(self, rows: np.ndarray | None = None) -> Dataset:
        """Return rows as trl's SFTTrainer reads them: whole ``messages`` (and ``tools``), or ``text``.

        Parameters
        ----------
        rows
            The rows to take, in this order; all of them by default.
        """
        return conversation(lambda: self.iter_samples(rows, identity=False))


def _shared(dataset: Dataset, name: str) -> list[Any]:
    """Give a column of texts of which many are equal, each text once in memory; nothing of any other column."""
    import pyarrow as pa

    kinds = dataset.features.arrow_schema.field(name).type
    if not pa.types.is_string(kinds) or not len(dataset):
        return []
    source = dataset.select_columns([name]).with_format("arrow")
    looked_at = source[: min(len(dataset), BLOCK)].column(name)
    if len(looked_at.unique()) > len(looked_at) / 2:
        return []
    out: list[Any] = []
    known: dict[Any, Any] = {}
    for start in range(0, len(dataset), LABELS):
        block = source[start : start + LABELS].column(name).combine_chunks().dictionary_encode()
        names = [known.setdefault(value, value) for value in block.dictionary.to_pylist()]
        out += [None if code is None else names[code] for code in block.indices.to_pylist()]
    return out
