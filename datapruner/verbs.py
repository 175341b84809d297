"""What is done with a result or a folder of any kind: load, select, explain; and inspect, with any source of rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapruner.errors import DataPrunerError
from datapruner.files.paths import is_file
from datapruner.outputs.dataset import REASONS
from datapruner.outputs.score_files import TABLE
from datapruner.outputs.upload import brought
from datapruner.results.view import SelectionView
from datapruner.saved import SavedSelection, load_selection
from datapruner.scores import Scores, load_scores
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.budget import Amount
    from datapruner.results.explanation import Explanation
    from datapruner.samples.inspection import Inspection
    from datapruner.scores import Selection
    from datapruner.selection.selector import Selector

OTHER_RESULTS = {
    "comparison.json": "a comparison; its tables are CSV files, and rows.parquet has every row",
    "stability.json": "a stability study; its tables are CSV files",
    "damage.json": "a table of damage; damage.csv has its groups, and rows.parquet every row",
}


def load(path: str | Path, *, source: Any = None) -> Scores | SavedSelection:
    """Read what a folder of datapruner holds: scores, or a selection.

    Parameters
    ----------
    path : str or Path
    source : optional
        The dataset, where it was in memory or has moved.

    Raises
    ------
    DataPrunerError
        It holds neither; the sentence says what to call.
    """
    folder = brought(path)
    if is_file(folder / TABLE):
        return load_scores(folder, source=source)
    if is_file(folder / REASONS):
        return load_selection(folder, source=source)
    shown = safe_text(str(path), 200)
    for name, what in OTHER_RESULTS.items():
        if is_file(folder / name):
            raise DataPrunerError(f"{shown} holds {what}")
    raise DataPrunerError(
        f"{shown} is no result of datapruner: it has neither scores.parquet nor selection.parquet. A dataset is read "
        "by dp.load_samples and looked at by dp.inspect; dp.prune chooses rows of it"
    )


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
        See :class:`datapruner.budget.Budget`.
    selector : str or Selector, optional
        Default: the scorer's own.
    source : optional
        The dataset, where saved scores were made of data in memory or it has moved.

    Raises
    ------
    DataPrunerError
        Unknown scorer, a budget that cannot be met, or no scores.
    """
    held = load_scores(scores, source=source) if isinstance(scores, str | Path) else scores
    if not isinstance(held, Scores):
        raise DataPrunerError(
            f"scores are needed, as datapruner.score gives them, or the folder they were saved to, not a "
            f"{type(held).__name__}; datapruner.prune chooses from a dataset in one go"
        )
    return held.select(
        scorer, keep=keep, keep_tokens=keep_tokens, per_group=per_group, quotas=quotas, selector=selector
    )


def explain(result: str | Path | SelectionView | Scores, row: int, scorer: str | None = None) -> Explanation:
    """Say everything that is known of one source row: why it was kept or dropped, its rank, what it missed.

    Parameters
    ----------
    result : str, Path, Selection, SavedSelection or Scores
        A result, or the folder that ``prune``, ``select``, ``run`` or ``score`` wrote.
    row : int
        Position in the source dataset; a result's ``find`` finds it by a text or a column's value.
    scorer : str, optional
        Of scores by several scorers: whose rank.

    Raises
    ------
    DataPrunerError
        It is no such folder, or there is no such row.
    """
    held = load(result) if isinstance(result, str | Path) else result
    if isinstance(held, SelectionView):
        return held.explain(row)
    return held.explain(row, scorer)


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
