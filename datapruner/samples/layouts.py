"""The table of layouts, and how a source's layout is found: what the user said first, names and types second."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.samples.sample import Layout, column_list
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

# What a column may hold, as far as its type tells.
TEXT, MESSAGE, TRUTH, NUMBER, IMAGE, MEDIA, OTHER = (
    "text",
    "message",
    "truth",
    "number",
    "image",
    "media",
    "other",
)
MESSAGES, TEXTS, NUMBERS, LISTS = "messages", "texts", "numbers", "lists"
UNTYPED = "untyped"
"""JSON, or nothing but nulls."""

SAID = frozenset({TEXT, MESSAGES, MESSAGE})
TEXT_KINDS = SAID | {TEXTS, LISTS, UNTYPED}
LISTED = frozenset({MESSAGES, TEXTS, LISTS, NUMBERS})

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
    """One layout: an entry of the table, and nothing else, is what it takes to add one.

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


def detect_layout(
    dataset: Dataset,
    *,
    columns: dict[str, str] | None = None,
    layout: str | None = None,
    embeddings_given: bool = False,
) -> Layout:
    """Find the layout of a dataset, from what the user said first, from names and types of columns second."""
    names = list(dataset.column_names)
    mapping = dict(columns or {})
    check_roles(mapping)
    for role, column in mapping.items():
        if column not in names:
            raise DataPrunerError(
                f"There is no column '{safe_text(column, 60)}' for the role"
                f" '{role}'.{did_you_mean(column, names)}"
                f" The columns are {column_list(names)}."
            )
    if layout is not None and layout not in LAYOUTS:
        raise DataPrunerError(
            f"There is no layout '{safe_text(layout, 60)}'.{did_you_mean(layout, LAYOUTS)}"
            f" The layouts are {', '.join(LAYOUTS)}."
        )
    kinds = kinds_of(dataset)
    tried = list(LAYOUTS) if layout is None else [layout]
    if layout is None and "image" in mapping and set(mapping) <= {"image", "label"}:
        tried.insert(0, "image")  # who names the image alone means the image
    for name in tried:
        found = _fit(name, kinds, mapping, by_name_only=layout is not None)
        if found is not None:
            if name == "embedding" and kinds[found["embedding"]] != NUMBERS:
                shown = safe_text(found["embedding"], 60)
                raise DataPrunerError(
                    f"The column '{shown}' holds no lists of numbers; map embedding to one that does."
                )
            return _layout(name, found, kinds)
    if embeddings_given and not mapping and layout in (None, "embedding"):
        return Layout("embedding", {})
    raise DataPrunerError(_nothing_fits(names, mapping, layout, _misfits(dataset, kinds)))


def _layout(name: str, found: dict[str, str], kinds: dict[str, str]) -> Layout:
    """Add the columns that are images or sounds by their type, whatever they are called."""
    roles = LAYOUTS[name]
    if not roles.text:
        return Layout(name, found, tuple(role for role in found if role == "label"))
    beside = [role for role in found if role not in roles.spoken]
    for column, kind in kinds.items():
        if kind in (IMAGE, MEDIA) and column not in found.values():
            role = column if column not in roles.meant else f"media {column}"
            found[role] = column
            beside.append(role)
    return Layout(name, found, tuple(beside), found[roles.answers or roles.needs[0]])


def _fit(
    name: str, kinds: dict[str, str], mapping: dict[str, str], *, by_name_only: bool
) -> dict[str, str] | None:
    """Return the layout's role -> column map, or None when the layout does not fit."""
    roles = LAYOUTS[name]
    meant = roles.meant
    given = {meant[role]: column for role, column in mapping.items() if role in meant}
    if len(given) < len(mapping):  # a role that it has not, or two that are one here
        return None
    found: dict[str, str] = {}
    for role in roles.roles:
        taken = {*given.values(), *found.values()}
        called = [role, *(other for other, meaning in roles.others.items() if meaning == role)]
        column = given.get(role) or next(
            (
                column
                for column in called
                if column in kinds
                and column not in taken
                and ((by_name_only and role in roles.needs) or _takes(name, role, kinds[column]))
            ),
            None,
        )
        if column is not None:
            found[role] = column
        elif role in roles.needs:
            return None
    return found


