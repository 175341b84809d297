"""How far the last number of an answer is from what the model expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from datapruner.signals.measurement import Cost, Given
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.run import Run


class NumberSurprise(OfModel):
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
    cost: ClassVar[Cost] = Cost(3e-4)

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
