"""Train without the best rows of a score, without the worst and without any, and read a target's loss."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.progress import duration, say
from datapruner.samples.rendered import Rendered
from datapruner.text import safe_text
from datapruner.validation.result import LEFT_OUT, Validation
from datapruner.validation.training import Training, adapter, judged, left_out, supervised, train

if TYPE_CHECKING:
    from datapruner.samples.samples import Samples
    from datapruner.scores import Scores

LONGEST = 1024
"""Tokens after which rows are cut, where the scores were made without a language model."""
FEWEST_ROWS, FEWEST_STEPS = 20, 4
AS_USUAL = Training()


@dataclass(frozen=True, eq=False)
class Study:
    """What is to be trained and read: all that is known before the first training.

    Attributes
    ----------
    scores : Scores
    scorer : str
    target : Samples
    model
        What is trained.
    leave_out : float
    places : list of ndarray, int64
        Of every run the source rows that are drawn, ascending.
    tokens : ndarray, int64, shape (n,)
        Supervised tokens of the source rows that any run draws, 0 of the others.
    rows : dict of int to Rendered
        The drawn source rows as the model is fed.
    read : list of Rendered
        The target's.
    how : Training
    seed : int
    """

    scores: Scores
    scorer: str
    target: Samples
    model: Any
    leave_out: float
    places: list[Ints]
    tokens: Ints
    rows: dict[int, Rendered]
    read: list[Rendered]
    how: Training
    seed: int

    @property
    def trainings(self) -> int:
        """How many there are."""
        return len(LEFT_OUT) * len(self.places)

    def describe(self) -> str:
        """Tell what it will cost."""
        drawn = [int(self.tokens[places].sum()) for places in self.places]
        learnt = round((1 - self.leave_out) * float(np.mean(drawn)))
        read = sum(map(supervised, self.read))
        return (
            f"{self.trainings} trainings of a LoRA adapter, each on about {learnt:,} supervised tokens of "
            f"{len(self.places[0]):,} rows, and as many readings of the {len(self.read):,} rows of the target "
            f"({read:,} supervised tokens)"
        )

    def carry_out(self, *, progress: bool = True) -> Validation:
        """Train and read."""
        losses = np.zeros((len(self.places), len(LEFT_OUT), len(self.read)))
        values = self.scores.rankings[self.scorer].values
        before = judged(self.model, self.read)
        start, done = time.perf_counter(), 0
        for run, places in enumerate(self.places):
            rng = np.random.default_rng([self.seed, run, 1])
            stays = left_out(values[places], self.tokens[places], self.leave_out, rng)
            for number, name in enumerate(LEFT_OUT):
                rows = [self.rows[int(place)] for place in places[stays[name]]]
                with adapter(self.model, self.how.rank, self.seed + run) as model:
                    train(model, rows, self.how, self.seed + run)
                    losses[run, number] = judged(model, self.read)
                done += 1
                left = (time.perf_counter() - start) / done * (self.trainings - done)
                say(f"trained {done} of {self.trainings}, {duration(left)} left", progress)
        return Validation(
            self.scorer,
            self.target.source,
            self.leave_out,
            len(self.places[0]),
            np.array([supervised(row) for row in self.read], dtype=np.int64),
            before,
            losses,
            self.seed,
        )


def validate(
    scores: Scores | str | Path,
    target: Any,
    *,
    scorer: str | None = None,
    model: str | tuple[Any, Any] | None = None,
    leave_out: float = 0.2,
    rows: int = 500,
    runs: int = 3,
    rank: int = 8,
    rate: float = 5e-4,
    step_tokens: int = 512,
    target_split: str | None = None,
    target_columns: dict[str, str] | None = None,
    dtype: str = "float32",
    device: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Validation:
    """Say whether a score means anything for a target: train without its best rows, and without its worst.

    A LoRA adapter is trained on rows drawn from the scored ones, without the best fifth by the score, without the
    worst and without any fifth, several times with other rows; the loss of the target's rows is read after each. Where
    the score means something, the best rows are missed more than the worst. *Published* as a habit: leave-k-out, by
    which influence functions are judged (Park et al. 2023, arXiv 2303.14186). *Ours*: k in supervised tokens, so that
    all trainings take as many steps; rows left out at random beside it; the interval over runs and target rows.

    Parameters
    ----------
    scores : Scores, str or Path
        Scores, or the folder that ``datapruner score`` wrote.
    target : str, Path, Dataset or list of dict
        Rows of what the model is to be good at. Not those that the score was told of.
    scorer : str, optional
        Which of several.
    model : str or (model, tokenizer), optional
        What is trained; by default the language model that the scores were made with.
    leave_out : float
        Supervised tokens that are left out, in (0, 0.5].
    rows : int
        Rows that a run draws, at most: at least 20.
    runs : int
        At least 2.
    rank, rate, step_tokens
        See :class:`datapruner.validation.training.Training`.
    target_split, target_columns
        As of ``score``.
    dtype, device
        See :func:`datapruner.models.load_causal_lm`.
    seed : int
    progress : bool
        Tell the cost before, and the time that is left.

    Returns
    -------
    Validation

    Raises
    ------
    DataPrunerError
        Anything the user can put right: no model, a target without answers, too few rows, peft is not installed.
    """
    found = study(
        scores,
        target,
        scorer=scorer,
        model=model,
        leave_out=leave_out,
        rows=rows,
        runs=runs,
        how=Training(rank, rate, step_tokens),
        target_split=target_split,
        target_columns=target_columns,
        dtype=dtype,
        device=device,
        seed=seed,
    )
    say(found.describe(), progress)
    return found.carry_out(progress=progress)


def study(
    scores: Scores | str | Path,
    target: Any,
    *,
    scorer: str | None = None,
    model: str | tuple[Any, Any] | None = None,
    leave_out: float = 0.2,
    rows: int = 500,
    runs: int = 3,
    how: Training = AS_USUAL,
    target_split: str | None = None,
    target_columns: dict[str, str] | None = None,
    dtype: str = "float32",
    device: str | None = None,
    seed: int = 0,
) -> Study:
    """Read and check all that :func:`validate` needs; nothing is trained."""
    from datapruner.models import load_causal_lm
    from datapruner.samples.source import load_samples
    from datapruner.scores import load_scores

    _check(leave_out, rows, runs, how)
    if find_spec("peft") is None:
        raise DataPrunerError("validate trains a LoRA adapter: pip install 'datapruner[adapters]'")
    held = load_scores(scores) if isinstance(scores, (str, Path)) else scores
    name = held.which(scorer)
    recipe = held.recipe
    if model is None and recipe.model is None:
        raise DataPrunerError(
            "these scores were made without a language model; name the one that is to be trained with --model"
        )
    read_samples = load_samples(target, split=target_split, columns=target_columns)
    ranked = np.flatnonzero(np.isfinite(held.rankings[name].values))
    if np.ptp(held.rankings[name].values[ranked]) == 0:
        raise DataPrunerError(
            f"the scorer '{safe_text(name, 60)}' gives all rows the same score: nothing is best"
        )
    opened, tokenizer = (
        load_causal_lm(
            model or str(recipe.model),
            dtype=dtype,
            device=device,
            adapter=recipe.adapter if model is None else None,
        )
        if model is None or isinstance(model, str)
        else model
    )
    limit = recipe.max_length or LONGEST
    read = [
        row
        for row in _rendered(
            read_samples, np.arange(len(read_samples)), tokenizer, limit, recipe.last_turn_only
        )
        if supervised(row)
    ]
    if not read:
        raise DataPrunerError(
            f"{safe_text(read_samples.source, 200)} has no answers that a loss could be read of"
        )
    places = [np.sort(np.random.default_rng([seed, run]).permutation(ranked)[:rows]) for run in range(runs)]
    drawn = np.unique(np.concatenate(places))
    rendered = dict(
        zip(
            drawn.tolist(),
            _rendered(held.samples, drawn, tokenizer, limit, recipe.last_turn_only),
            strict=True,
        )
    )
    tokens = np.zeros(len(held), dtype=np.int64)
    tokens[drawn] = [supervised(rendered[int(place)]) for place in drawn]
    places = [of[tokens[of] > 0] for of in places]
    fewest = min(map(len, places))
    if fewest < FEWEST_ROWS:
        raise DataPrunerError(
            f"{fewest} scored rows have answers, and validate asks for {FEWEST_ROWS} at least"
        )
    steps = (1 - leave_out) * min(float(tokens[of].sum()) for of in places) / how.step_tokens
    if steps < FEWEST_STEPS:
        raise DataPrunerError(
            f"these rows make {steps:.1f} steps of {how.step_tokens} supervised tokens, and nothing is learnt in fewer "
            f"than {FEWEST_STEPS}; raise --rows or lower --step-tokens"
        )
    return Study(held, name, read_samples, opened, leave_out, places, tokens, rendered, read, how, seed)


def _check(leave_out: float, rows: int, runs: int, how: Training) -> None:
    if not 0 < leave_out <= 0.5:
        raise DataPrunerError(
            f"leave_out must lie in (0, 0.5], not {leave_out}: best and worst rows would be the same ones"
        )
    if rows < FEWEST_ROWS:
        raise DataPrunerError(f"rows must be at least {FEWEST_ROWS}, not {rows}")
    if runs < 2:
        raise DataPrunerError(f"runs must be at least 2, not {runs}: one says nothing of chance")
    if how.rank < 1 or how.step_tokens < 1 or not how.rate > 0:
        raise DataPrunerError("rank and step_tokens must be at least 1, and the learning rate above 0")


def _rendered(
    samples: Samples, rows: Ints, tokenizer: Any, limit: int, last_turn_only: bool
) -> Sequence[Rendered]:
    from datapruner.signals.language_model.reader import LanguageModel

    return list(LanguageModel(None, tokenizer, limit, last_turn_only).render(samples, rows))
