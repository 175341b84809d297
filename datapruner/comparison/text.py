"""A comparison for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datapruner.arrays import Floats
from datapruner.comparison.compared import AtBudget, Compared
from datapruner.comparison.frames import Frames
from datapruner.comparison.tables import EVERY, TOKENS
from datapruner.outputs.tables import aligned, figure
from datapruner.text import safe_text

MOST_GROUPS = 15
"""Groups of a column that get a line; the smaller ones are summed up in one."""
MOST_SCORERS = 4
"""Scorers whose reasons are given for a row: those that rank it highest, and those that rank it lowest."""
SNIPPET, REASON = 100, 90
ALIKE = 1 - 1e-9
"""Rank correlation above which two scorers are one."""


def describe(comparison: Frames, examples: int) -> str:
    """Give the tables for a terminal; see :meth:`datapruner.comparison.result.Comparison.describe`."""
    if len(comparison.names) > 1:
        parts = [_overlap(comparison, at) for at in comparison.budgets]
        parts.append(
            [
                "Rank correlation of the scores: Spearman",
                *_matrix(comparison.names, comparison.correlation),
                *_alike(comparison),
            ]
        )
    else:
        parts = [
            [f"{comparison.names[0]} alone was compared: there is no overlap and no correlation to show"]
        ]
    parts += _lengths(comparison)
    parts += _diversity(comparison)
    parts += _groups(comparison)
    parts.append(_disagreements(comparison, examples))
    if comparison.left_out:
        told = [f"  {safe_text(f'{name}: {why}')}" for name, why in comparison.left_out.items()]
        parts.append(["Left out", *told])
    if comparison.stability is not None:
        parts.append([comparison.stability.describe()])
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _overlap(comparison: Compared, at: AtBudget) -> list[str]:
    n, kept = len(comparison.scores), [len(selection) for selection in at.selections.values()]
    what = (
        f"the rows that each keeps of {n:,} for {at.budget.keep_tokens:,} supervised tokens"
        if at.budget.in_tokens
        else f"the {kept[0]:,} rows that each keeps of {n:,}"
    )
    levels = at.chance[np.triu_indices(len(kept), 1)]
    chances = list(dict.fromkeys(figure(level) for level in (levels.min(), levels.max())))
    return [
        f"Overlap of {what}: Jaccard ({' to '.join(chances)} by chance)",
        *_matrix(comparison.names, at.overlap),
    ]


def _matrix(names: Sequence[str], matrix: Floats) -> list[str]:
    rows = [
        [f"({number + 1}) {name}", *map(figure, matrix[number].tolist())] for number, name in enumerate(names)
    ]
    return aligned([["", *_numbers(names)], *rows])


def _alike(comparison: Compared) -> list[str]:
    """Name the pairs that rank all rows alike: what they keep differs by the selector alone, if at all."""
    names = comparison.names
    pairs = zip(*np.nonzero(np.triu(comparison.correlation > ALIKE, 1)), strict=True)
    return [f"  {names[a]} and {names[b]} rank all rows alike: only their selectors differ" for a, b in pairs]


def _numbers(names: Sequence[str]) -> list[str]:
    return [f"({number + 1})" for number in range(len(names))]


def _lengths(comparison: Frames) -> list[list[str]]:
    """Give a table a budget of what is kept in tokens, with the scores' length bias beside it."""
    frame = comparison.lengths_frame()
    if frame.empty:
        return []
    bias = comparison.scores_frame().set_index("scorer")[f"spearman_{TOKENS[1]}"]
    numbered = {name: f"({number + 1}) {name}" for number, name in enumerate(comparison.names)}
    parts = []
    for at in comparison.budgets:
        here = frame[frame["budget"] == at.label]
        whole = here[here["of"] == TOKENS[0]].set_index("scorer")["share"]
        held = here[here["of"] == TOKENS[1]]
        pruned = ["in loss"] * bool((held["in_loss"] < held["tokens"]).any())
        cells = [["", "rows", "tokens", "supervised", *pruned, "5 %", "median", "95 %", "Spearman"]]
        total = max(int(held["tokens"].iloc[0]), 1)
        for row in held.to_dict("records"):
            name = row["scorer"]
            cells.append(
                [
                    numbered.get(name, name),
                    f"{row['rows']:,}",
                    _percent(whole[name]),
                    _percent(row["share"]),
                    *([_percent(row["in_loss"] / total)] if pruned else []),
                    *(f"{row[quantile]:,.0f}" for quantile in ("q05", "q50", "q95")),
                    "" if name == EVERY else figure(bias[name]),
                ]
            )
        head = (
            f"Length of what is kept, {safe_text(at.label)}: share of all tokens, supervised tokens a row, and "
            "Spearman of the score with them"
        )
        parts.append([head, *aligned(cells)])
    return parts


