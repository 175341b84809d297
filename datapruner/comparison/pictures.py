"""Pictures of a comparison of scorers: pairs, groups, lengths, scores. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Floats
from datapruner.comparison.cells import draw_bar, draw_cells
from datapruner.comparison.compared import Compared
from datapruner.comparison.frames import Frames
from datapruner.comparison.tables import EVERY, TOKENS
from datapruner.drawing import BESIDE, BLUE, COLOURS, GREY, MARKERS, new_axes, plain_label, pyplot
from datapruner.errors import DataPrunerError
from datapruner.text import safe_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_GROUPS = 20
BINS = 40
WHAT = {"num_tokens": "tokens a row", "num_supervised_tokens": "supervised tokens a row"}


def plot_overlap(comparison: Compared, budget: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the Jaccard index of what every pair of scorers keeps; white stands for what chance would give.

    Parameters
    ----------
    comparison : Compared
    budget : int
        Position in its ``budgets``.
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
    at = comparison.at(budget)
    if len(comparison.names) < 2:
        raise DataPrunerError(f"{comparison.names[0]} alone was compared: there is no overlap to draw")
    levels = at.chance[~np.eye(len(at.chance), dtype=bool)]
    low, high = f"{levels.min():.2f}", f"{levels.max():.2f}"
    ax = _heatmap(
        at.overlap,
        comparison.names,
        ax,
        _above(at.overlap, at.chance),
        f"Jaccard of what is kept, {safe_text(at.label)}\nwhite: chance, {low if low == high else f'{low} to {high}'}",
    )
    draw_bar(ax, ["nothing shared", "chance", "the same rows"])
    return ax


def plot_correlation(comparison: Compared, ax: Axes | None = None) -> Axes:
    """Draw the Spearman correlation of every pair of scorers.

    Parameters
    ----------
    comparison : Compared
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
    found = comparison.correlation
    ax = _heatmap(found, comparison.names, ax, found, "Rank correlation of the scores (Spearman)")
    draw_bar(ax, ["-1", "0", "1"])
    return ax


