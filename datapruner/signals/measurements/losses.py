"""What a language model makes of the rows: the one pass for all scorers that read losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from datapruner.signals.language_model.sketch import OUTPUT_SKETCH, SKETCH_OPTIONS, Sketch, sketch_of
from datapruner.signals.losses import measured_rows, missing_records
from datapruner.signals.measurement import Cost, Given
from datapruner.signals.measurements._of_model import ModelPass
from datapruner.signals.run import Run

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
POOLED_STATE = Given(
    "pooled_state",
    "one vector a row of length one: the last hidden states of all its tokens, later ones counting more (RDS+)",
    shape="matrix",
    dtype="float32",
)
SKETCH = Given(
    OUTPUT_SKETCH,
    "random projection of that gradient, so that inner products of rows stand for those of their gradients",
    shape="matrix",
    dtype="float32",
)
OF_A_ROW = (LOG_PPL, ENTROPY, *GRADIENTS, WEIGHT_NORM, TOKEN_NLL, TOKEN_ENTROPY)


class Losses(ModelPass):
    """One forward pass over the rows; see :func:`datapruner.signals.language_model.measure_language_model`."""

    name: ClassVar[str] = "losses"
    what: ClassVar[What] = "row"
    gives: ClassVar[tuple[Given, ...]] = (*OF_A_ROW, POOLED_STATE, SKETCH)
    options: ClassVar[tuple[str, ...]] = SKETCH_OPTIONS
    cost: ClassVar[Cost] = Cost(2e-3, "token")

    def reads(self, signals: frozenset[str]) -> bool:
        """Whether a sketch is among them."""
        return OUTPUT_SKETCH in signals

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that the model has not read for all that is wanted of them."""
        sketch = _sketch(run, wanted)
        vectors = {} if sketch is None else {OUTPUT_SKETCH: sketch.settings}
        counts = [missing_records(run, what, vectors if what == "row" else {}) for what in _asked(wanted)]
        return None if None in counts else max(count for count in counts if count is not None)

    def disk(self, run: Run, wanted: frozenset[str]) -> int:
        """Count a sketch's numbers; the rest is little."""
        sketch = _sketch(run, wanted)
        return 0 if sketch is None else sketch.disk

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the model over the rows; its output layer only where losses, or a sketch of it, are wanted."""
        first, *more = _asked(wanted)
        return measured_rows(run, first, self._tokens(run), pools=bool(more), sketch=_sketch(run, wanted))


def _asked(wanted: frozenset[str]) -> list[What]:
    """Give the records that signals are read from."""
    kinds: list[What] = []
    if wanted - {POOLED_STATE.name}:
        kinds.append("row")
    return [*kinds, "pooled"] if POOLED_STATE.name in wanted else kinds


def _sketch(run: Run, wanted: frozenset[str]) -> Sketch | None:
    return sketch_of(run.recipe) if OUTPUT_SKETCH in wanted else None
