"""Layouts: which columns of a source are the conversation, and how a row of them is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.samples.base import Layout, Message, Sample, column_list
from datapruner.samples.turns import Shape, kind_of, read_turns, shape_of, unpadded
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset


@dataclass(frozen=True)
class Roles:
    """The roles of one layout: those it needs, those it may have, and other names a column may go by."""

    needs: tuple[str, ...]
    may: tuple[str, ...] = ()
    also: tuple[tuple[str, str], ...] = ()

    def names(self, role: str) -> list[str]:
        """Return the column names under which a role is found."""
        return [role, *(name for name, meant in self.also if meant == role)]


SYSTEM = (("system_prompt", "system"),)

LAYOUTS: dict[str, Roles] = {
    "messages": Roles(("messages",), ("tools",)),
    "sharegpt": Roles(("conversations",), ("system", "tools"), (("conversation", "conversations"), *SYSTEM)),
    "preference": Roles(("chosen", "rejected"), ("prompt", "system", "tools"), SYSTEM),
    "alpaca": Roles(("instruction", "output"), ("input", "system"), (("response", "output"), *SYSTEM)),
    "question_answer": Roles(("question", "answer"), ("system",), SYSTEM),
    "prompt_completion": Roles(
        ("prompt", "completion"), ("system", "tools"), (("response", "completion"), *SYSTEM)
    ),
    "text": Roles(("text",)),
    "image": Roles(("image",), ("label",)),
    "embedding": Roles(("embedding",), ("label",), (("embeddings", "embedding"),)),
}
"""Every layout, in the order in which they are tried."""

ROLE_NAMES = sorted(
    {role for roles in LAYOUTS.values() for role in (*roles.needs, *roles.may)} | {"response"}
)


def parse_mapping(text: str) -> dict[str, str]:
    """Read ``"question=Q,answer=A"``: which column plays which role.

    White space around names is ignored; a column's name may hold ``=`` but no comma.
    """
    mapping: dict[str, str] = {}
    example = "write --columns question=COLUMN,answer=COLUMN"
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
    for role in roles:
        if role not in ROLE_NAMES:
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
    for name in LAYOUTS if layout is None else [layout]:
        found = _fit(name, dataset, mapping, by_name_only=layout is not None)
        if found is not None:
            if name == "embedding" and not _type_fits(dataset, found["embedding"], name, "embedding"):
                shown = safe_text(found["embedding"], 60)
                raise DataPrunerError(
                    f"The column '{shown}' holds no lists of numbers; map embedding to one that does."
                )
            return Layout(name, found)
    if embeddings_given and not mapping and layout in (None, "embedding"):
        return Layout("embedding", {})
    raise DataPrunerError(_nothing_fits(names, mapping, layout))


def _fit(
    name: str, dataset: Dataset, mapping: dict[str, str], *, by_name_only: bool
) -> dict[str, str] | None:
    """Return the layout's role -> column map, or None when the layout does not fit."""
    roles = LAYOUTS[name]
    # 'response' is said for alpaca's output and for a prompt's completion.
    given = {dict(roles.also).get(role, role): column for role, column in mapping.items()}
    if not set(given) <= {*roles.needs, *roles.may}:
        return None
    found: dict[str, str] = {}
    for role in (*roles.needs, *roles.may):
        if role in given:
            found[role] = given[role]
            continue
        for column in roles.names(role):
            fits = column in dataset.column_names and column not in given.values()
            if fits and (by_name_only or _type_fits(dataset, column, name, role)):
                found[role] = column
                break
        else:
            if role in roles.needs:
                return None
    return found


def _type_fits(dataset: Dataset, column: str, layout: str, role: str) -> bool:
    """Whether a column's type can play a role: a numeric column called ``text`` is not the text."""
    import pyarrow.types as t

    if layout == "image":
        from datasets import Image

        kind = dataset.features[column]
        return role == "label" or isinstance(kind, Image)
    kind = dataset.features.arrow_schema.field(column).type
    nested = t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind)
    if layout == "embedding":
        return bool(nested and (t.is_floating(kind.value_type) or t.is_integer(kind.value_type)))
    # A column of nulls fits by its name, so that the error can name its first row.
    string = t.is_string(kind) or t.is_large_string(kind) or t.is_null(kind)
    if layout in ("messages", "sharegpt") or role == "tools":
        return bool(string or nested)
    turns = nested and (t.is_struct(kind.value_type) or t.is_null(kind.value_type))
    return bool(string) or bool(turns and layout in ("preference", "prompt_completion") and role != "system")


def _nothing_fits(names: list[str], mapping: dict[str, str], layout: str | None) -> str:
    """Return the error message with the mapping to pass."""
    shown = f"its columns are {column_list(names)}"
    if layout is not None:
        needs = LAYOUTS[layout].needs
        example = ",".join(f"{role}=COLUMN" for role in needs)
        needed = ", ".join(needs)
        return f"The layout '{layout}' needs the roles {needed}, and {shown}; pass --columns {example}."
    if mapping:
        return (
            f"No layout has the roles {', '.join(mapping)}, and {shown}; pass the roles of one layout,"
            f" e.g. --columns question=COLUMN,answer=COLUMN or --columns text=COLUMN."
        )
    return (
        f"No text, conversation, image or embedding column was found: {shown}. Say which columns to read, e.g. "
        f"--columns question=COLUMN,answer=COLUMN or --columns text=COLUMN (roles: {', '.join(ROLE_NAMES)})."
    )


