"""What a language model makes of the answers when it does not see the questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from datapruner.signals.measurement import Cost, Given
from datapruner.signals.measurements._of_model import ModelPass

if TYPE_CHECKING:
    from datapruner.signals.language_model.records import What


class Responses(ModelPass):
    """The forward pass over the assistant's turns alone, the unconditional one of IFD."""

    name: ClassVar[str] = "responses"
    what: ClassVar[What] = "response"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            "response_log_ppl",
            "log_ppl of the same tokens when the model sees the response alone",
            unit="nats",
        ),
        Given(
            "response_token_nll",
            "token_nll when the model sees the response alone",
            shape="token",
            dtype="float32",
            unit="nats",
        ),
    )
    cost: ClassVar[Cost] = Cost(2.1e-3, "token")
