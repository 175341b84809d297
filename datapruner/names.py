"""Names that people try first, and what they are to call instead of names that are not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError

if TYPE_CHECKING:
    from datapruner.samples.inspection import Inspection
    from datapruner.scores import Scores, Selection
    from datapruner.selection.budget import Amount
    from datapruner.selection.selector import Selector

INSTEAD = {
    "load_dataset": "load_samples",
    "read": "load_samples",
    "open": "load",
    "rank": "score",
    "filter": "prune",
    "curate": "prune",
    "sample": "prune",
    "subset": "prune",
    "dedup": "prune(..., dedup=True)",
    "deduplicate": "prune(..., dedup=True)",
    "decontaminate": "prune(..., decontaminate=TEST_SET)",
    "why": "explain",
    "diff": "compare",
    "heal": "prune(..., scorer='paser')",
    "recover": "prune(..., scorer='paser')",
    "push": "push_to_hub",
    "report": "prune(...).report(FILE)",
}
"""What is not there under this name, and what does it."""


def inspect(
    source: Any,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    layout: str | None = None,
    examples: int = 3,
) -> Inspection:
    """Show how a dataset will be read: layout, examples, lengths, nulls, duplicates; ``print`` it.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict, DataFrame or Samples
        See :func:`datapruner.score`.
    split, columns, layout
        As in :func:`datapruner.load_samples`; not with Samples, which were read already.
    examples : int
        Rows to show.

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    from datapruner.samples import inspect_samples, load_samples
    from datapruner.samples.samples import Samples

    if not isinstance(source, Samples):
        mapped = None if columns is None else dict(columns)
        source = load_samples(source, split=split, columns=mapped, layout=layout)
    elif split is not None or columns is not None or layout is not None:
        raise DataPrunerError("these samples were read already; give the source itself to read it otherwise")
    return inspect_samples(source, examples=examples)


def select(
    scores: Scores | str | Path,
    scorer: str | None = None,
    *,
    keep: Amount | None = None,
    keep_tokens: int | None = None,
    per_group: str | None = None,
    quotas: Mapping[str, Amount] | None = None,
    selector: str | Selector | None = None,
    source: Any = None,
) -> Selection:
    """Spend a budget on scores: ``scores.select``; needs no model.

    Parameters
    ----------
    scores : Scores, str or Path
        What :func:`datapruner.score` gave, or the folder it was saved to.
    scorer : str, optional
        Which ranking chooses; may be left out where there is only one.
    keep, keep_tokens, per_group, quotas
        See :class:`datapruner.selection.budget.Budget`.
    selector : str or Selector, optional
        Default: the scorer's own.
    source : optional
        The dataset, where saved scores were made of data in memory or it has moved.

    Raises
    ------
    DataPrunerError
        Unknown scorer, a budget that cannot be met, or no scores.
    """
    from datapruner.scores import Scores, load_scores

    held = load_scores(scores, source=source) if isinstance(scores, str | Path) else scores
    if not isinstance(held, Scores):
        raise DataPrunerError(
            f"scores are needed, as datapruner.score gives them, or the folder they were saved to, not a "
            f"{type(held).__name__}; datapruner.prune chooses from a dataset in one go"
        )
    return held.select(
        scorer, keep=keep, keep_tokens=keep_tokens, per_group=per_group, quotas=quotas, selector=selector
    )


def missing(name: str, known: list[str]) -> str:
    """Say that there is no such name in the package, and what to call."""
    from datapruner.text import did_you_mean

    said = f"module 'datapruner' has no attribute {name!r}"
    if name.startswith("__"):
        return said  # Python's own look-ups
    if name in INSTEAD:
        return f"{said}; call datapruner.{INSTEAD[name]}"
    return f"{said}{'.' if (near := did_you_mean(name, known)) else ''}{near}"