def _takes(layout: str, role: str, kind: str) -> bool:
    """Whether a kind of column can play a role: a numeric column called ``text`` is not the text."""
    if (layout, role) in NARROWED:
        return kind == NARROWED[layout, role]
    if role in MEDIA_ROLES or (role == "label" and not LAYOUTS[layout].text):
        return True
    if kind == UNTYPED:
        # A column of nulls fits by its name, so that the error can name its first row.
        return role != "embedding"
    return kind in TAKES.get(role, frozenset({TEXT}))


def kinds_of(dataset: Dataset) -> dict[str, str]:
    """Tell what each column holds, from its feature and its Arrow type."""
    features = dataset.features  # asked for once: each time, those of all columns are copied
    types = features.arrow_schema.types
    return {
        name: _kind_of(feature, kind) for (name, feature), kind in zip(features.items(), types, strict=True)
    }


def _kind_of(feature: Any, kind: pa.DataType) -> str:
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    # By name: what `datasets` knows of depends on its version.
    if type(inner).__name__ in ("Image", "Audio", "Video", "Pdf", "Nifti", "Mesh"):
        return IMAGE if inner is feature and type(feature).__name__ == "Image" else MEDIA
    return _kind(kind)


def _kind(kind: pa.DataType) -> str:
    import pyarrow as pa
    import pyarrow.types as t

    if is_json(kind) or t.is_null(kind):
        return UNTYPED
    if isinstance(kind, pa.BaseExtensionType):
        return OTHER
    if t.is_string(kind) or t.is_large_string(kind) or getattr(t, "is_string_view", t.is_string)(kind):
        return TEXT
    if t.is_struct(kind):
        return MESSAGE
    if t.is_boolean(kind):
        return TRUTH
    if t.is_integer(kind) or t.is_floating(kind):
        return NUMBER
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        within = {MESSAGE: MESSAGES, UNTYPED: MESSAGES, TEXT: TEXTS, NUMBER: NUMBERS}
        return within.get(_kind(kind.value_type), LISTS)
    return OTHER


def is_json(kind: pa.DataType) -> bool:
    """Whether a type is Arrow's JSON, which is what ``Json()`` of `datasets` is stored as."""
    import pyarrow as pa

    # Arrow knows it since version 19.
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.json"


def _misfits(dataset: Dataset, kinds: dict[str, str]) -> str:
    """Say of the columns that are called as text what they hold instead."""
    types = dataset.features.arrow_schema
    called = {name for roles in LAYOUTS.values() if roles.text for name in (*roles.roles, *roles.others)}
    odd = [
        f"'{safe_text(name, 60)}' holds {safe_text(str(types.field(name).type), 80)}"
        for name, kind in kinds.items()
        if name in called and kind not in (TEXT, MESSAGES, UNTYPED, IMAGE, MEDIA)
    ]
    return f"; {' and '.join(odd[:5])} where a text is needed" if odd else ""


def _nothing_fits(names: list[str], mapping: dict[str, str], layout: str | None, misfits: str) -> str:
    """Return the error message with the mapping to pass."""
    shown = f"its columns are {column_list(names)}{misfits}"
    nearest = [name for name, roles in LAYOUTS.items() if mapping and set(mapping) <= {*roles.meant}]
    if layout is not None or nearest:
        name = layout or nearest[0]
        needed = LAYOUTS[name].needs
        example = ",".join(f"{role}=COLUMN" for role in needed)
        return (
            f"The layout '{name}' needs the roles {', '.join(needed)}, and {shown}; pass --columns={example}."
        )
    if mapping:
        return (
            f"No layout has the roles {', '.join(mapping)}, and {shown}; pass the roles of one layout,"
            f" e.g. --columns=question=COLUMN,answer=COLUMN or --columns=text=COLUMN."
        )
    return (
        f"No text, conversation, image or embedding column was found: {shown}. Say which columns to read, e.g. "
        f"--columns=question=COLUMN,answer=COLUMN or --columns=text=COLUMN (roles: {', '.join(ROLE_NAMES)})."
    )
