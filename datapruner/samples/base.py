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

REASONING = ("reasoning_content", "reasoning", "thinking")
"""The fields of a message that hold what was thought before the answer."""

_NUL = "\0"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Parameters
    ----------
    role
        system, user, assistant or tool.
    content
        The text of the turn itself; empty where a turn is calls alone.
    fields
        What else a chat template is handed, by its name there: ``reasoning_content``, ``thinking``,
        ``tool_calls``, ``name``, ``tool_call_id`` and whatever the source has beside them. A ``role`` or
        ``content`` among them is handed in place of the two above: ``developer``, a list of parts, a null.
    trained
        False where the source says that the turn must not be trained on.
    """

    role: str
    content: str
    fields: dict[str, Any] = field(default_factory=dict, hash=False)
    trained: bool = True

    @property
    def text(self) -> str:
        """All that the turn says, to be read: its reasoning, its content, its calls as JSON, a line each."""
        if not self.fields:
            return self.content
        thoughts = [str(self.fields[name]) for name in REASONING if self.fields.get(name)]
        calls = self.fields.get("tool_calls")
        pieces = [*dict.fromkeys(thoughts), self.content, json_text(calls) if calls else ""]
        return "\n".join(piece for piece in pieces if piece)

    def handed(self) -> dict[str, Any]:
        """Return the message as a chat template is handed it."""
        return {"role": self.role, "content": self.content, **self.fields}


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
        """Return the user and tool turns (prompt), the answers (response) or all turns (both).

        The answers are the assistant's turns that are trained on.
        """
        if which == "both":
            return "\n".join(message.text for message in self.messages)
        if which not in ("prompt", "response"):
            raise DataPrunerError(f"There is no part '{which}' of a row; take prompt, response or both.")
        if which == "prompt":
            return "\n".join(message.text for message in self.messages if message.role in ("user", "tool"))
        answers = (message for message in self.messages if message.role == "assistant" and message.trained)
        return "\n".join(message.text for message in answers)

    def key(self) -> str:
        """Return a text that two rows share only when all that their turns and tools say is the same.

        Each turn is led by its role between NUL characters, one inside a content is doubled: unlike white
        space they survive :func:`~datapruner.text.normalise`. A turn's fields follow it, and whether it is
        kept out of training. A plain row has the role ``text``; no tools and an empty list of tools are the
        same, and the order of the keys in a tool or a field does not matter.
        """
        return self._led(sort_keys=True)

    def fed(self) -> str:
        """Return a text that two rows share only when a chat template is handed the same, to the order of keys."""
        return self._led(sort_keys=False)

    def _led(self, *, sort_keys: bool) -> str:
        turns = []
        for message in self.messages:
            turns.append(("text" if self.plain else message.role, message.content))
            if message.fields:
                turns.append(("fields", json_text(message.fields, sort_keys=sort_keys)))
            if not message.trained:
                turns.append(("untrained", ""))
        if self.tools:
            turns.append(("tools", json.dumps(self.tools, ensure_ascii=False, sort_keys=sort_keys)))
        return "".join(f"\0{role}\0 {content.replace(_NUL, _NUL * 2)} " for role, content in turns)


def json_text(value: Any, *, sort_keys: bool = False) -> str:
    """Return a value as compact JSON; what JSON does not know (a date) as its text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys, default=str)


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
        """Return rows as trl's SFTTrainer reads them: whole ``messages`` (and ``tools``), or ``text``."""
        from datapruner.samples.conversation import conversation

        return conversation(self, rows)
