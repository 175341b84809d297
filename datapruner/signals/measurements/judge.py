"""The grades that a causal language model gives the rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.recipe import Recipe
from datapruner.signals.grading import GRADE, Grading
from datapruner.signals.measurement import Cost, Given, Measurement, Readers
from datapruner.signals.other_models import judge_of, missing_with, of_rows, open_judge, read_with
from datapruner.signals.run import Run
from datapruner.text import safe_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

ONE_GRADE = 0.95
"""Share of the rows from which on it is told that they get one grade."""
FEW_ROWS = 20
LITTLE = 0.5
"""Probability of all grades together, on average, below which it is told."""


class Judge(Measurement):
    """One forward pass of a judge over the rows for each question; see :mod:`datapruner.signals.grading`."""

    name: ClassVar[str] = "judge"
    gives: ClassVar[tuple[Given, ...]] = (
        Given(
            GRADE, "expected grade by --judge; behind the colon stands what it is asked, which scorers write"
        ),
    )
    options: ClassVar[tuple[str, ...]] = ("judge", "judge_max_length")
    paced_by: ClassVar[tuple[str, ...]] = (
        "judge",
        "judge_max_length",
        "dtype",
        "device",
        "device_map",
        "quantize",
    )
    reads_text: ClassVar[bool] = True
    cost: ClassVar[Cost] = Cost(2e-3, "token")

    def model(self, recipe: Recipe) -> str:
        """Name a judge."""
        return "judge"

    def check(self, recipe: Recipe, readers: Readers) -> None:
        """Refuse to go without a judge, and one that nobody reads."""
        if readers and not recipe.has("judge"):
            raise DataPrunerError(
                f"{next(iter(readers))} has rows graded: name a causal language model with --judge, a folder or a hub "
                "name"
            )
        if not readers and recipe.has("judge"):
            raise DataPrunerError(
                "--judge is given, and no scorer of this run reads it; take the scorer judge"
            )

    def prepare(self, run: Run, wanted: frozenset[str]) -> None:
        """Refuse grades that are not single tokens, of a judge that was never opened, before rows are cleaned."""
        given, name = run.objects.judge, run.recipe.judge
        unknown = [signal for signal in sorted(wanted) if not self._reader(run, signal).is_known]
        if unknown:
            from datapruner.models.tokenizers import load_tokenizer
            from datapruner.signals.language_model.judging import Asking

            tokenizer = load_tokenizer(str(name)) if given is None else given[1]
            for signal in unknown:
                Asking(tokenizer, Grading.from_signal(signal))

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that it has not graded; unknown of one that was given as an object."""
        if run.objects.judge is not None:
            return None
        return max(missing_with(self._reader(run, signal), run, of_rows(run), self.name) for signal in wanted)

    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Have the rows graded, question by question; the judge is opened once for all."""
        opened = cache(lambda: open_judge(run.recipe, run.objects.judge, progress=run.progress))
        out: dict[str, Any] = {}
        for signal in sorted(wanted):
            grading = Grading.from_signal(signal)
            reader = judge_of(run.recipe, run.store, run.objects.judge, grading, opened)
            found = read_with(reader, run, of_rows(run), self.name, "--judge-max-length")
            tell_grades(found, grading)
            out[signal] = grading.expected(found)
        return out

    @staticmethod
    def _reader(run: Run, signal: str) -> Any:
        def never() -> Any:
            raise AssertionError("nothing is opened to look whether rows are missing")

        return judge_of(run.recipe, run.store, run.objects.judge, Grading.from_signal(signal), never)


def tell_grades(log_probabilities: NDArray[np.float32], grading: Grading) -> None:
    """Say where nearly all rows get one grade, and where the judge would rather say something else than a grade."""
    n = len(log_probabilities)
    mass = float(np.exp(log_probabilities.astype(np.float64)).sum(axis=1).mean())
    if mass < LITTLE:
        logger.warning(
            "judge: the grades have %.1f %% of the judge's probability, on average: it would rather say something "
            "else; let the prompt ask for them more plainly, or take a judge that follows instructions",
            100 * mass,
        )
    counts = np.bincount(log_probabilities.argmax(axis=1), minlength=len(grading.grades))
    most = int(counts.argmax())
    if n >= FEW_ROWS and counts[most] >= ONE_GRADE * n:
        logger.warning(
            "judge: %.0f %% of %s rows get the grade '%s': it hardly tells rows apart; ask otherwise, with other "
            "grades, or take another judge",
            100 * counts[most] / n,
            f"{n:,}",
            safe_text(grading.grades[most], 40),
        )
