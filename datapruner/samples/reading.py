"""How a row of a source is read: its columns' values, by the roles that its layout gives them, as a conversation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError, RowError
from datapruner.samples.decoding import decoder
from datapruner.samples.identity import TEXTS, said
from datapruner.samples.layouts import AROUND, LAYOUTS, OPTIONAL, TURNS, Roles
from datapruner.samples.sample import Layout, Message, Sample
from datapruner.samples.transcripts import asked, transcript
from datapruner.samples.turns import Shape, kind_of, read_turns, shape_of, unpadded
from datapruner.text import safe_text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def read_block(
    table: pa.Table,
    layout: Layout,
    numbers: np.ndarray,
    digests: Sequence[bytes] | None = None,
    *,
    padded: bool = True,
) -> Iterator[Sample]:
    """Read a block of rows as conversations.

    Parameters
    ----------
    table
        The columns of the conversation and, with ``digests``, of what else holds text.
    layout
        Which column plays which role.
    numbers
        The rows' positions in the source, for the errors.
    digests
        What is to be known of each row's other columns; without them a sample has no identity.
    padded
        Whether a null inside a struct may be Arrow's, because another row has that key.
    """
    for place, row in enumerate(read_rows(table, layout, numbers, padded=padded)):
        yield row.sample(None if digests is None else digests[place])


def read_rows(table: pa.Table, layout: Layout, numbers: np.ndarray, *, padded: bool = True) -> Iterator[Row]:
    """Read a block of rows by their roles; ``numbers`` are their positions in the source."""
    values: dict[str, list[Any]] = {}
    shapes: dict[str, Shape] = {}
    for role, column in layout.columns.items():
        if column not in table.column_names:
            continue
        try:
            values[role] = table.column(column).to_pylist()
        except UnicodeDecodeError:
            # Parquet and Arrow writers do not check their strings.
            for number, value in zip(numbers.tolist(), table.column(column), strict=True):
                try:
                    value.as_py()
                except UnicodeDecodeError:
                    raise Row(number, layout, {}).error(role, "holds text that is not UTF-8") from None
        kind = table.column(column).type
        shapes[role] = shape_of(kind) if padded else None
        decode = decoder(
            kind, text=role not in (*TURNS, *layout.beside, "tools", "history", "chat_template_kwargs")
        )
        if decode is not None:
            values[role] = [decode(value) for value in values[role]]
    for place, number in enumerate(numbers.tolist()):
        yield Row(number, layout, {role: column[place] for role, column in values.items()}, shapes)


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
        return RowError(
            f"Row {self.number} {what} in column '{column}'; mend or remove the row.", self.number
        )

    def sample(self, digest: bytes | None) -> Sample:
        """Read the row; without a digest it has no identity."""
        roles = LAYOUTS[self.layout.name]
        beside = None if digest is None else self.beside(digest)
        if self.layout.name == "text":
            return Sample((Message("assistant", self.answer("text")),), plain=True, beside=beside)
        if (
            roles.answers == "chosen"
            and "prompt" not in self.values
            and isinstance(self.values["chosen"], str)
            and not self.layout.transcripts
        ):
            # One string without turns to tell apart.
            return Sample((Message("assistant", self.string("chosen")),), plain=True, beside=beside)
        if (pair := self._pair(roles)) is not None:
            return Sample(pair, beside=beside)
        turns = [] if roles.answers is None else self.answered(roles.answers)
        if all(turn.role in ("assistant", "tool") for turn in turns):
            # A chosen side with the user's turn in it repeats the prompt.
            asked = self.asked(roles.asks)
            if turns:
                # An answer in the prompt is no answer of the row, for trl's trainers neither.
                before = asked[: -len(turns)] if asked[-len(turns) :] == turns else asked
                asked = [
                    replace(turn, trained=False) if turn.trained and turn.role == "assistant" else turn
                    for turn in before
                ]
            turns = (
                [*asked, *turns] if self.values.get("history") is None else [*self.history(), *asked, *turns]
            )
        system = self.values.get("system")
        if (
            system is not None
            and self.string("system").strip()
            and not any(turn.role == "system" for turn in turns)
        ):
            turns = [Message("system", system), *turns]
        return Sample(tuple(turns), tools=self.tools(), options=self.options(), beside=beside)

    def _pair(self, roles: Roles) -> tuple[Message, Message] | None:
        """Read a row of texts alone, as most are, in half the time; None for any other."""
        values = self.values
        answer = values.get(roles.answers) if roles.answers else None
        if (
            self.layout.transcripts
            or not isinstance(answer, str)
            or any(values.get(role) is not None for role in AROUND)
        ):
            return None
        texts = []
        for role in roles.asks:
            value = values.get(role)
            if isinstance(value, str) and role not in TURNS:
                if role not in OPTIONAL or value.strip():
                    texts.append(value)
            elif value is not None or (role in values and role not in OPTIONAL):
                return None
        return (Message("user", "\n\n".join(texts)), Message("assistant", answer)) if texts else None

    def beside(self, digest: bytes) -> tuple[tuple[str, str], ...]:
        """Return what the row is besides the conversation."""
        texts = [pair for role in TEXTS if role in self.values for pair in said(role, self.values[role])]
        return (*texts, ("columns", digest.hex())) if digest else tuple(texts)

    def rejected(self) -> list[list[Message]]:
        """Return the answers that were not chosen: as a rule one, each with its turns."""
        value = self.values["rejected"]
        if isinstance(value, list) and value and all(isinstance(item, (str, list)) for item in value):
            several = [Row(self.number, self.layout, {**self.values, "rejected": item}) for item in value]
            return [answer for row in several for answer in row.rejected()]
        return [self.answered("rejected")]

    def asked(self, roles: Sequence[str]) -> list[Message]:
        """Return what comes before the answer: the turns that there are, and one user turn of all texts."""
        turns: list[Message] = []
        texts: list[str] = []
        for role in roles:
            value = self.values.get(role)
            if role in TURNS or isinstance(value, (list, dict)):
                turns += self.turns(role)
            elif self.layout.transcripts and role in self.values:
                turns += asked(self.string(role))
            elif role not in self.values or (role in OPTIONAL and value is None):
                continue
            elif (text := self.string(role)).strip() or role not in OPTIONAL:
                texts.append(text)
        return [*turns, Message("user", "\n\n".join(texts))] if texts else turns

    def answered(self, role: str) -> list[Message]:
        """Return the answer's turns."""
        if isinstance(self.values[role], (list, dict)):
            return self.turns(role)
        answer = self.answer(role)
        if not self.layout.transcripts:
            return [Message("assistant", answer)]
        return [Message("assistant", answer.strip())] if "prompt" in self.values else transcript(answer)

    def answer(self, role: str) -> str:
        """Return a text that is an answer; where there is none it is empty."""
        return "" if self.values[role] is None else self.string(role)

    def history(self) -> list[Message]:
        """Return the earlier turns: pairs of a question and its answer, or messages."""
        value, shape = self.values.get("history"), self.shapes.get("history")
        if isinstance(value, str):
            shape = None
            value = self.parsed("history", "pairs of texts are") if value.strip() else None
        if value is None or value == []:
            return []
        if not isinstance(value, list):
            raise self.error("history", f"holds {kind_of(value)} where pairs of texts are needed")
        if all(isinstance(item, dict) for item in value):
            return self.read("history", value, shape)
        turns = []
        for place, pair in enumerate(value):
            if not (
                isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
            ):
                raise self.error("history", f"holds no question and answer as pair {place}")
            turns += [Message("user", pair[0]), Message("assistant", pair[1])]
        return turns

    def parsed(self, role: str, what: str) -> Any:
        """Return what a text of JSON holds."""
        try:
            return json.loads(self.values[role])
        except (ValueError, RecursionError):
            raise self.error(role, f"holds a text where {what} needed") from None

    def string(self, role: str) -> str:
        """Return a text column's value."""
        value = self.values[role]
        if value is None:
            raise self.error(role, "has no value")
        if not isinstance(value, str):
            raise self.error(role, f"holds {kind_of(value)} where a text is needed")
        return value

    def turns(self, role: str) -> list[Message]:
        """Return the turns of a list of messages."""
        value, shape = self.values[role], self.shapes.get(role)
        if isinstance(value, str):
            shape = None
            # Some hub datasets keep the list as JSON text.
            value = self.parsed(role, "a list of messages is")
        elif isinstance(value, dict):
            value, shape = [value], [shape]  # ShareGPT's preference pairs: one message
        if value is None:
            raise self.error(role, "has no value")
        if not isinstance(value, list):
            raise self.error(role, f"holds {kind_of(value)} where a list of messages is needed")
        if not value:
            raise self.error(role, "has no messages")
        return self.read(role, value, shape)

    def read(self, role: str, value: list[Any], shape: Shape) -> list[Message]:
        """Return the turns of messages, some of whose keys may be padding."""
        return read_turns(value, lambda what: self.error(role, what), shape, self.tools)

    def options(self) -> dict[str, Any]:
        """Return what the row tells the chat template beside messages and tools (``enable_thinking``)."""
        role = "chat_template_kwargs"
        value = self.values.get(role)
        if value is None:
            return {}
        if isinstance(value, str):
            value = self.parsed(role, "an object is") if value.strip() else None
        else:
            value = unpadded(value, self.shapes.get(role))
        if value is not None and not isinstance(value, dict):
            raise self.error(role, f"holds {kind_of(value)} where an object is needed")
        return value or {}

    def tools(self) -> list[Any] | None:
        """Return the row's tools, which may be a list or JSON text."""
        value = self.values.get("tools")
        if value is None:
            return None
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
