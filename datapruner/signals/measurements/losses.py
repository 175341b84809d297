"""What a language model makes of the rows: the one pass for all scorers that read losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.progress import PASSES, Ahead
from datapruner.recipe import Recipe
from datapruner.signals.losses import PACED_BY, check_named, measured_rows, missing_records
from datapruner.signals.measurement import LANGUAGE_MODEL, Cost, Given, Measurement, Readers
from datapruner.signals.run import Run, tokens_a_row

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


class Losses(Measurement):
    """One forward pass over the rows; see :func:`datapruner.signals.language_model.measure_language_model`."""

    name: ClassVar[str] = "losses"
    gives: ClassVar[tuple[Given, ...]] = OF_A_ROW
    paced_by: ClassVar[tuple[str, ...]] = PACED_BY
    reads_text: ClassVar[bool] = True
    cost: ClassVar[Cost] = Cost(2e-3, "token")

    def model(self, recipe: Recipe) -> str:
        """Name a language model."""
        return LANGUAGE_MODEL

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse to go without a model."""
        check_named(recipe, readers)

    def passes(self, run: Run) -> list[Ahead]:
        """Give the one over the rows."""
        tokens = run.language_model.counts.tokens[run.rows]
        return [Ahead(PASSES["row"], len(run.rows), int(tokens.sum()))]

    def pace(self, run: Run) -> float:
        """Estimate by the model's size, where nothing was measured with it yet."""
        return self.noted_pace(run) or run.guessed_token_seconds * tokens_a_row(run)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that the model has not read."""
        return missing_records(run, "row")

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the model over the rows."""
        return measured_rows(run, "row", run.language_model.counts.tokens)
