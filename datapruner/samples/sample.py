"""What a row is, once it is read: messages with roles, whatever layout the source has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

Part = Literal["prompt", "response", "both"]

REASONING = ("reasoning_content", "reasoning", "thinking")
"""The fields of a message that hold what was thought before the answer."""

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
    transcripts
        Each side of a pair is one text with the turns written into it: :mod:`datapruner.samples.transcripts`.
    """

    name: str
    columns: dict[str, str]
    beside: tuple[str, ...] = ()
    answers: str = ""
    transcripts: bool = False

    @property
    def has_text(self) -> bool:
        """Whether rows of this layout hold text."""
        return self.name not in ("image", "embedding")

    @property
    def told(self) -> str:
        """Its name and which column plays which role, to be read."""
        roles = ", ".join(f"{role} = {safe_text(column, 40)}" for role, column in self.columns.items())
        return self.name + (f": {roles}" if roles else "")

    @property
    def spoken(self) -> list[str]:
        """The columns that a row's own content is read from: not those that only tell rows apart."""
        return list(dict.fromkeys(name for role, name in self.columns.items() if role not in self.beside))


def column_list(names: list[str], limit: int = 30) -> str:
    """Return column names for an error message: harmless to print, and not a page long."""
    shown = ", ".join(safe_text(name, 60) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
