"""A table of coloured cells, as pictures of pairs and of groups are. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Floats
from datapruner.drawing import GREY, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIVERGING = "PuOr"
"""Orange below, purple above, which people with any colour vision can tell apart."""
DARK = 0.6
"""Beyond this share of a diverging scale's range, in both directions, white figures are legible and black are not."""


def draw_cells(
    colour: Floats,
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    ax: Axes | None,
    title: str,
) -> Axes:
    """Draw a table of coloured cells; what there is no colour for is grey."""
    if ax is None:
        size = (3.4 + 0.55 * len(columns), 2.2 + 0.36 * len(rows))
        ax = pyplot().figure(figsize=size, layout="constrained").add_subplot()
    ax.set_facecolor(GREY)
    ax.imshow(np.ma.masked_invalid(colour), cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto")
    for (i, j), shade in np.ndenumerate(colour):
        ink = "white" if abs(shade) > DARK else "black"
        ax.text(j, i, texts[i][j], ha="center", va="center", color=ink, fontsize="small")
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.set_title(title)
    return ax


def draw_bar(ax: Axes, words: Sequence[str]) -> None:
    """Draw the scale of the colours, with what its ends and its middle mean."""
    bar = ax.figure.colorbar(ax.images[0], ax=ax, ticks=[-1, 0, 1])
    bar.ax.set_yticklabels(list(words))
    bar.ax.tick_params(labelsize="small")
