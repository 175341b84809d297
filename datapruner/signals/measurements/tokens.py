"""How many tokens a row has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.signals.columns import counting_tokenizer, measure_tokens
from datapruner.signals.losses import reader_of, tokenizer_of
from datapruner.signals.measurement import Cost, Given, Measurement
from datapruner.signals.run import Run
from datapruner.signals.tokens import missing_counts, unrendered


class Tokens(Measurement):
    """Tokens and supervised tokens, as the run's language model reads them or as a tokenizer counts them."""

    name: ClassVar[str] = "tokens"
    gives: ClassVar[tuple[Given, ...]] = (
        Given("num_tokens", "tokens a row, as the model would see it", dtype="int64"),
        Given("num_supervised_tokens", "tokens a row that the loss counts", dtype="int64"),
    )
    reads_text: ClassVar[bool] = True
    cost: ClassVar[Cost] = Cost(2e-4)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows whose tokens were not counted; a language model's own tokenizer counts them first of all."""
        samples, recipe = run.samples, run.recipe
        if not samples.layout.has_text or run.fed is not None:
            return 0
        reader = reader_of(run) if run.feeds and recipe.tokenizer is None else None
        tokenizer = counting_tokenizer(recipe, run.store) if reader is None else tokenizer_of(reader)
        return missing_counts(
            samples,
            tokenizer,
            run.store,
            last_turn_only=recipe.last_turn_only,
            max_length=None if reader is None else reader.max_length,
        )

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Count; nothing where there is no text and nobody insists."""
        if run.fed is not None and run.recipe.tokenizer is None:
            counts = run.fed.counts
        else:
            required = any(given.name in run.required for given in self.gives)
            found = measure_tokens(
                run.recipe, run.samples, run.store, run.rows if run.part else None, required=required
            )
            if found is None:
                return {}
            counts = found
        if failed := unrendered(counts, run.rows):
            raise failed
        run.tokens = {"num_tokens": counts.tokens, "num_supervised_tokens": counts.supervised}
        return {name: counted[run.rows] for name, counted in run.tokens.items()}