def plot_budgets(comparison: Compared, scorer: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the overlap of what one scorer keeps with what each other keeps, against the budget.

    The dotted line is what random selections of these sizes share.

    Parameters
    ----------
    comparison : Compared
        Of two budgets or more in rows, or else in tokens: those of one kind are drawn.
    scorer : str, optional
        Default: the first.
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
    names = comparison.names
    scorer = names[0] if scorer is None else scorer
    if scorer not in names:
        raise DataPrunerError(
            f"no scorer '{safe_text(scorer, 60)}' is compared; there are {', '.join(names)}"
        )
    kinds = [[at for at in comparison.budgets if at.budget.in_tokens is kind] for kind in (False, True)]
    drawn = next((kind for kind in kinds if len(kind) > 1), None)
    if drawn is None:
        raise DataPrunerError("overlap against budget needs two budgets or more: keep=[0.1, 0.3]")
    drawn.sort(key=lambda at: len(at.selections[scorer]))
    ax, one = new_axes(ax), names.index(scorer)
    share = np.array([len(at.selections[scorer]) for at in drawn]) / len(comparison.rows)
    for number, (place, name) in enumerate((p, n) for p, n in enumerate(names) if n != scorer):
        overlap = [at.overlap[one, place] for at in drawn]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        line = "-" if number < len(COLOURS) else "--"
        ax.plot(share, overlap, line, color=colour, marker=marker, label=plain_label(name))
    rest = [place for place in range(len(names)) if place != one]
    level = [at.chance[one, rest].mean() for at in drawn]
    ax.plot(share, level, ":", color="black", label="two random selections")
    ax.set(
        xlabel=f"share of the rows that {plain_label(scorer)} keeps",
        ylabel=f"Jaccard with {plain_label(scorer)}",
        title=f"What others keep of what {plain_label(scorer)} keeps",
        xlim=(0, None),
        ylim=(0, 1.02),
    )
    ax.legend(**BESIDE)
    return ax


def plot_groups(comparison: Frames, by: str | None = None, budget: int = 0, ax: Axes | None = None) -> Axes:
    """Draw every group's share of the kept rows, a column a scorer, beside its share of the data.

    Purple: more than its share of the data; orange: less; the colours end at a quarter and at four times.

    Parameters
    ----------
    comparison : Frames
    by : str, optional
        A column that was compared by, or ``groups of`` a scorer; default: the first there is.
    budget : int
        Position in its ``budgets``.
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
    at = comparison.at(budget)
    held = [grouping.by for grouping in comparison.groupings]
    if not held:
        raise DataPrunerError("there are no groups to draw: name a column, --by=COLUMN")
    by = held[0] if by is None else by
    if by not in held:
        shown = ", ".join(safe_text(one, 60) for one in held)
        raise DataPrunerError(f"the comparison knows groups by {shown}, not by '{safe_text(by, 60)}'")
    frame = comparison.groups_frame()
    frame = frame[(frame["budget"] == at.label) & (frame["by"] == by)]
    data = (
        frame.drop_duplicates("group").set_index("group")["share"].sort_values(ascending=False, kind="stable")
    )
    kept = frame.pivot(index="group", columns="scorer", values="kept_share").loc[data.index, comparison.names]
    shares = np.column_stack([data.to_numpy(), kept.to_numpy()])
    names = [plain_label(str(name)) for name in data.index]
    if len(names) > MOST_GROUPS:
        rest = shares[MOST_GROUPS - 1 :]
        shares = np.vstack([shares[: MOST_GROUPS - 1], rest.sum(axis=0)])
        names = [*names[: MOST_GROUPS - 1], f"{len(rest):,} smaller groups"]
    with np.errstate(divide="ignore"):
        colour = np.clip(np.log2(shares / shares[:, :1]) / 2, -1, 1)
    ax = draw_cells(
        colour,
        [["0" if share == 0 else f"{100 * share:.1f}" for share in row] for row in shares.tolist()],
        names,
        ["all rows", *map(plain_label, comparison.names)],
        ax,
        f"Percent of the kept rows, by {plain_label(by, 60)}, {safe_text(at.label)}",
    )
    ax.axvline(0.5, color="black", linewidth=1)
    draw_bar(ax, ["a quarter", "as in the data", "four times"])
    return ax


def plot_lengths(comparison: Frames, of: str = TOKENS[1], budget: int = 0, ax: Axes | None = None) -> Axes:
    """Draw how long the rows are that every scorer keeps: median, the middle half, and from 5 to 95 %.

    Parameters
    ----------
    comparison : Frames
    of : {"num_supervised_tokens", "num_tokens"}
    budget : int
        Position in its ``budgets``.
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
    at, frame = comparison.at(budget), comparison.lengths_frame()
    if of not in TOKENS:
        raise DataPrunerError(f"lengths are counted in {' or '.join(TOKENS)}, not in '{safe_text(of, 60)}'")
    if frame.empty:
        raise DataPrunerError("these rows have no text, hence no lengths to draw")
    ax = new_axes(ax)
    from matplotlib.ticker import LogFormatter  # new_axes says how to install it

    frame = frame[(frame["budget"] == at.label) & (frame["of"] == of)]
    places = np.arange(len(frame))[::-1]
    for place, row in zip(places.tolist(), frame.to_dict("records"), strict=True):
        colour = "black" if row["scorer"] == EVERY else BLUE
        # On a logarithmic axis nothing lies at zero tokens.
        q05, q25, q50, q75, q95 = (max(row[name], 1) for name in ("q05", "q25", "q50", "q75", "q95"))
        ax.plot([q05, q95], [place, place], color=colour, linewidth=1)
        ax.plot([q25, q75], [place, place], color=colour, linewidth=6, alpha=0.4, solid_capstyle="butt")
        ax.plot(q50, place, "o", color=colour)
        ax.annotate(
            f"{row['rows']:,} rows, {100 * row['share']:.0f} % of tokens",
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize="small",
        )
    ax.axvline(max(frame["q50"].iloc[0], 1), color="black", linestyle=":", linewidth=1)
    ax.set_yticks(places, ["all rows" if name == EVERY else plain_label(name) for name in frame["scorer"]])
    ax.set(
        xscale="log",
        xlabel=f"{WHAT[of]}: median, 25 to 75 %, 5 to 95 %; dotted: median of all rows",
        title=f"Length of what is kept, {safe_text(at.label)}",
        ylim=(-0.7, len(frame) - 0.3),
    )
    # Lengths as they are: 20, not 2 x 10^1.
    ax.xaxis.set_major_formatter(LogFormatter())
    ax.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.4)))
    return ax


