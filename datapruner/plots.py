"""All pictures in one place: of a selection, of a comparison, of stability, of damage. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datapruner.comparison.pictures import (
    plot_budgets,
    plot_correlation,
    plot_groups,
    plot_length_bias,
    plot_lengths,
    plot_overlap,
    plot_scores,
)
from datapruner.drawing import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    MARKERS,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    new_axes,
    plain_label,
    pyplot,
)
from datapruner.outputs.pictures import plot_diagrams, plot_manifold

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from datapruner.pruning_damage.result import Damage
    from datapruner.stability.result import Stability

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
    "plot_budgets",
    "plot_correlation",
    "plot_damage",
    "plot_diagrams",
    "plot_groups",
    "plot_length_bias",
    "plot_lengths",
    "plot_manifold",
    "plot_overlap",
    "plot_scores",
    "plot_stability",
    "pyplot",
]


def plot_stability(stability: Stability, ax: Axes | None = None) -> Axes:
    """Draw how the overlap with the noiseless selection falls with the noise.

    One line a scorer, in a band of one standard deviation; the dotted line is what two random selections share.

    Parameters
    ----------
    stability : Stability
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
    return stability.plot(ax)


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
    return damage.plot(by, ax)
