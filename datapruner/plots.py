"""Pictures of a selection: where its rows lie, the topology that scored them, how steady it is. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.drawing import (
    BESIDE,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    MARKERS,
    MOST_GROUPS,
    ORANGE,
    OTHERS,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    draw_groups,
    new_axes,
    plain_label,
    pyplot,
)
from datapruner.errors import DataPrunerError
from datapruner.scorers.base import Ranking
from datapruner.selection.budget import encode_labels
from datapruner.stability import Stability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from datapruner.pruning_damage import Damage
    from datapruner.scores import Selection


__all__ = [
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "MARKERS",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "YELLOW",
    "new_axes",
    "plain_label",
    "plot_damage",
    "plot_diagrams",
    "plot_manifold",
    "plot_stability",
    "pyplot",
]


def plot_manifold(
    selection: Selection, color: str = "score", ax: Axes | None = None, max_points: int = 20_000
) -> Axes:
    """Draw every scored row where the manifold puts it.

    Parameters
    ----------
    selection : Selection
        By a scorer that explains its values with the manifold's coordinates, such as ``topoprune``.
    color : str
        ``score``, ``kept``, a column of the scorer's, or one of the dataset's.
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    max_points : int
        Of more rows a random sample is drawn, and the title says so.
    """
    ranking = _ranking(selection)
    if "manifold_1" not in ranking.columns or "manifold_2" not in ranking.columns:
        raise DataPrunerError(
            f"the scorer '{selection.scorer}' has no manifold of two dimensions to draw; choose with topoprune, "
            "manifold_dimensions=2"
        )
    if max_points < 1:
        raise DataPrunerError(f"max_points must be 1 or more, not {max_points}")
    x, y = ranking.columns["manifold_1"], ranking.columns["manifold_2"]
    rows = np.flatnonzero(np.isfinite(selection.values) & np.isfinite(x) & np.isfinite(y))
    scored = len(rows)
    if scored > max_points:
        rows = np.sort(np.random.default_rng(0).choice(rows, max_points, replace=False))
    ax = new_axes(ax)
    style: dict[str, Any] = {
        "s": float(np.clip(30_000 / max(len(rows), 1), 3, 30)),
        "linewidths": 0,
        "rasterized": True,
    }
    values = _colours(selection, ranking, color)
    if values.dtype.kind == "f":
        drawn = ax.scatter(x[rows], y[rows], c=values[rows], cmap="cividis", **style)
        bar = ax.figure.colorbar(drawn, ax=ax)
        # Where low values of something are kept, that something is drawn, with its own sign.
        low = not selection.measure.high
        named = selection.measure.name if low else f"score of {selection.scorer}"
        bar.set_label(plain_label(named, 60) if color == "score" else plain_label(color))
    else:
        draw_groups(ax, x, y, rows, values, style)
        # The grey of the other groups lies under the rest and comes last in the legend.
        handles, labels = ax.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda place: labels[place].endswith(OTHERS))
        ax.legend(
            [handles[place] for place in order],
            [labels[place] for place in order],
            title=None if color == "kept" else plain_label(color),
            markerscale=2,
            **BESIDE,
        )
    method = selection.scores.recipe.manifold.upper()
    ax.set(
        xlabel=f"manifold 1 ({method}, standard deviations)",
        ylabel="manifold 2 (standard deviations)",
        title=f"{scored:,} rows" if len(rows) == scored else f"showing {len(rows):,} of {scored:,} rows",
    )
    ax.set_aspect("equal", adjustable="datalim")
    return ax


def plot_diagrams(
    selection: Selection, group: int | None = None, axes: Sequence[Axes] | None = None
) -> NDArray[Any]:
    """Draw the persistence diagrams that scored the rows, before and after optimisation.

    Parameters
    ----------
    selection : Selection
        By ``topoprune``.
    group : int, optional
        One of its groups; default: all together.
    axes : two matplotlib Axes, optional
        Default: a new figure's.

    Returns
    -------
    ndarray of two Axes
    """
    ranking = _ranking(selection)
    held = [ranking.state.get(f"diagrams_{when}") for when in ("before", "after")]
    if not all(isinstance(found, np.ndarray) for found in held):
        raise DataPrunerError(
            f"the scorer '{selection.scorer}' has no persistence diagrams to draw; choose with topoprune"
        )
    diagrams = [np.asarray(found, dtype=np.float64) for found in held]
    if group is not None:
        groups = np.unique(np.concatenate([found[:, 0] for found in diagrams])).astype(int)
        if group not in groups:
            raise DataPrunerError(
                f"there is no diagram of group {group}; there are {len(groups)}, from "
                f"{groups.min(initial=0)} to {groups.max(initial=0)}"
            )
        diagrams = [found[found[:, 0] == group] for found in diagrams]
    if axes is None:
        figure = pyplot().figure(figsize=(10, 4.8), layout="constrained")
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
    if len(axes) != 2:
        raise DataPrunerError(f"diagrams before and after take two axes, not {len(axes)}")
    limit = 1.05 * max((found[:, 2:].max(initial=0) for found in diagrams), default=0) or 1.0
    for ax, found, when in zip(axes, diagrams, ("before", "after"), strict=True):
        ax.plot([0, limit], [0, limit], color=GREY, linewidth=1, zorder=1, label="_diagonal")
        for dimension, what, colour, marker in ((0, "H0, merges", BLUE, "o"), (1, "H1, loops", RED, "^")):
            points = found[found[:, 1] == dimension]
            ax.scatter(
                points[:, 2],
                points[:, 3],
                s=18,
                color=colour,
                marker=marker,
                alpha=0.6,
                linewidths=0,
                label=f"{what} ({len(points):,})",
                rasterized=True,
                zorder=2,
                clip_on=False,
            )
        ax.set(
            xlabel="birth (radius, units of the manifold)",
            ylabel="death (radius, units of the manifold)",
            title=f"{when} optimisation" + ("" if group is None else f", group {group}"),
            xlim=(-0.03 * limit, limit),
            ylim=(-0.03 * limit, limit),
            aspect="equal",
        )
        ax.legend(loc="lower right", fontsize="small")
    return np.asarray(axes)


def plot_stability(stability: Stability, ax: Axes | None = None) -> Axes:
    """Draw how the overlap with the noiseless selection falls with the noise.

    One line a scorer, in a band of one standard deviation; the dotted line is what two random selections share.

    Parameters
    ----------
    stability : Stability
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
    moved = [record for record in stability.records if record.varied == "noise" and record.comparisons]
    if not moved:
        raise DataPrunerError(
            "there is nothing to draw: no scorer here reads embeddings that noise was put on"
        )
    ax = new_axes(ax)
    names = list(dict.fromkeys(record.scorer for record in moved))
    for number, name in enumerate(names):
        found = sorted((record for record in moved if record.scorer == name), key=lambda one: one.noise or 0)
        noise = np.array([record.noise for record in found], dtype=np.float64)
        mean = np.array([record.jaccard for record in found], dtype=np.float64)
        spread = np.array([record.jaccard_sd or 0 for record in found], dtype=np.float64)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        line = "-" if number < len(COLOURS) else "--"
        ax.plot(noise, mean, line, color=colour, marker=marker, label=plain_label(name))
        ax.fill_between(noise, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    levels = [record.chance for record in moved if record.chance is not None]
    ax.axhline(float(np.mean(levels)), color="black", linestyle=":", label="two random selections")
    for name in stability.scorers:
        if name not in names:
            ax.plot([], [], linestyle="none", label=f"{plain_label(name)}: reads no embedding")
    ax.set(
        xlabel="noise on the embeddings (standard deviations of each dimension)",
        ylabel="Jaccard with the noiseless selection",
        title=f"{_spent(stability)} kept, {stability.seeds} draws of noise",
        xlim=(0, None),
        ylim=(0, 1.02),
    )
    ax.legend(**BESIDE)
    return ax


def plot_damage(damage: Damage, by: str = "cluster", ax: Axes | None = None) -> Axes:
    """Draw how far every group's predictions moved, with the interval, the most damaged on top.

    Beside each stands how its loss rose, where both models were run.

    Parameters
    ----------
    damage : Damage
    by : str
        ``cluster``, or a column that the damage was broken down by.
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
    groups = damage.by(by)
    shown = groups[:MOST_GROUPS]
    ax = new_axes(ax)
    places = np.arange(len(shown))[::-1]
    middle = np.array([group.jsd for group in shown])
    # A group too small for an interval has none drawn.
    low = np.array([group.jsd if group.jsd_low is None else group.jsd_low for group in shown])
    high = np.array([group.jsd if group.jsd_high is None else group.jsd_high for group in shown])
    ax.errorbar(
        middle,
        places,
        xerr=np.maximum([middle - low, high - middle], 0),
        fmt="o",
        color=BLUE,
        ecolor=GREY,
        capsize=3,
        zorder=2,
    )
    ax.axvline(float(damage.jsd.mean()), color="black", linestyle=":", zorder=1)
    words = [
        f"{plain_label(group.name)}: {plain_label(', '.join(group.keywords[:3]))}"
        if by == "cluster"
        else plain_label(group.name)
        for group in shown
    ]
    ax.set_yticks(places, words)
    for place, group in zip(places.tolist(), shown, strict=True):
        if group.log_ppl is not None and group.pruned_log_ppl is not None:
            ax.annotate(
                f"{group.log_ppl:.2f} → {group.pruned_log_ppl:.2f}",
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize="small",
            )
    left_out = "" if len(shown) == len(groups) else f", the worst {len(shown)} of {len(groups)}"
    ax.set(
        xlabel="divergence of the two models' predictions (nats a token); dotted: all rows; right: loss",
        title=f"What pruning broke, by {plain_label(by)}{left_out}",
        xlim=(0, None),
        ylim=(-0.7, len(shown) - 0.3),
    )
    return ax


def _spent(stability: Stability) -> str:
    if stability.keep_tokens is not None:
        return f"{stability.keep_tokens:,} supervised tokens"
    return f"{stability.kept:,} of {stability.rows:,} rows"


def _ranking(selection: Selection) -> Ranking:
    return selection.scores.rankings[selection.scorer]


def _colours(selection: Selection, ranking: Ranking, color: str) -> NDArray[Any]:
    """Give what the rows are coloured by: floating point for a scale, text for groups."""
    if color == "score":
        measure = selection.measure
        return selection.values if measure.high else 0.0 - selection.values
    if color == "kept":
        return np.where(selection.kept, "kept", "dropped")
    if color in ranking.columns:
        column = np.asarray(ranking.columns[color])
        return column if column.dtype.kind == "f" else column.astype(np.str_)
    cells = selection.scores.samples.column(color)
    if any(isinstance(cell, float) for cell in cells):
        return np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
    names, codes = encode_labels(cells)
    return np.array(names, dtype=np.str_)[codes]
