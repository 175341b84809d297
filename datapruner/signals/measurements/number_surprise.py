"""How far the last number of an answer is from what the model expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.recipe import Recipe
from datapruner.signals.losses import check_named
from datapruner.signals.measurement import LANGUAGE_MODEL, Cost, Given, Measurement, Readers
from datapruner.signals.run import Run


class NumberSurprise(Measurement):
    """Largest NLL - entropy in the last number (*ours*); see :mod:`datapruner.signals.language_model`."""

    name: ClassVar[str] = "number_surprise"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            "number_surprise",
            "largest NLL - entropy in the last number of the supervised text, 0: no number",
            unit="nats",
        ),
    )
    needs: ClassVar[frozenset[str]] = frozenset({"token_nll", "token_entropy"})
    reads_text: ClassVar[bool] = True
    cost: ClassVar[Cost] = Cost(3e-4)

    def model(self, recipe: Recipe) -> str:
        """Name a language model, whose tokens are looked at."""
        return LANGUAGE_MODEL

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse to go without a model."""
        check_named(recipe, readers)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Look for the last number among every row's tokens."""
        from datapruner.signals.language_model import number_surprise

        found = number_surprise(
            run.samples,
            run.rows,
            run.language_model.reader,
            run.signals["token_nll"],
            run.signals["token_entropy"],
            run.store,
        )
        return {"number_surprise": found}
