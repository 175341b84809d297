"""The table of layouts: which roles each has, which kinds of column can play them, and what else they are called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from datapruner.errors import DataPrunerError
from datapruner.samples.column_kinds import (
    IMAGE,
    LISTED,
    LISTS,
    MESSAGE,
    MESSAGES,
    NUMBER,
    NUMBERS,
    SAID,
    TEXT,
    TEXTS,
    TRUTH,
    UNTYPED,
)
from datapruner.text import did_you_mean, safe_text

TAKES: dict[str, frozenset[str]] = {
    "messages": frozenset({TEXT, *LISTED}),
    "conversations": frozenset({TEXT, *LISTED}),
    "prompt": SAID,
    "completion": SAID,
    "chosen": SAID,
    "rejected": frozenset({TEXT, MESSAGE, MESSAGES, TEXTS, LISTS}),
    "history": frozenset({TEXT, MESSAGES, LISTS}),
    "tools": frozenset({TEXT, *LISTED}),
    "chat_template_kwargs": frozenset({TEXT, MESSAGE}),
    "label": frozenset({TEXT, TRUTH, NUMBER}),
    "embedding": frozenset({NUMBERS}),
}
"""Which kinds of column can play a role; a role that is not here takes a text. An untyped one plays any."""

MEDIA_ROLES = ("image", "images", "audio", "audios", "video", "videos")
BESIDE = ("rejected", "label", *MEDIA_ROLES)
"""Roles that any row of text may have: no part of what is said to the model, and part of what the row is."""

TURNS = ("messages", "conversations")
OPTIONAL = ("input", "context", "history", "system", "tools", "chat_template_kwargs")
"""Roles of which a row may have none, though the source has a column."""

_BESIDE_NAMES = {
    "rejected_response": "rejected",
    "rejected_messages": "rejected",
    "kto_tag": "label",
}


@dataclass(frozen=True)
class Roles:
    """One layout: an entry of the table is what it takes to add one.

    Turns that name their speaker and their text in another way than role and content, or from and value, are read in
    :mod:`datapruner.samples.turns`.

    Parameters
    ----------
    needs
        The roles without which a source is of another layout.
    may
        The roles that it may have beside them and :data:`BESIDE`.
    asks
        The roles of what comes before the answer, in the order in which it is read. Each is a text, and the texts
        of a row make one user turn, an empty line between them; or it is messages, which are turns of their own.
    answers
        The role of the answer; None where ``asks`` holds it too, or where there is no text.
    also
        Other names of columns, and the role they play.
    text
        Whether rows hold text.
    """

    needs: tuple[str, ...]
    may: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    answers: str | None = None
    also: dict[str, str] = field(default_factory=dict)
    text: bool = True

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role, the needed ones first."""
        own = (*self.needs, *self.may)
        return (*own, *(role for role in BESIDE if role not in own)) if self.text else own

    @property
    def meant(self) -> dict[str, str]:
        """What the user may call a role, and which role it is."""
        return self.others | {role: role for role in self.roles}

    @property
    def others(self) -> dict[str, str]:
        """The other names of columns, and the role they play; some are a role of their own where both are there."""
        return (_BESIDE_NAMES | self.also) if self.text else self.also

    @property
    def spoken(self) -> tuple[str, ...]:
        """The roles that the conversation is made of."""
        return tuple(role for role in self.roles if role not in BESIDE)


SYSTEM = {"system_prompt": "system"}
TURNED = ("system", "tools", "chat_template_kwargs")
AROUND = ("history", *TURNED)

