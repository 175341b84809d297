"""``datapruner validate``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from pathlib import Path
from typing import Annotated

import typer
from annotated_types import Ge, Gt, Le

from datapruner.cli.beside_recipe import LIMITS, Ahead, Saying
from datapruner.cli.verb import verb
from datapruner.recipe.option import Option, Section


class Tried(Section):
    """What is tried."""

    result: Annotated[
        Path,
        Option(
            "Folder that `datapruner prune` wrote: against a random draw. Or `score`: is it right?", "RESULT"
        ),
    ]
    target: Annotated[
        str | None,
        Option(
            "Rows of what the model is to be good at; not those that the score was told of. Default: some rows of the "
            "source, which no training sees.",
            metavar="SOURCE",
        ),
    ] = None
    hold_out: Annotated[
        int | None,
        Ge(20),
        Option("Such rows of the source, a fifth of them at most; default: 200.", metavar="N"),
    ] = None
    scorer: Annotated[
        str | None, Option("Which of several, of scores.", metavar="NAME", complete="scorers")
    ] = None
    target_split: Annotated[str | None, Option("Split of the target.", metavar="SPLIT")] = None
    target_columns: Annotated[
        dict[str, str] | None,
        Option(
            "Which column of the target plays which role: question=Q,answer=A.", metavar="ROLE=COLUMN,..."
        ),
    ] = None
    by: Annotated[
        str | None,
        Option(
            "Column of what is read whose values are told apart, and their mean: each counts the same.",
            metavar="COLUMN",
        ),
    ] = None


class Trained(Section):
    """Training."""

    model: Annotated[str | None, Option("What is trained; default: the model that RESULT was made with.")] = (
        None
    )
    leave_out: Annotated[
        float | None,
        Gt(0),
        Le(0.5),
        Option("Share of the supervised tokens that is left out, of scores; default: 0.2."),
    ] = None
    rows: Annotated[int, Ge(20), Option("Scored or kept rows that a run draws, at most.")] = 300
    runs: Annotated[int, Ge(2), Option("Runs, each of two trainings, of scores three.")] = 5
    rank: Annotated[int, Ge(1), Option("Of the LoRA adapter.")] = 8
    rate: Annotated[float, Gt(0), Option("Learning rate.")] = 5e-4
    step_tokens: Annotated[int, Ge(1), Option("Supervised tokens a step.")] = 512
    last_layers: Annotated[
        int | None,
        Ge(1),
        Option("Train the last N layers alone, which costs less.", metavar="N"),
    ] = None
    dtype: Annotated[str, Option("The model's dtype.")] = "float32"
    device: Annotated[str | None, Option("cpu, cuda, ...; default: CUDA where there is one.")] = None
    seed: Annotated[int, Ge(0), Option("Seed of everything random.")] = 0


class MaybeFolder(Section):
    """Result."""

    out: Annotated[
        Path | None, Option("Folder for validation.json; else printed only.", "--out -o", metavar="FOLDER")
    ] = None
    overwrite: Annotated[bool, Option("Replace an earlier result of datapruner.")] = False


@verb(
    Tried,
    Trained,
    MaybeFolder,
    Ahead,
    Saying,
    LIMITS,
    common="result target hold_out by scorer target_split target_columns model rows runs last_layers "
    "leave_out seed out overwrite dry_run quiet",
)
def validate(
    result: Path,
    target: str | None,
    hold_out: int | None,
    scorer: str | None,
    target_split: str | None,
    target_columns: dict[str, str] | None,
    by: str | None,
    model: str | None,
    leave_out: float | None,
    rows: int,
    runs: int,
    rank: int,
    rate: float,
    step_tokens: int,
    last_layers: int | None,
    dtype: str,
    device: str | None,
    seed: int,
    out: Path | None,
    overwrite: bool,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Try by training whether what is kept is worth more than a random draw, or whether a score means anything.

    datapruner validate pruned --target dev.jsonl
    datapruner validate pruned                    # judged by rows of its source
    """
    from datapruner.outputs.folder import check_target
    from datapruner.progress import say
    from datapruner.validation.study import study
    from datapruner.validation.training import Training

    if out is not None:
        check_target(out, overwrite=overwrite, reads=[result])
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
    if dry_run:
        typer.echo(found.describe())
        return
    say(found.describe(), not quiet)
    validation = found.carry_out(progress=not quiet)
    if out is not None:
        validation.save(out, overwrite=overwrite)
    if not quiet or out is None:
        typer.echo(validation.describe())
