"""How unexpected the ends of answers are, and those of some of them cut off: what noise of that kind looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from datapruner.arrays import Floats, Ints
from datapruner.progress import PASSES, Ahead
from datapruner.signals.measurement import Given
from datapruner.signals.measurements._of_model import OfModel
from datapruner.signals.run import Run, tokens_a_row

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples

TRIED = 200
"""Rows that are read once more, cut off: enough to tell how such rows score, and few beside the rows of a set."""
LOOKED_AT = 5 * TRIED
"""Rows among which those are looked for that can be cut."""


class Ends(OfModel):
    """The surprise of every end, and of some that are cut off; see :mod:`datapruner.signals.language_model`."""

    name: ClassVar[str] = "ends"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            "end_surprise",
            "how much less expected the end of the last answer is than the row's supervised tokens are, 0: not read",
            unit="nats",
        ),
        Given(
            "cut_end_surprise",
            "end_surprise of the row with its last answer cut off at a random word, 0: not one of those tried",
            unit="nats",
        ),
    )
    needs: ClassVar[frozenset[str]] = frozenset({"token_nll"})

    def passes(self, run: Run) -> list[Ahead]:
        """Give the one over the rows that are cut off."""
        rows = min(len(run.rows), TRIED)
        return [Ahead(PASSES["row"], rows, round(rows * tokens_a_row(run)))]

    def seconds(self, run: Run, wanted: frozenset[str], rows: int) -> float:
        """Estimate by the model's size."""
        return run.guessed_token_seconds * tokens_a_row(run) * min(rows, TRIED)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Take the ends from the losses, and read some rows again, cut off."""
        from datapruner.signals.language_model.answer_ends import end_surprise

        own = end_surprise(run.signals["token_nll"])
        cut_short = run.language_model.counts.truncated[run.rows]
        own[cut_short] = 0  # its end was not read
        out = {"end_surprise": own}
        if "cut_end_surprise" in wanted:
            out["cut_end_surprise"] = self._cut(run, np.flatnonzero(~cut_short))
        return out

    @staticmethod
    def _cut(run: Run, read: Ints) -> Floats:
        from datapruner.signals.language_model import measure_language_model
        from datapruner.signals.language_model.answer_ends import Cut, cut_off, end_surprise

        rng = np.random.default_rng(run.recipe.seed)
        places, made = [], []
        for place in rng.permutation(read)[:LOOKED_AT].tolist():
            row = next(run.samples.iter_samples(run.rows[place : place + 1], identity=False))
            short = cut_off(row, rng)
            if short is not None:
                places.append(place)
                made.append(short)
            if len(made) == TRIED:
                break
        out = np.zeros(len(run.rows))
        if made:
            found = measure_language_model(
                cast("Samples", Cut(made)),
                np.arange(len(made), dtype=np.int64),
                run.language_model.reader,
                run.store,
                progress=run.progress,
                ahead=run.ahead,
            )
            out[places] = end_surprise(found["token_nll"])
        return out
