"""``datapruner select``."""

# No `from __future__ import annotations`: what is said of an option is read from its annotation.

from pathlib import Path
from typing import Annotated, Any

from datapruner.cli.beside_recipe import LIMITS, Folder, Report, Saying, Selector
from datapruner.cli.summary import summarise
from datapruner.cli.verb import verb
from datapruner.cli.writing import check_report
from datapruner.recipe.option import Option, Section
from datapruner.recipe.options import Budget, Output


class Scored(Section):
    """What is kept."""

    scores: Annotated[Path, Option("Folder that `datapruner score` wrote.", "SCORES")]
    scorer: Annotated[
        str | None, Option("Which of the scorers chooses.", metavar="NAME", complete="scorers")
    ] = None


@verb(Scored, Budget, Selector, Folder, Output, Report, Saying, LIMITS)
def select(
    fields: dict[str, Any],
    scores: Path,
    scorer: str | None,
    format: str,
    out: Path,
    overwrite: bool,
    report: bool,
    quiet: bool,
) -> None:
    """Spend a budget on saved scores; no model runs.

    datapruner select scores --keep 0.3 --out pruned
    """
    from datapruner import budget
    from datapruner.outputs.folder import check_target
    from datapruner.scores import load_scores

    selector = fields.pop("selector")
    spent = budget.Budget(**fields)
    check_target(out, overwrite=overwrite, reads=[scores])
    check_report(report)
    selection = load_scores(scores).spend(spent, scorer, selector)
    selection.save(out, format=format, overwrite=overwrite, report=report)
    summarise(selection, out, quiet, report=report)
