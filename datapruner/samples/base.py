"""What a row is, once it is read: messages with roles, whatever layout the source has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.samples.confined import decodes
from datapruner.samples.hashing import content_hash
from datapruner.samples.identity import TEXTS, digest
from datapruner.samples.stamps import Stamp, check_stamps
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    from datasets import Dataset

    from datapruner.samples.formats import Row

__all__ = ["Layout", "Message", "Part", "Sample", "Samples", "column_list", "content_hash"]

Part = Literal["prompt", "response", "both"]

BLOCK = 1000
"""Rows read at a time: enough to be quick, few enough that 10 MB rows still fit."""

REASONING = ("reasoning_content", "reasoning", "thinking")
"""The fields of a message that hold what was thought before the answer."""

IMAGES = 50
"""Rows of columns that may hold images read at a time."""

_NUL = "\0"
_ARROW = " → "


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
    options
        What else the row tells the chat template: ``enable_thinking`` and the like.
    beside
        What the row is besides the conversation (a rejected answer, a label, images): names and texts, which tell
        rows apart and are never fed to a model. None where it was not read.
    """

    messages: tuple[Message, ...]
    tools: list[Any] | None = None
    plain: bool = False
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    beside: tuple[tuple[str, str], ...] | None = ()

    @property
    def unanswered(self) -> bool:
        """Whether the last turn that is trained on says nothing, or there is none; a call is something."""
        for message in reversed(self.messages):
            if message.role == "assistant" and message.trained:
                return not message.text.strip()
        return True

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

    def excerpt(self, limit: int) -> str:
        """Return what stands for the row on one line: its last question and the answer to it, harmless to print.

        Never a system prompt that all rows share, where there is anything else. A short answer is whole.

        Parameters
        ----------
        limit
            The longest result in characters.
        """
        asked, answer = (" ".join(text.split()) for text in self.stands_for())
        if not (asked and answer):
            return safe_text(asked or answer, limit)
        room = limit - len(_ARROW)
        answer = safe_text(answer, max(room // 2, room - len(asked)))
        return safe_text(asked, room - len(answer)) + _ARROW + answer

    def stands_for(self) -> tuple[str, str]:
        """Return the last question and the answer to it, whole; empty where there is none. See :func:`leading`."""
        turns = [self.messages[place] for place in leading([message.role for message in self.messages])]
        answer = turns.pop().text if turns and turns[-1].role == "assistant" else ""
        return (turns[0].text if turns else ""), answer

    def key(self) -> str:
        """Return a text that two rows share only when all that their turns and tools say is the same.

        Each turn is led by its role between NUL characters, one inside a content is doubled: unlike white
        space they survive :func:`~datapruner.text.normalise`. A turn's fields follow it, and whether it is
        kept out of training. A plain row has the role ``text``; no tools and an empty list of tools are the
        same, and the order of the keys in a tool or a field does not matter. What the row is besides comes last.
        """
        return self._led(sort_keys=True) + self.aside()

    def aside(self) -> str:
        """Return a text that two rows share only when they are the same besides the conversation."""
        if self.beside is None:
            raise ValueError("the row was read without its identity")
        shown = [
            ("beside part", f"{place} {json_text(part, sort_keys=True)}")
            for place, message in enumerate(self.messages)
            if message.fields and isinstance(message.fields.get("content"), list)
            for part in message.fields["content"]
            if isinstance(part, dict) and "text" not in part
        ]
        if not (self.beside or shown):
            return ""
        return _turns([*((f"beside {name}", text) for name, text in self.beside), *shown])

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
        if self.options:
            turns.append(("options", json_text(self.options, sort_keys=sort_keys)))
        return _turns(turns)


def leading(roles: Sequence[str]) -> list[int]:
    """Choose the turns that stand for a row: the last user turn before the last answer, and that answer.

    Parameters
    ----------
    roles
        Of the turns. Where no user speaks before the answer, a tool's turn stands in, and a system prompt only where
        there is nothing else at all.

    Returns
    -------
    list of int
        One or two places, ascending; none of an empty row.
    """

    def last(wanted: Callable[[str], bool], stop: int) -> int | None:
        return next((place for place in range(stop - 1, -1, -1) if wanted(roles[place])), None)

    answer = last(lambda role: role == "assistant", len(roles))
    stop = len(roles) if answer is None else answer
    for wanted in (lambda role: role == "user", lambda role: role != "system", lambda _: answer is None):
        question = last(wanted, stop)
        if question is not None:
            break
    return [place for place in (question, answer) if place is not None]


def _turns(turns: Iterable[tuple[str, str]]) -> str:
    pieces = ((role.replace(_NUL, _NUL * 2), content.replace(_NUL, _NUL * 2)) for role, content in turns)
    return "".join(f"\0{role}\0 {content} " for role, content in pieces)


def json_text(value: Any, *, sort_keys: bool = False) -> str:
    """Return a value as compact JSON; what JSON does not know (a date) as its text."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys, default=str)


@dataclass(frozen=True)
class Layout:
    """The layout that was found.

    Parameters
    ----------
    name
        The layout's name.
    columns
        Which column plays which role.
    beside
        The roles that tell rows apart and are no part of the conversation.
    answers
        The column that holds the answers; empty where there is no text.
    """

    name: str
    columns: dict[str, str]
    beside: tuple[str, ...] = ()
    answers: str = ""

    @property
    def has_text(self) -> bool:
        """Whether rows of this layout hold text."""
        return self.name not in ("image", "embedding")

    @property
    def spoken(self) -> list[str]:
        """The columns that a row's own content is read from: not those that only tell rows apart."""
        return list(dict.fromkeys(name for role, name in self.columns.items() if role not in self.beside))


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
    given_nulls
        For each split whose rows have different keys: for each column that some rows lack, the rows that hold a
        null of their own there.
    exact
        No null inside a struct of the source is padding; see :func:`datapruner.samples.exact.exact_array`.
    stamps
        The size and time of the files that were read.
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

    def unchanged(self) -> Samples:
        """Return itself, and refuse rows whose files have changed since they were read."""
        check_stamps(self.stamps)
        return self

    @property
    def unread(self) -> list[str]:
        """The columns that no role was found for: rows that differ there alone are read as equal."""
        read = set(self.layout.columns.values())
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
        # Imported here because formats.py builds the classes above.
        from datapruner.samples.formats import read_block

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

    def _numbers(self, rows: np.ndarray | None) -> Iterator[np.ndarray]:
        total = len(self) if rows is None else len(rows)
        for start in range(0, total, BLOCK):
            stop = min(start + BLOCK, total)
            yield np.arange(start, stop) if rows is None else np.asarray(rows[start:stop], dtype=np.int64)

    def iter_rows(self, rows: np.ndarray | None = None) -> Iterator[Row]:
        """Read rows by their roles, a block at a time, before they are conversations."""
        from datapruner.samples.formats import read_rows

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
        return list(self.dataset.with_format(None)[self.check_column(name)][:])

    def preference(self, rows: np.ndarray | None = None) -> Dataset:
        """Return rows as trl's preference trainers read them: pairs, or votes."""
        from datapruner.samples.preference import preference

        return preference(self, rows)

    def conversation(self, rows: np.ndarray | None = None) -> Dataset:
        """Return rows as trl's SFTTrainer reads them: whole ``messages`` (and ``tools``), or ``text``."""
        from datapruner.samples.conversation import conversation

        return conversation(self, rows)
