"""The picture of what pruning broke. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datapruner.drawing import BLUE, GREY, MOST_GROUPS, new_axes, plain_label
from datapruner.pruning_damage.groups import CLUSTERS, GroupDamage

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(groups: Sequence[GroupDamage], mean: float, by: str = CLUSTERS, ax: Axes | None = None) -> Axes:
    """Draw how far every group's predictions moved, with the interval, the most damaged on top.

    Beside each stands how its loss rose, where both models were run.

    Parameters
    ----------
    groups : sequence of GroupDamage
        Of one kind, the most damaged first.
    mean : float
        Of the divergence over all rows, nats.
    by : str
        What the groups are: ``cluster``, or a column.
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
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
        clip_on=False,  # a dot at zero is whole
    )
    ax.axvline(mean, color="black", linestyle=":", zorder=1)
    words = [
        f"{plain_label(group.name)}: {plain_label(', '.join(group.keywords[:3]))}"
        if by == CLUSTERS
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
        # Seen from zero, not from the smallest: groups that hardly differ would lie on the edge.
        xlim=(0, 1.05 * max(float(high.max(initial=0)), float(middle.max(initial=0)), mean) or 1.0),
        ylim=(-0.7, len(shown) - 0.3),
    )
    return ax
