"""How rows are read: those of one source, or of each source among several in its own layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.samples.confined import decodes
from datapruner.samples.exact import as_type
from datapruner.samples.identity import TEXTS, digest
from datapruner.samples.reading import Row, read_block, read_rows
from datapruner.samples.sample import Layout, Sample
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features

IMAGES = 50
"""Rows of columns that may hold images read at a time."""


@dataclass(frozen=True)
class Way:
    """How rows that follow each other are read.

    Parameters
    ----------
    rows
        How many there are.
    layout
        Which of their columns plays which role.
    features
        Their own columns, as their source has them by itself: together with others, a type may be a wider one.
    exact
        No null inside a struct is padding.
    name
        What their source is called among others.
    """

    rows: int
    layout: Layout
    features: Features
    exact: bool = False
    name: str = ""

    @property
    def unread(self) -> list[str]:
        """Their columns that play no role."""
        return [name for name in self.features if name not in self.layout.columns.values()]

    @property
    def missing(self) -> list[str]:
        """The columns of the layout that they do not have, as rows of another split may: they cannot be read then."""
        return [name for name in dict.fromkeys(self.layout.columns.values()) if name not in self.features]


class Reader:
    """Read rows of a dataset in one way; rows are numbered as the dataset's are.

    Parameters
    ----------
    dataset
        All rows, these among them.
    way
        How these are read.
    start
        The first of these.
    """

    def __init__(self, dataset: Dataset, way: Way, start: int = 0) -> None:
        self.dataset, self.way, self.start = dataset, way, start
        self.layout = way.layout

    def samples(self, numbers: np.ndarray, *, identity: bool) -> Iterator[Sample]:
        """Read rows as conversations."""
        table = self._table(self._identified if identity else self._spoken, numbers)
        digests = self.digests(numbers) if identity else None
        return read_block(table, self.layout, numbers, digests, padded=not self.way.exact)

    def rows(self, numbers: np.ndarray) -> Iterator[Row]:
        """Read rows by their roles."""
        table = self._table(self._identified, numbers)
        return read_rows(table, self.layout, numbers, padded=not self.way.exact)

    def digests(self, numbers: np.ndarray) -> list[bytes]:
        """Hash what rows hold in the columns that are compared so; empty where there are none."""
        columns, source, hashes, known = self._digested
        if not columns:
            return [b""] * len(numbers)
        opened = {role for role, name in columns.items() if decodes(self.way.features[name])}
        missing = np.unique(numbers[~known[numbers - self.start]])
        for start in range(0, len(missing), IMAGES):
            block = missing[start : start + IMAGES]
            table = self._table(source, block)
            for row, number in enumerate(block.tolist()):
                values = {role: table.column(name)[row].as_py() for role, name in columns.items()}
                hashes[number - self.start] = np.frombuffer(digest(values, opened), np.uint8)
            known[block - self.start] = True
        return [bytes(hashes[number]) for number in (numbers - self.start).tolist()]

    @cached_property
    def _narrower(self) -> dict[str, pa.DataType]:
        """The types of columns that have another one together with the rows of other sources."""
        own, whole = self.way.features.arrow_schema, self.dataset.features.arrow_schema
        return {
            name: own.field(name).type for name in own.names if own.field(name).type != whole.field(name).type
        }

    @cached_property
    def _spoken(self) -> Dataset:
        """The conversation's columns alone, as Arrow: images and vectors are not read to get at a text."""
        return self.dataset.select_columns(self.layout.spoken).with_format("arrow")

    @cached_property
    def _identified(self) -> Dataset:
        """The conversation's columns, and those beside it that are compared as texts."""
        beside = [self.layout.columns[role] for role in TEXTS if role in self.layout.beside]
        names = list(dict.fromkeys([*self.layout.spoken, *beside]))
        return self.dataset.select_columns(names).with_format("arrow")

    @cached_property
    def _digested(self) -> tuple[dict[str, str], Dataset, np.ndarray, np.ndarray]:
        """The columns that are compared by a hash, and the hashes so far: images are read once."""
        roles = self.layout.beside if self.layout.has_text else tuple(self.layout.columns)
        columns = {role: self.layout.columns[role] for role in roles if role not in TEXTS}
        source = self.dataset.select_columns(list(dict.fromkeys(columns.values()))).with_format("arrow")
        return columns, source, np.zeros((self.way.rows, 16), np.uint8), np.zeros(self.way.rows, np.bool_)

    def _table(self, source: Dataset, numbers: np.ndarray) -> pa.Table:
        """Read a block of rows, each column as the rows' own source has it."""
        if not len(numbers):
            return source[:0]
        first, stop = int(numbers[0]), int(numbers[-1]) + 1
        # A slice of a memory-mapped table is free; a list of rows is a gather.
        table = source[first:stop] if (np.diff(numbers) == 1).all() else source[numbers]
        for name, kind in self._narrower.items():
            if name in table.column_names:
                place = table.column_names.index(name)
                table = table.set_column(place, name, _narrowed(table.column(place), kind))
        return table


def _narrowed(column: pa.ChunkedArray, kind: pa.DataType) -> Any:
    """Give a column the type that its source has it in, which holds what it holds."""
    import pyarrow as pa

    if pa.types.is_null(kind):
        return pa.nulls(len(column))
    try:
        return as_type(column, kind)
    except (pa.ArrowException, TypeError, ValueError) as error:  # of a result that is not as it was written
        kinds = [safe_text(str(one), 80) for one in (column.type, kind)]
        raise DataPrunerError(
            f"a column of {kinds[0]} holds no {kinds[1]}, as its source did; run the recipe again"
        ) from error


@dataclass(frozen=True)
class Mixed(Layout):
    """Several layouts, for whoever asks what the rows of all of them have.

    A role that has another column in another source is there once for each of them, the later ones with the column.

    Parameters
    ----------
    parts
        The layouts.
    """

    parts: tuple[Layout, ...] = ()

    @classmethod
    def of(cls, layouts: Iterable[Layout]) -> Layout:
        """Describe layouts together; those that differ in nothing are one."""
        parts = tuple(layouts)
        if all(part == parts[0] for part in parts):
            return parts[0]
        columns: dict[str, str] = {}
        beside: dict[str, None] = {}
        for part in parts:
            for role, column in part.columns.items():
                named = role if columns.get(role, column) == column else f"{role} {column}"
                columns[named] = column
                if role in part.beside:
                    beside[named] = None
        return cls(
            " + ".join(dict.fromkeys(part.name for part in parts)),
            columns,
            tuple(beside),
            "', '".join(dict.fromkeys(part.answers for part in parts)),
            any(part.transcripts for part in parts),
            parts,
        )

    @property
    def has_text(self) -> bool:
        """Whether rows of these layouts hold text."""
        return self.parts[0].has_text


def stands_apart(layout: Layout) -> str:
    """Say what rows of a layout are, where rows of another kind cannot be chosen from together with them."""
    if not layout.has_text:
        return f"rows without text ({layout.name})"
    if layout.name == "unpaired_preference":
        return "votes on answers"
    return "pairs of answers" if "rejected" in layout.columns else "texts and conversations"
