"""What scorers keep of the same rows, as tables: by group, by length, by score, and where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.ranks import average_ranks, rank_correlation
from datapruner.samples.labels import encode_labels

if TYPE_CHECKING:
    from pandas import DataFrame

    from datapruner.comparison.compared import Compared
    from datapruner.results.selected import Selected


QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
EVERY = "(all rows)"
"""In the place of a scorer's name: all rows that cleaning left."""
OF_SCORERS = "groups of "
"""Stands before a scorer's name where its own groups are meant, not a column."""
TOKENS = ("num_tokens", "num_supervised_tokens")
SNIPPET = 200


class Grouping(NamedTuple):
    """Groups of the rows.

    Attributes
    ----------
    by : str
        The column, or ``groups of`` a scorer.
    names : list of str
    codes : ndarray, int64, shape (m,)
        Of the rows that cleaning left.
    """

    by: str
    names: list[str]
    codes: Ints


def pairs(comparison: Compared) -> DataFrame:
    """Give every budget and pair of scorers with overlap, chance and rank correlation."""
    import pandas as pd

    names = comparison.names
    rows, columns = np.triu_indices(len(names), 1)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "budget": at.label,
                    "first": [names[row] for row in rows],
                    "second": [names[column] for column in columns],
                    "jaccard": at.overlap[rows, columns],
                    "chance": at.chance[rows, columns],
                    "spearman": comparison.correlation[rows, columns],
                }
            )
            for at in comparison.budgets
        ],
        ignore_index=True,
    )


def groupings(comparison: Compared) -> list[Grouping]:
    """Give the columns asked for, the labels where the layout has some, and the groups that scorers made.

    Groups that another scorer made before are left out.
    """
    scores, rows = comparison.scores, comparison.rows
    out = []
    for column in comparison.by:
        names, codes = encode_labels(scores.samples.column(column))
        out.append(Grouping(column, names, codes[rows]))
    made: list[Ints] = []
    for name in comparison.names:
        held = scores.rankings[name].groups
        if held is None or any(np.array_equal(held[rows], one) for one in made):
            continue
        made.append(held[rows])
        out.append(
            Grouping(f"{OF_SCORERS}{name}", [str(j) for j in range(int(made[-1].max()) + 1)], made[-1])
        )
    return out


