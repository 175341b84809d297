"""The picture of a stability study. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datapruner.drawing import BESIDE, COLOURS, MARKERS, new_axes, plain_label
from datapruner.errors import DataPrunerError
from datapruner.stability.agreement import Agreement

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(records: Sequence[Agreement], scorers: Sequence[str], title: str, ax: Axes | None = None) -> Axes:
    """Draw how the overlap with the noiseless selection falls with the noise.

    One line a scorer, in a band of one standard deviation; the dotted line is what two random selections share.

    Parameters
    ----------
    records : sequence of Agreement
    scorers : sequence of str
        All names; those without a line are named in the legend.
    title : str
    ax : matplotlib.axes.Axes, optional
        Default: a new figure's.
    """
    moved = [record for record in records if record.varied == "noise" and record.comparisons]
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
    for name in scorers:
        if name not in names:
            ax.plot([], [], linestyle="none", label=f"{plain_label(name)}: reads no embedding")
    ax.set(
        xlabel="noise on the embeddings (standard deviations of each dimension)",
        ylabel="Jaccard with the noiseless selection",
        title=title,
        xlim=(0, None),
        ylim=(0, 1.02),
    )
    ax.legend(**BESIDE)
    return ax
