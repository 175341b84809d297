"""How many tokens a row has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.signals.columns import measure_tokens
from datapruner.signals.measurement import Cost, Given, Measurement, Run


class Tokens(Measurement):
    """Tokens and supervised tokens, as the run's language model reads them or as a tokenizer counts them."""

    name: ClassVar[str] = "tokens"
    gives: ClassVar[tuple[Given, ...]] = (
        Given("num_tokens", "tokens a row, as the model would see it", dtype="int64"),
        Given("num_supervised_tokens", "tokens a row that the loss counts", dtype="int64"),
    )
    reads_text: ClassVar[bool] = True
    cost: ClassVar[Cost] = Cost(2e-4)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Count; nothing where there is no text and nobody insists."""
        if run.fed is not None and run.recipe.tokenizer is None:
            counts = run.fed.counts
            run.tokens = {"num_tokens": counts.tokens, "num_supervised_tokens": counts.supervised}
        else:
            required = any(given.name in run.required for given in self.gives)
            run.tokens = measure_tokens(run.recipe, run.samples, run.store, required=required)
        return {name: counted[run.rows] for name, counted in run.tokens.items()}
