"""A validation that is made ready: what is read, which rows every training has, and whether all of it can be done."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.progress import duration, say
from datapruner.saved import SavedSelection
from datapruner.scores import Scores, Selection
from datapruner.signals.language_model.layers import layers_of
from datapruner.signals.language_model.reader import LanguageModel
from datapruner.validation.arms import FEWEST_ROWS, Arms, of_score, of_selection, token_pruned
from datapruner.validation.last_layers import last_layers, running_below_once
from datapruner.validation.result import ScoreValidation, SelectionValidation, Validation
from datapruner.validation.target import Target, check_target, held_out_of, rows_of, told_rows
from datapruner.validation.training import Training, adapter, in_words, judged, supervised, train

if TYPE_CHECKING:
    from datapruner.recipe import Recipe

logger = logging.getLogger(__name__)

LONGEST = 1024
"""Tokens after which rows are cut, where the scores were made without a language model."""
FEWEST_STEPS = 4
LEAVE_OUT = 0.2
AS_USUAL = Training()


@dataclass(frozen=True, eq=False)
class Study:
    """What is to be trained and read: all that is known before the first training.

    Attributes
    ----------
    model
        What is trained.
    target : Target
        What is read.
    arms : Arms
        The rows of every training.
    steps : int
        Of every training.
    how : Training
    seed : int
    found : callable
        Makes the result of the loss before and after.
    layers : list of str, optional
        The modules that have an adapter; by default all of the model's layers have one.
    """

    model: Any
    target: Target
    arms: Arms
    steps: int
    how: Training
    seed: int
    found: Callable[..., Validation]
    layers: list[str] | None = None

    @property
    def trainings(self) -> int:
        """How many there are."""
        return self.arms.learnt.size

    def describe(self) -> str:
        """Tell what it will cost."""
        rows = [len(rows) for run in self.arms.runs for rows in run.values()]
        read = sum(map(supervised, self.target.rows))
        shared = self.arms.shared
        return (
            f"{self.trainings} trainings of a LoRA adapter{self._where()}, each in {self.steps:,} steps on about "
            f"{self.arms.learnt.mean():,.0f} supervised tokens of {np.mean(rows):,.0f} rows, and as many readings of "
            f"{self._read()} ({read:,} supervised tokens)"
            + (f"; {shared:,} drawn rows are the same as some of these and were left out" if shared else "")
        )

    def _read(self) -> str:
        count = len(self.target.rows)
        if len(self.target.held_out):
            return f"{count:,} rows of the source that are held out"
        return f"the {count:,} rows of the target"

    def _where(self) -> str:
        if self.layers is None:
            return ""
        return f" in {in_words(len(self.layers))}"

    def _below(self) -> AbstractContextManager[bool]:
        """Let the layers below those with an adapter run once for a row, where all of them have none."""
        if self.layers is None:
            return nullcontext(False)
        learnt = Counter(row.key for run in self.arms.runs for rows in run.values() for row in rows)
        again = {row.key for row in self.target.rows} | {key for key, times in learnt.items() if times > 1}
        return running_below_once(self.model, len(self.layers), again)

    def carry_out(self, *, progress: bool = True) -> Validation:
        """Train and read."""
        losses = np.zeros((*self.arms.learnt.shape, len(self.target.rows)))
        with self._below() as once:
            if self.layers is not None and not once and len(self.layers) < len(layers_of(self.model)):
                say("the layers below do not run on their own, and run every time", progress)
            before = judged(self.model, self.target.rows)
            start, done = time.perf_counter(), 0
            for number, run in enumerate(self.arms.runs):
                for arm, rows in enumerate(run.values()):
                    with adapter(self.model, self.how.rank, self.seed + number, self.layers) as model:
                        train(model, rows, self.steps, self.how.rate, self.seed + number)
                        losses[number, arm] = judged(model, self.target.rows)
                    done += 1
                    left = (time.perf_counter() - start) / done * (self.trainings - done)
                    say(f"trained {done} of {self.trainings}, {duration(left)} left", progress)
        tokens = np.array([supervised(row) for row in self.target.rows], dtype=np.int64)
        return self.found(
            target=self.target.called,
            rows=self.arms.rows,
            tokens=tokens,
            before=before,
            losses=losses,
            seed=self.seed,
            groups=self.target.groups,
            last_layers=None if self.layers is None else len(self.layers),
            held_out=bool(len(self.target.held_out)),
        )


def study(
    result: Scores | Selection | SavedSelection | str | Path,
    target: Any = None,
    *,
    hold_out: int | None = None,
    scorer: str | None = None,
    model: str | tuple[Any, Any] | None = None,
    leave_out: float | None = None,
    rows: int = 300,
    runs: int = 5,
    how: Training = AS_USUAL,
    target_split: str | None = None,
    target_columns: dict[str, str] | None = None,
    dtype: str = "float32",
    device: str | None = None,
    by: str | None = None,
    seed: int = 0,
) -> Study:
    """Read and check all that :func:`datapruner.validation.run.validate` needs; nothing is trained."""
    from datapruner.samples.source import load_samples
    from datapruner.verbs import load

    _check(leave_out, rows, runs, how)
    check_target(target, hold_out, target_split, target_columns)
    if find_spec("peft") is None:
        raise DataPrunerError(f"validate trains a LoRA adapter, which needs peft: {how_to_install('peft')}")
    held = load(result) if isinstance(result, (str, Path)) else result
    if isinstance(held, Scores):
        name = held.which(scorer)
        share = LEAVE_OUT if leave_out is None else leave_out
    else:
        _check_selection(held, model, scorer, leave_out)
    opened, tokenizer = _opened(model, held.recipe, dtype, device)
    layers = None if how.last_layers is None else last_layers(opened, how.last_layers)
    reader = LanguageModel(None, tokenizer, held.recipe.max_length or LONGEST, held.recipe.last_turn_only)
    told = told_rows(held.recipe, reader)
    if target is not None:
        rows_given = load_samples(target, split=target_split, columns=target_columns)
        read = rows_of(rows_given, reader, by, told)
    elif isinstance(held, Scores):
        read = held_out_of(held.samples, held.rankings[name].values, hold_out, seed, reader, by, told)
    else:
        read = held_out_of(held.source, held.values, hold_out, seed, reader, by, told)
    found: Callable[..., Validation]
    if isinstance(held, Scores):
        arms = of_score(held, name, reader, read, rows, runs, share, seed)
        found = partial(ScoreValidation, of=name, leave_out=share)
    else:
        arms = of_selection(held, reader, read, rows, runs, seed)
        of = str(result) if isinstance(result, (str, Path)) else f"the selection by {held.scorer}"
        found = partial(SelectionValidation, of=of, learnt=arms.learnt, shared=arms.shared)
    steps = round(float(arms.learnt.mean()) / how.step_tokens)
    if steps < FEWEST_STEPS:
        raise DataPrunerError(
            f"these rows make {steps} steps of {how.step_tokens} supervised tokens, and nothing is learnt in fewer "
            f"than {FEWEST_STEPS}; raise --rows or lower --step-tokens (to {int(arms.learnt.mean()) // FEWEST_STEPS} "
            "with these rows)"
        )
    steps = min(steps, *(len(of) for run in arms.runs for of in run.values()))
    return Study(opened, read, arms, steps, how, seed, found, layers)


def _opened(
    model: str | tuple[Any, Any] | None, recipe: Recipe, dtype: str, device: str | None
) -> tuple[Any, Any]:
    from datapruner.models import load_causal_lm

    if model is not None and not isinstance(model, str):
        return model
    if model is None and recipe.model is None:
        raise DataPrunerError(
            "this was made without a language model; name the one that is to be trained with --model"
        )
    adapter_of = recipe.adapter if model is None else None
    return load_causal_lm(model or str(recipe.model), dtype=dtype, device=device, adapter=adapter_of)


def _check_selection(
    held: Selection | SavedSelection, model: Any, scorer: str | None, leave_out: float | None
) -> None:
    for name, given in (("--scorer", scorer), ("--leave-out", leave_out)):
        if given is not None:
            raise DataPrunerError(
                f"{name} is of scores, and this is a selection: of it, what it keeps is tried"
            )
    if model not in (None, held.recipe.model) and token_pruned(held):
        raise DataPrunerError(
            "this selection keeps tokens of rows as its own model's tokenizer has them; leave --model out"
        )


def _check(leave_out: float | None, rows: int, runs: int, how: Training) -> None:
    if leave_out is not None and not 0 < leave_out <= 0.5:
        raise DataPrunerError(
            f"leave_out must lie in (0, 0.5], not {leave_out}: best and worst rows would be the same ones"
        )
    if rows < FEWEST_ROWS:
        raise DataPrunerError(f"rows must be at least {FEWEST_ROWS}, not {rows}")
    if runs < 2:
        raise DataPrunerError(f"runs must be at least 2, not {runs}: one says nothing of chance")
    if (
        min(how.rank, how.step_tokens, 1 if how.last_layers is None else how.last_layers) < 1
        or not how.rate > 0
    ):
        raise DataPrunerError(
            "rank, step_tokens and last_layers must be at least 1, and the learning rate above 0"
        )
