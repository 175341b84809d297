"""Pictures of a selection: where its rows lie, and the topology that scored them. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.drawing import BESIDE, BLUE, GREY, OTHERS, RED, draw_groups, new_axes, plain_label, pyplot
from datapruner.errors import DataPrunerError
from datapruner.ranking import DRAW, Ranking
from datapruner.samples.labels import encode_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from datapruner.results.selected import Selected


def plot_manifold(
    selection: Selected, color: str = "score", ax: Axes | None = None, max_points: int = 20_000
) -> Axes:
    """Draw every scored row where the manifold puts it.

    Parameters
    ----------
    selection : Selected
        By a scorer that explains its values with the manifold's coordinates: ``topoprune``, ``entanglement``.
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
            f"the scorer '{selection.scorer}' has no manifold of two dimensions to draw; choose with topoprune "
            "or entanglement, manifold_dimensions=2"
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
        measure = selection.measure
        own = not measure.high or measure.name == DRAW
        named = measure.name if own else f"score of {selection.scorer}"
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
    selection: Selected, group: int | None = None, axes: Sequence[Axes] | None = None
) -> NDArray[Any]:
    """Draw the persistence diagrams that scored the rows, before and after optimisation.

    Parameters
    ----------
    selection : Selected
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


def _ranking(selection: Selected) -> Ranking:
    return selection.scores.rankings[selection.scorer]


def _colours(selection: Selected, ranking: Ranking, color: str) -> NDArray[Any]:
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