def kept_by_group(comparison: Compared, groupings: Sequence[Grouping]) -> DataFrame:
    """Count what every scorer keeps of every group that has rows."""
    import pandas as pd

    rows, parts = comparison.rows, []
    for grouping in groupings:
        k = len(grouping.names)
        sizes = np.bincount(grouping.codes, minlength=k)
        present = np.flatnonzero(sizes)
        for at in comparison.budgets:
            for scorer, selection in at.selections.items():
                kept = np.bincount(grouping.codes[selection.kept[rows]], minlength=k)[present]
                parts.append(
                    pd.DataFrame(
                        {
                            "budget": at.label,
                            "by": grouping.by,
                            "group": [grouping.names[j] for j in present.tolist()],
                            "scorer": scorer,
                            "rows": sizes[present],
                            "share": sizes[present] / len(rows),
                            "kept": kept,
                            "kept_share": kept / kept.sum(),
                            "rate": kept / sizes[present],
                        }
                    )
                )
    columns = ["budget", "by", "group", "scorer", "rows", "share", "kept", "kept_share", "rate"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def balance(groups: DataFrame) -> DataFrame:
    """Sum up a table of groups: how many are reached, and how far the shares lie from the data's."""
    moved = (groups["kept_share"] - groups["share"]).abs() / 2
    found = (
        groups.assign(reached=groups["kept"] > 0, moved=moved)
        .groupby(["budget", "by", "scorer"], sort=False)
        .agg(groups=("group", "size"), reached=("reached", "sum"), moved=("moved", "sum"))
    )
    return found.reset_index()


def kept_lengths(comparison: Compared) -> DataFrame:
    """Sum up the lengths of what every scorer keeps, beside those of all rows."""
    import pandas as pd

    rows, records = comparison.rows, []
    for at in comparison.budgets:
        for of in TOKENS if comparison.scores.tokens else ():
            lengths = comparison.scores.tokens[of]
            whole = max(int(lengths[rows].sum()), 1)
            for scorer, selection in [(EVERY, None), *at.selections.items()]:
                held = lengths[rows] if selection is None else lengths[selection.kept]
                records.append(
                    {
                        "budget": at.label,
                        "scorer": scorer,
                        "of": of,
                        "rows": len(held),
                        "tokens": int(held.sum()),
                        "share": held.sum() / whole,
                        "in_loss": _in_loss(selection, held) if of == TOKENS[1] else np.nan,
                        "mean": held.mean(),
                        **_quantiles(held),
                    }
                )
    columns = ["budget", "scorer", "of", "rows", "tokens", "share", "in_loss", "mean", *QUANTILES]
    return pd.DataFrame(records, columns=columns)


def _in_loss(selection: Selected | None, lengths: Ints) -> int:
    """Count the supervised tokens that are trained on: fewer than the rows have, where tokens were pruned."""
    pruned = None if selection is None else selection.supervised_tokens_kept
    return int(lengths.sum() if pruned is None else pruned.sum())


def diversity(comparison: Compared) -> DataFrame:
    """Give NovelSum of what every scorer keeps for every budget, and with a target the similarity to it."""
    import pandas as pd

    rows = [
        {
            "budget": at.label,
            "scorer": name or EVERY,
            "rows": len(at.selections[name]) if name else len(comparison.rows),
            "novelsum": of.novelsum,
            **({} if of.target_similarity is None else {"target_similarity": of.target_similarity}),
        }
        for at in comparison.budgets
        for name, of in at.diversity.items()
    ]
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["budget", "scorer", "rows", "novelsum"])


def score_distributions(comparison: Compared) -> DataFrame:
    """Sum up every scorer's values, and how they go with length."""
    import pandas as pd

    rows, records = comparison.rows, []
    lengths = {
        of: average_ranks(held[rows].astype(np.float64)) for of, held in comparison.scores.tokens.items()
    }
    for scorer, selection in comparison.selections.items():
        values = selection.values[rows]
        record: dict[str, Any] = {"scorer": scorer, "selector": selection.selector.name}
        for of in TOKENS:
            found = (
                rank_correlation([comparison.ranks[scorer][rows], lengths[of]])[0, 1] if lengths else np.nan
            )
            record[f"spearman_{of}"] = found
        record |= {"distinct": len(np.unique(values)), "mean": values.mean(), "min": values.min()}
        records.append(record | _quantiles(values) | {"max": values.max()})
    return pd.DataFrame(records)


def _quantiles(values: NDArray[Any]) -> dict[str, float]:
    return dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())).tolist(), strict=True))


def disagreements(comparison: Compared, count: int, budget: int) -> DataFrame:
    """Give the rows whose ranks differ most from scorer to scorer; see :meth:`Frames.disagreements_frame`."""
    import pandas as pd

    if count < 1:
        raise DataPrunerError(f"the number of rows to show must be 1 or more, not {count}")
    at, names = comparison.at(budget), comparison.asked
    spread = comparison.spread
    order = np.argsort(-spread[comparison.rows], kind="stable")[:count]
    rows = comparison.rows[order]
    rows = rows[spread[rows] > 0]
    columns: dict[str, Any] = {"row": rows, "spread": spread[rows]}
    samples = comparison.scores.samples
    if samples.layout.has_text:
        columns["text"] = samples.excerpts(rows, SNIPPET)
    for name in names:
        selection = at.selections[name]
        columns[f"{name}_rank"] = comparison.ranks[name][rows]
        columns[f"{name}_kept"] = selection.kept[rows]
        columns[f"{name}_reason"] = [selection.reason(row) for row in rows.tolist()]
    return pd.DataFrame(columns)
