"""What a language model makes of the rows: the one pass for all scorers that read losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from datapruner.signals.measurement import Cost, Given
from datapruner.signals.measurements._of_model import ModelPass

if TYPE_CHECKING:
    from datapruner.signals.language_model.records import What

LOG_PPL = Given("log_ppl", "mean negative log-likelihood of the supervised tokens", unit="nats")
ENTROPY = Given("entropy", "mean entropy of the model's predictions at the supervised tokens", unit="nats")
GRADIENTS = (
    Given("el2n", "mean norm of (prediction - target) at the supervised tokens"),
    Given("grad_norm", "Frobenius norm of the mean loss's gradient by the output layer's weights"),
    Given("weight_dot", "inner product of these weights and this gradient"),
)
WEIGHT_NORM = Given("weight_norm", "Frobenius norm of the output layer's weights, the same for every row")
TOKEN_NLL = Given(
    "token_nll",
    "negative log-likelihood of every supervised token",
    shape="token",
    dtype="float32",
    unit="nats",
)
TOKEN_ENTROPY = Given(
    "token_entropy",
    "entropy of the prediction at every supervised token",
    shape="token",
    dtype="float32",
    unit="nats",
)
OF_A_ROW = (LOG_PPL, ENTROPY, *GRADIENTS, WEIGHT_NORM, TOKEN_NLL, TOKEN_ENTROPY)


class Losses(ModelPass):
    """One forward pass over the rows; see :func:`datapruner.signals.language_model.measure_language_model`."""

    name: ClassVar[str] = "losses"
    what: ClassVar[What] = "row"
    gives: ClassVar[tuple[Given, ...]] = OF_A_ROW
    cost: ClassVar[Cost] = Cost(2e-3, "token")