def _diversity(comparison: Frames) -> list[list[str]]:
    """Give a table of how diverse what is kept is, one column a budget, and one of how near a target it comes."""
    frame = comparison.diversity_frame()
    numbered = {name: f"({number + 1}) {name}" for number, name in enumerate(comparison.names)}
    titles = {
        "novelsum": "How diverse what is kept is: NovelSum, to be compared inside a column",
        "target_similarity": "How near what is kept comes to the target: cosine of its rows with the nearest kept one",
    }
    parts = []
    for column, title in titles.items():
        if column not in frame or frame.empty:
            continue
        held = frame.pivot(index="scorer", columns="budget", values=column)
        labels = [at.label for at in comparison.budgets]
        cells = [["", *labels]]
        for name in (EVERY, *comparison.names):
            cells.append([numbered.get(name, name), *(f"{value:.3f}" for value in held.loc[name, labels])])
        parts.append([title, *aligned(cells)])
    return parts


def _groups(comparison: Frames) -> list[list[str]]:
    """Give a table a column and budget of the groups' shares, and one a budget of how far all shares were moved."""
    groups = comparison.groups_frame()
    if groups.empty:
        return []
    moved, parts = comparison.balance_frame(), []
    head = ["", "data", *_numbers(comparison.names)]
    for at in comparison.budgets:
        for by in comparison.by:
            here = groups[(groups["budget"] == at.label) & (groups["by"] == by)]
            shares = here.pivot(index="group", columns="scorer", values="kept_share")[comparison.names]
            shares.insert(0, "data", here.drop_duplicates("group").set_index("group")["share"])
            shares = shares.sort_values("data", ascending=False, kind="stable")
            told = [[str(name), *map(_percent, row)] for name, *row in shares[:MOST_GROUPS].itertuples()]
            if len(shares) > MOST_GROUPS:
                rest = shares[MOST_GROUPS:]
                told.append([f"{len(rest):,} smaller groups", *map(_percent, rest.sum())])
            title = f"What is kept by {safe_text(by, 60)}, {safe_text(at.label)}: shares of the kept rows"
            parts.append([title, *aligned([head, *told])])
        here = moved[moved["budget"] == at.label]
        told = [
            [
                f"{by} ({of['groups'].iloc[0]:,})",
                *map(_percent, of.set_index("scorer")["moved"][comparison.names]),
            ]
            for by, of in here.groupby("by", sort=False)
        ]
        title = f"How far the groups' shares are from the data's, {safe_text(at.label)}: rows that would have to move"
        parts.append([title, *aligned([["", *_numbers(comparison.names)], *told])])
    return parts


def _disagreements(comparison: Frames, examples: int) -> list[str]:
    if examples < 1:
        return []
    frame, samples = comparison.disagreements_frame(examples), comparison.scores.samples
    lines = []
    for row in frame.to_dict("records"):
        text = f": {samples.excerpts(np.array([row['row']]), SNIPPET)[0]}" if samples.layout.has_text else ""
        lines.append(f"  {samples.row_words(row['row'])}{text}")
        order = sorted(comparison.asked, key=lambda name: -row[f"{name}_rank"])
        if len(order) > MOST_SCORERS:
            order = order[: MOST_SCORERS // 2] + order[-(MOST_SCORERS // 2) :]
        told = [[name, figure(row[f"{name}_rank"])] for name in order]
        for line, name in zip(aligned(told), order, strict=True):
            lines.append(f"    {line}  {safe_text(row[f'{name}_reason'], REASON)}")
    label = safe_text(comparison.budgets[0].label)
    title = f"Rows on which they disagree most: percentile rank (1 = kept first), and why, {label}"
    return [title, *lines] if lines else []


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
