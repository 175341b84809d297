"""How probable the last answer of a row is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.ragged import Ragged
from datapruner.signals.losses import tokenizer_of
from datapruner.signals.measurement import Cost, Given
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.run import Run
from datapruner.signals.tokens import stored_counts

UNREAD = 1e12
"""Of a row whose last answer is cut away: it comes behind whatever was read."""


class Answers(OfModel):
    """Mean loss of the last answer's tokens, whatever else of the row is supervised."""

    name: ClassVar[str] = "answers"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            "answer_log_ppl",
            "mean negative log-likelihood of the last answer's tokens, 1e12 where it was cut away",
            unit="nats",
        ),
    )
    needs: ClassVar[frozenset[str]] = frozenset({"token_nll"})
    cost: ClassVar[Cost] = Cost(2e-4)

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Rows are tokenised again where earlier answers are supervised too; the model does not run."""
        return 0 if run.recipe.last_turn_only else None

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Take the last answer's losses from the row's."""
        token_nll: Ragged = run.signals["token_nll"]
        if run.recipe.last_turn_only:
            counts = token_nll.lengths
        else:
            reader = run.language_model.reader
            last = stored_counts(
                run.samples,
                tokenizer_of(reader),
                run.store,
                last_turn_only=True,
                max_length=reader.max_length,
            )
            counts = last.supervised[run.rows]
        return {"answer_log_ppl": last_means(token_nll, np.asarray(counts, dtype=np.int64))}


def last_means(tokens: Ragged, counts: Ints) -> Floats:
    """Average the last numbers of each row, so many of them; :data:`UNREAD` where there are none."""
    out = np.full(len(counts), UNREAD)
    ends = tokens.offsets[1:]
    filled = counts > 0
    edges = np.stack([ends - counts, ends], axis=1)[filled].ravel()
    if len(edges):
        padded = np.append(tokens.values.astype(np.float64), 0)  # an end may be the end of all
        out[filled] = np.add.reduceat(padded, edges)[::2] / counts[filled]
    return out
