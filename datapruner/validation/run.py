"""Train on rows that differ in what is validated, and read a target's loss after each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datapruner.progress import say
from datapruner.saved import SavedSelection
from datapruner.scores import Scores, Selection
from datapruner.validation.result import Validation
from datapruner.validation.study import study
from datapruner.validation.training import Training


def validate(
    result: Scores | Selection | SavedSelection | str | Path,
    target: Any = None,
    *,
    hold_out: int | None = None,
    scorer: str | None = None,
    model: str | tuple[Any, Any] | None = None,
    leave_out: float | None = None,
    rows: int = 300,
    runs: int = 5,
    rank: int = 8,
    rate: float = 5e-4,
    step_tokens: int = 512,
    last_layers: int | None = None,
    target_split: str | None = None,
    target_columns: dict[str, str] | None = None,
    dtype: str = "float32",
    device: str | None = None,
    by: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Validation:
    """Try by training whether a selection is worth more than a random draw, or whether a score means anything.

    A LoRA adapter is trained several times, and the loss of the target's rows is read after each. Of a **selection**:
    on what it keeps, and on rows of its source at random, of as many supervised tokens in as many steps. Of **scores**:
    on rows drawn from the scored ones, without the best fifth by the score, without the worst and without any; where
    the score means something, the best rows are missed more than the worst.

    Leaving k out is *published* as a habit, by which influence functions are judged (Park et al. 2023,
    arXiv 2303.14186). *Ours*: budgets in supervised tokens, so that all trainings take as many steps; rows left out at
    random beside it; the interval over runs and target rows.

    Parameters
    ----------
    result : Selection, SavedSelection, Scores, str or Path
        A selection or scores, or the folder that ``prune`` or ``score`` wrote.
    target : str, Path, Dataset or list of dict, optional
        Rows of what the model is to be good at. Those that the scorer was told of are refused. Rows of the source that
        are among them are left out of both trainings of a selection. By default some of the rows that cleaning left,
        in which the source's own kinds are as frequent as there, and which no training sees.
    hold_out : int, optional
        How many these are: 200, and a fifth of the rows at most.
    scorer : str, optional
        Which of several; of scores only.
    model : str or (model, tokenizer), optional
        What is trained; by default the language model that the result was made with.
    leave_out : float, optional
        Supervised tokens that are left out, in (0, 0.5]; of scores only, a fifth by default.
    rows : int
        Rows that a run draws, at most, of the scored or the kept ones: at least 20.
    runs : int
        At least 2.
    rank, rate, step_tokens, last_layers
        See :class:`datapruner.validation.training.Training`.
    target_split, target_columns
        As of ``score``.
    dtype, device
        See :func:`datapruner.models.load_causal_lm`.
    by : str, optional
        A column of the target: the difference is told for each of its values too, and as their mean.
    seed : int
    progress : bool
        Tell the cost before, and the time that is left.

    Returns
    -------
    SelectionValidation or ScoreValidation

    Raises
    ------
    DataPrunerError
        Anything the user can put right: no model, a target without answers, too few rows, a source that is gone, peft
        is not installed.
    """
    found = study(
        result,
        target,
        hold_out=hold_out,
        scorer=scorer,
        model=model,
        leave_out=leave_out,
        rows=rows,
        runs=runs,
        how=Training(rank, rate, step_tokens, last_layers),
        target_split=target_split,
        target_columns=target_columns,
        dtype=dtype,
        device=device,
        by=by,
        seed=seed,
    )
    say(found.describe(), progress)
    return found.carry_out(progress=progress)
