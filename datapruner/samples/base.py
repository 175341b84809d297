"""What a row is, once it is read: messages with roles, whatever layout the source has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.samples.hashing import content_hash
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Layout", "Message", "Part", "Sample", "Samples", "column_list", "content_hash"]

Part = Literal["prompt", "response", "both"]

BLOCK = 1000
"""Rows read at a time: enough to be quick, few enough that 10 MB rows still fit."""

_NUL = "\0"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; the role is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True)
class Sample:
    """One row as a conversation.

    Parameters
    ----------
    messages
        The turns in order.
    tools
        The tools' JSON schemas that the chat template is given, if the row has any.
    plain
        A raw ``text`` row: one assistant message that no chat template is applied to.
    """

    messages: tuple[Message, ...]
    tools: list[Any] | None = None
    plain: bool = False

    def part(self, which: Part) -> str:
        """Return the user and tool turns (prompt), the assistant turns (response) or all turns (both)."""
        if which == "both":
            return "\n".join(message.content for message in self.messages)
        if which not in ("prompt", "response"):
            raise DataPrunerError(f"There is no part '{which}' of a row; take prompt, response or both.")
        roles = ("user", "tool") if which == "prompt" else ("assistant",)
        return "\n".join(message.content for message in self.messages if message.role in roles)

    def key(self) -> str:
        """Return a text that two rows share only when roles, turns, contents and tools are the same.

        Each turn is led by its role between NUL characters, one inside a content is doubled: unlike white
        space they survive :func:`~datapruner.text.normalise`. A plain row has the role ``text``; no tools
        and an empty list of tools are the same, and the order of the keys in a tool does not matter.
        """
        turns = [("text" if self.plain else message.role, message.content) for message in self.messages]
        if self.tools:
            turns.append(("tools", json.dumps(self.tools, ensure_ascii=False, sort_keys=True)))
        return "".join(f"\0{role}\0 {content.replace(_NUL, _NUL * 2)} " for role, content in turns)


@dataclass(frozen=True)
class Layout:
    """The layout that was found, and which column plays which role."""

    name: str
    columns: dict[str, str]

    @property
    def has_text(self) -> bool:
        """Whether rows of this layout hold text."""
        return self.name not in ("image", "embedding")


def column_list(names: list[str], limit: int = 30) -> str:
    """Return column names for an error message: harmless to print, and not a page long."""
    shown = ", ".join(safe_text(name, 60) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


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
    """

    dataset: Dataset
    layout: Layout
    source: str
    split: str = "train"
    others: dict[str, Dataset] = field(default_factory=dict)
    revision: str | None = None

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
    def _blocks(self) -> Dataset:
        """The layout's columns alone, as Arrow: images and vectors are not read to get at a text."""
        return self.dataset.select_columns(list(self.layout.columns.values())).with_format("arrow")

    def iter_samples(self, rows: np.ndarray | None = None) -> Iterator[Sample]:
        """Read rows as conversations, a block at a time.

        Parameters
        ----------
        rows
            The rows to read, in this order; all of them by default.
        """
        # Imported here because formats.py builds the classes above.
        from datapruner.samples.formats import read_block

        if not self.layout.has_text:
            raise DataPrunerError(
                f"{safe_text(self.source, 200)} was read as layout '{self.layout.name}', which has no text;"
                f" use a scorer that"
                f" works on embeddings or images, or name the text columns with --columns, e.g. --columns"
                f" text=COLUMN."
            )
        total = len(self) if rows is None else len(rows)
        for start in range(0, total, BLOCK):
            stop = min(start + BLOCK, total)
            numbers = np.arange(start, stop) if rows is None else np.asarray(rows[start:stop], dtype=np.int64)
            # A slice of a memory-mapped table is free; a list of rows is a gather.
            table = self._blocks[start:stop] if rows is None else self._blocks[numbers]
            yield from read_block(table, self.layout, numbers)

    def iter_parts(self, which: Part, rows: np.ndarray | None = None) -> Iterator[str]:
        """Read one part (prompt, response or both) of each row as text."""
        return (sample.part(which) for sample in self.iter_samples(rows))

    def texts(self, which: Part = "both", rows: np.ndarray | None = None) -> list[str]:
        """Return one part of each row as a list of texts."""
        return list(self.iter_parts(which, rows))

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
        return list(self.dataset.with_format(None)[self.check_column(name)])

    def conversation(self, rows: np.ndarray | None = None) -> Dataset:
        """Return rows as trl's SFTTrainer reads them.

        One ``messages`` column of role and content (and ``tools`` as JSON when any row has tools), or a
        ``text`` column when the source is plain text.
        """
        import pyarrow as pa
        from datasets import Dataset
        from datasets.table import InMemoryTable

        turn = pa.struct([("role", pa.string()), ("content", pa.string())])
        fields = [("text", pa.string()), ("messages", pa.list_(turn)), ("tools", pa.string())]
        schema = pa.schema(fields)
        batches = []
        samples = self.iter_samples(rows)
        while block := [sample for sample, _ in zip(samples, range(BLOCK), strict=False)]:
            batches.append(
                pa.RecordBatch.from_pydict(
                    {
                        "text": [sample.part("both") if sample.plain else None for sample in block],
                        "messages": [
                            [
                                {"role": message.role, "content": message.content}
                                for message in sample.messages
                            ]
                            for sample in block
                        ],
                        "tools": [
                            None if sample.tools is None else json.dumps(sample.tools) for sample in block
                        ],
                    },
                    schema=schema,
                )
            )
        table = pa.Table.from_batches(batches, schema=schema)
        # A transcript without roles is plain text row by row, a conversation is not: never both in a source.
        plain = bool(batches) and table.column("text").null_count == 0
        names = ["text"] if plain else ["messages"]
        if not plain and table.column("tools").null_count < len(table):
            names.append("tools")
        return Dataset(InMemoryTable(table.select(names)))