LAYOUTS: dict[str, Roles] = {
    "preference": Roles(
        ("chosen", "rejected"),
        ("prompt", "input", "context", *AROUND),
        asks=("prompt", "input", "context"),
        answers="chosen",
        also={
            "chosen_response": "chosen",
            **dict.fromkeys(
                ("question", "instruction", "query", "conversations", "conversation", "messages", "input"),
                "prompt",
            ),
            **SYSTEM,
        },
    ),
    "messages": Roles(("messages",), TURNED, asks=("messages",), also=SYSTEM),
    "sharegpt": Roles(
        ("conversations",),
        TURNED,
        asks=("conversations",),
        also={"conversation": "conversations", **SYSTEM},
    ),
    "unpaired_preference": Roles(
        ("prompt", "completion", "label"),
        ("input", "context", *AROUND),
        asks=("prompt", "input", "context"),
        answers="completion",
        also={"response": "completion", **SYSTEM},
    ),
    "dolly": Roles(
        ("instruction", "context", "response"),
        ("input", *AROUND),
        asks=("instruction", "input", "context"),
        answers="response",
        also={"output": "response", **SYSTEM},
    ),
    "alpaca": Roles(
        ("instruction", "output"),
        ("input", "context", *AROUND),
        asks=("instruction", "input", "context"),
        answers="output",
        also={**dict.fromkeys(("response", "completion", "answer"), "output"), **SYSTEM},
    ),
    "question_answer": Roles(
        ("question", "answer"),
        ("context", "input", *AROUND),
        asks=("context", "input", "question"),
        answers="answer",
        also={**dict.fromkeys(("response", "output"), "answer"), **SYSTEM},
    ),
    "prompt_completion": Roles(
        ("prompt", "completion"),
        ("input", "context", *AROUND),
        asks=("prompt", "input", "context"),
        answers="completion",
        also={"query": "input", **dict.fromkeys(("response", "output", "answer"), "completion"), **SYSTEM},
    ),
    "query_response": Roles(
        ("query", "response"),
        ("context", "input", *AROUND),
        asks=("context", "input", "query"),
        answers="response",
        also={**dict.fromkeys(("output", "answer"), "response"), **SYSTEM},
    ),
    "input_output": Roles(
        ("input", "output"),
        ("context", *AROUND),
        asks=("context", "input"),
        answers="output",
        also={"inputs": "input", **dict.fromkeys(("target", "targets"), "output"), **SYSTEM},
    ),
    "text": Roles(("text",)),
    "image": Roles(("image",), ("label",), text=False),
    "embedding": Roles(("embedding",), ("label",), also={"embeddings": "embedding"}, text=False),
}
"""Every layout, in the order in which they are tried."""

NARROWED = {("unpaired_preference", "label"): TRUTH, ("image", "image"): IMAGE}
"""Where a layout is told from the next by a column's type."""

ROLE_NAMES = sorted({role for roles in LAYOUTS.values() for role in roles.roles})


def parse_mapping(text: str) -> dict[str, str]:
    """Read ``"question=Q,answer=A"``: which column plays which role.

    White space around names is ignored; a column's name may hold ``=`` but no comma.
    """
    mapping: dict[str, str] = {}
    example = "write --columns=question=COLUMN,answer=COLUMN"
    for item in text.split(","):
        role, equals, column = (piece.strip() for piece in item.partition("="))
        if not (role and equals and column):
            raise DataPrunerError(f"The mapping '{safe_text(item, 60)}' is not ROLE=COLUMN; {example}.")
        check_roles([role])
        if role in mapping:
            raise DataPrunerError(f"The mapping gives the role '{role}' twice; {example}.")
        mapping[role] = column
    return mapping


def check_roles(roles: Iterable[str]) -> None:
    """Refuse a role that no layout has."""
    known = {name for layout in LAYOUTS.values() for name in layout.meant}
    for role in roles:
        if role not in known:
            raise DataPrunerError(
                f"'{safe_text(role, 60)}' is not a role.{did_you_mean(role, ROLE_NAMES)}"
                f" The roles are {', '.join(ROLE_NAMES)}."
            )


def takes(layout: str, role: str, kind: str) -> bool:
    """Whether a kind of column can play a role: a numeric column called ``text`` is not the text."""
    if (layout, role) in NARROWED:
        return kind == NARROWED[layout, role]
    if role in MEDIA_ROLES or (role == "label" and not LAYOUTS[layout].text):
        return True
    if kind == UNTYPED:
        # A column of nulls fits by its name, so that the error can name its first row.
        return role != "embedding"
    return kind in TAKES.get(role, frozenset({TEXT}))
