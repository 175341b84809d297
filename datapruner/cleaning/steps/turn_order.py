"""Rows whose turns come in an order that makes no conversation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from datapruner.cleaning.steps._read import Read
from datapruner.cleaning.steps._rule import Hit, Rule
from datapruner.reasons import Reason

if TYPE_CHECKING:
    from datapruner.samples.sample import Message

TURN_ORDER = Reason(
    "turn_order",
    "turn {measure:.0f}, counted from 1, stands where no such turn can",
    "row with turns in no order",
    "rows with turns in no order",
)


@dataclass(frozen=True)
class TurnOrder(Rule):
    """Conversations whose roles come in an order that chat templates refuse, or would teach nonsense.

    *Derived* from what the templates of Llama 2, Mistral and Gemma refuse. A system turn comes first; the user speaks
    before the assistant; nobody speaks twice in a row (but for an assistant around its calls); a tool answers a call
    or another tool. *Ours*: what follows the last answer is not looked at, nor rows without a user at all.

    Parameters
    ----------
    twice : bool
        Hit rows in which one speaks twice in a row, which the templates of Llama 3 and Qwen take.
    """

    twice: bool = False
    name: ClassVar[str] = "turn_order"
    reasons: ClassVar[tuple[Reason, ...]] = (TURN_ORDER,)

    def hit(self, read: Read, usual: Any) -> Hit | None:
        """Hit the row at the first turn that is out of place."""
        del usual
        roles = [message.role for message in read.sample.messages]
        if read.sample.plain or "user" not in roles:
            return None
        spoken = [place for place, role in enumerate(roles) if role != "system"]
        if spoken and roles[spoken[0]] != "user":
            return TURN_ORDER, spoken[0] + 1.0
        for place, (before, after) in enumerate(pairwise(read.sample.messages)):
            if self._wrong(before, after):
                return TURN_ORDER, place + 2.0
        return None

    def _wrong(self, before: Message, after: Message) -> bool:
        called = before.role == "assistant" and (_calls(before) or "<tool_call>" in before.content)
        if after.role == "system":
            return before.role != "system"
        if after.role == "tool":
            return not (called or before.role in {"tool", "assistant"})
        return self.twice and after.role == before.role and not (called or _calls(after))


def _calls(message: Message) -> bool:
    return bool(message.fields.get("tool_calls"))
