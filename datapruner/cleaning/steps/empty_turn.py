"""Rows with a turn that says nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from datapruner.cleaning.steps._read import Read
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason

if TYPE_CHECKING:
    from datapruner.samples.sample import Message

EMPTY_TURN = Reason(
    "empty_turn",
    "turn {measure:.0f}, counted from 1, says nothing",
    "row with an empty turn",
    "rows with an empty turn",
)


@dataclass(frozen=True)
class EmptyTurn(Rule):
    """Conversations in which the user, or the assistant, says nothing.

    *Ours*. A turn with a call, or with a picture, says something, and so may a tool nothing and a system prompt. The
    last answer is what ``on_empty`` looks at.
    """

    name: ClassVar[str] = "empty_turn"
    reasons: ClassVar[tuple[Reason, ...]] = (EMPTY_TURN,)

    def hit(self, read: Read, usual: Any) -> Hit | None:
        """Hit the row at its first empty turn."""
        del usual
        if read.sample.plain:
            return None
        for place, message in enumerate(read.sample.messages):
            if message.role in ("user", "assistant") and not _says(message):
                return EMPTY_TURN, place + 1.0
        return None


def _says(message: Message) -> bool:
    parts = message.fields.get("content")
    shown = isinstance(parts, list) and any(isinstance(part, dict) and "text" not in part for part in parts)
    return bool(message.text.strip()) or shown