def read_block(table: pa.Table, layout: Layout, numbers: np.ndarray) -> Iterator[Sample]:
    """Read a block of rows; ``numbers`` are the rows' positions in the source, for the errors."""
    values = {}
    for role, column in layout.columns.items():
        try:
            values[role] = table.column(column).to_pylist()
        except UnicodeDecodeError:
            # Parquet and Arrow writers do not check their strings.
            for number, value in zip(numbers.tolist(), table.column(column), strict=True):
                try:
                    value.as_py()
                except UnicodeDecodeError:
                    raise Row(number, layout, {}).error(role, "holds text that is not UTF-8") from None
    shapes = {role: shape_of(table.schema.field(column).type) for role, column in layout.columns.items()}
    for place, number in enumerate(numbers.tolist()):
        yield Row(number, layout, {role: column[place] for role, column in values.items()}, shapes).sample()


class Row:
    """One row, and the errors that name it."""

    def __init__(
        self,
        number: int,
        layout: Layout,
        values: dict[str, Any],
        shapes: Mapping[str, Shape] = MappingProxyType({}),
    ) -> None:
        self.number, self.layout, self.values, self.shapes = number, layout, values, shapes

    def error(self, role: str, what: str) -> DataPrunerError:
        """Return the error for one row and column, with the way out."""
        column = safe_text(self.layout.columns[role], 60)
        return DataPrunerError(f"Row {self.number} {what} in column '{column}'; mend or remove the row.")

    def sample(self) -> Sample:
        """Read the row."""
        name = self.layout.name
        if name == "text":
            return Sample((Message("assistant", self.string("text")),), plain=True)
        turns: list[Message] = []
        if name in ("messages", "sharegpt"):
            turns = self.turns(LAYOUTS[name].needs[0])
        elif name == "question_answer":
            turns = [Message("user", self.string("question")), Message("assistant", self.string("answer"))]
        elif name == "alpaca":
            extra = self.values.get("input") if self.values.get("input") is None else self.string("input")
            request = self.string("instruction") + (f"\n\n{extra}" if extra and extra.strip() else "")
            turns = [Message("user", request), Message("assistant", self.string("output"))]
        elif name == "prompt_completion":
            turns = [*self.text_or_turns("prompt", "user"), *self.text_or_turns("completion", "assistant")]
        else:
            if "prompt" not in self.values and isinstance(self.values["chosen"], str):
                # A transcript as one string (hh-rlhf): there are no turns to tell apart.
                return Sample((Message("assistant", self.string("chosen")),), plain=True)
            turns = self.text_or_turns("chosen", "assistant")
            if "prompt" in self.values and all(turn.role in ("assistant", "tool") for turn in turns):
                # A chosen side with the user's turn in it repeats the prompt.
                turns = [*self.text_or_turns("prompt", "user"), *turns]
        system = self.values.get("system")
        if (
            system is not None
            and self.string("system").strip()
            and not any(turn.role == "system" for turn in turns)
        ):
            turns = [Message("system", system), *turns]
        return Sample(tuple(turns), tools=self.tools())

    def string(self, role: str) -> str:
        """Return a text column's value."""
        value = self.values[role]
        if value is None:
            raise self.error(role, "has no value")
        if not isinstance(value, str):
            raise self.error(role, f"holds {kind_of(value)} where a text is needed")
        return value

    def text_or_turns(self, role: str, turn_role: str) -> list[Message]:
        """Return the turns of a column that holds either a text or a list of messages."""
        if isinstance(self.values[role], list):
            return self.turns(role)
        return [Message(turn_role, self.string(role))]

    def turns(self, role: str) -> list[Message]:
        """Return the turns of a list of messages."""
        value, shape = self.values[role], self.shapes.get(role)
        if isinstance(value, str):
            shape = None
            # Some hub datasets keep the list as JSON text.
            try:
                value = json.loads(value)
            except ValueError:
                raise self.error(role, "holds a text where a list of messages is needed") from None
        if value is None:
            raise self.error(role, "has no value")
        if not isinstance(value, list):
            raise self.error(role, f"holds {kind_of(value)} where a list of messages is needed")
        if not value:
            raise self.error(role, "has no messages")
        return read_turns(value, lambda what: self.error(role, what), shape, self.tools)

    def tools(self) -> list[Any] | None:
        """Return the row's tools, which may be a list or JSON text."""
        value = self.values.get("tools")
        if isinstance(value, str):
            try:
                value = json.loads(value) if value.strip() else None
            except ValueError:
                raise self.error("tools", "holds tools that are not JSON") from None
        else:
            value = unpadded(value, self.shapes.get("tools"))
        if value is None or value in ("", []):
            return None
        if not isinstance(value, list):
            raise self.error("tools", f"holds {kind_of(value)} where a list of tools is needed")
        return value
