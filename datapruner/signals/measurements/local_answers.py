"""How probable the last answer of a row is, in short steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from datapruner.progress import Ahead
from datapruner.signals.losses import PACED_BY
from datapruner.signals.measurement import Cost, Given
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.measurements.answers import UNREAD
from datapruner.signals.run import Run, tokens_a_row

LOCAL = "local_log_ppl:"


class LocalAnswers(OfModel):
    """Mean loss of the last answer in steps, each behind a few tokens alone; a pass for each length of a step."""

    name: ClassVar[str] = "local_answers"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            LOCAL,
            "mean loss of the last answer in steps of so many tokens, each behind as many, say local_log_ppl:64",
            unit="nats",
        ),
    )
    paced_by: ClassVar[tuple[str, ...]] = PACED_BY
    cost: ClassVar[Cost] = Cost(4e-3, "token")

    def passes(self, run: Run) -> list[Ahead]:
        """Give the one pass, of about twice the tokens of the answers."""
        tokens = 2 * int(run.language_model.counts.supervised[run.rows].sum())
        return [Ahead("short steps", len(run.rows), tokens)]

    def pace(self, run: Run) -> float:
        """Estimate by the model's size, where nothing was measured with it yet."""
        return self.noted_pace(run) or 2 * run.guessed_token_seconds * tokens_a_row(run)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Run the model over the steps of the rows' last answers."""
        from datapruner.signals.language_model.local import local_loss

        out: dict[str, Any] = {}
        for signal in sorted(wanted):
            window = int(signal.removeprefix(LOCAL))
            reader = run.language_model.reader
            found = local_loss(run.samples, run.rows, reader, run.store, window=window, progress=run.progress)
            out[signal] = np.where(np.isnan(found), UNREAD, found)
        return out