def plot_length_bias(comparison: Frames, ax: Axes | None = None) -> Axes:
    """Draw the Spearman correlation of every score with the rows' tokens and supervised tokens.

    Parameters
    ----------
    comparison : Frames
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
    if not comparison.scores.tokens:
        raise DataPrunerError("these rows have no text, hence no length to go with")
    ax, frame = new_axes(ax), comparison.scores_frame()
    places = np.arange(len(frame))[::-1]
    for of, colour, marker, lift in zip(TOKENS, (GREY, BLUE), "so", (-0.12, 0.12), strict=True):
        found = frame[f"spearman_{of}"].to_numpy()
        ax.hlines(places + lift, 0, np.nan_to_num(found), color=colour, linewidth=2)
        ax.plot(found, places + lift, marker, color=colour, label=f"with {WHAT[of]}")
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(places, [plain_label(name) for name in frame["scorer"]])
    ax.set(
        xlabel="Spearman of the score with the row's length: left, short rows are kept; right, long ones",
        title="Length bias of the scores",
        xlim=(-1.05, 1.05),
        ylim=(-0.7, len(frame) - 0.3),
    )
    ax.legend(**BESIDE)
    return ax


def plot_scores(comparison: Compared, budget: int = 0, axes: Sequence[Axes] | None = None) -> NDArray[Any]:
    """Draw a histogram of every scorer's values, kept rows in blue on the dropped in grey.

    Values beyond the middle 99 % are counted in the first and the last bin.

    Parameters
    ----------
    comparison : Compared
    budget : int
        Position in its ``budgets``.
    axes : sequence of matplotlib Axes, optional
        One a scorer; default: a new figure's.

    Returns
    -------
    ndarray of Axes
        One a scorer, in their order.
    """
    at, names = comparison.at(budget), comparison.names
    if axes is None:
        columns = min(len(names), 4)
        lines = -(-len(names) // columns)
        figure = pyplot().figure(figsize=(3 * columns, 2.2 * lines + 0.6), layout="constrained")
        every = figure.subplots(lines, columns, squeeze=False).ravel()
        axes = every[: len(names)].tolist()
        for unused in every[len(names) :]:
            unused.set_axis_off()
        figure.suptitle(f"Scores: kept (blue) and dropped (grey), {safe_text(at.label)}")
    if len(axes) != len(names):
        raise DataPrunerError(f"the scores of {len(names)} scorers take as many axes, not {len(axes)}")
    for ax, (name, selection) in zip(axes, at.selections.items(), strict=True):
        values, kept = selection.values[comparison.rows], selection.kept[comparison.rows]
        low, high = np.quantile(values, [0.005, 0.995])
        inside = np.clip(values, low, high)
        edges = np.histogram_bin_edges(inside, BINS)
        ax.hist(
            [inside[kept], inside[~kept]],
            edges.tolist(),
            stacked=True,
            color=[BLUE, GREY],
            label=["kept", "dropped"],
        )
        ax.set_title(plain_label(name), fontsize="medium")
        ax.tick_params(labelsize="small")
        ax.set_yticks([])
    return np.asarray(axes)


def _above(overlap: Floats, level: Floats) -> Floats:
    """Put an overlap on a scale from -1, nothing, over 0, chance, to 1, all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(overlap >= level, (overlap - level) / (1 - level), overlap / level - 1)
    return np.nan_to_num(scaled)


def _heatmap(values: Floats, names: Sequence[str], ax: Axes | None, colour: Floats, title: str) -> Axes:
    texts = [["-" if np.isnan(held) else f"{held + 0.0:.2f}" for held in row] for row in values.tolist()]
    labels = [plain_label(name) for name in names]
    return draw_cells(colour, texts, labels, labels, ax, title)
