"""What all pictures share: colours, axes, names as they are. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.extras import how_to_install
from datapruner.text import safe_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which people with any colour vision can tell apart.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
)
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, YELLOW)
MARKERS = "os^DvPX*"
GREY = "#B0B0B0"
MOST_GROUPS = 40
SHOWN = len(COLOURS)
"""Groups that get a colour; all others share grey."""
OTHERS = " other groups"
BESIDE: dict[str, Any] = {"fontsize": "small", "loc": "upper left", "bbox_to_anchor": (1.01, 1)}
"""A legend beside the axes, where it covers nothing."""


def draw_groups(
    ax: Axes,
    x: NDArray[Any],
    y: NDArray[Any],
    rows: Ints,
    values: NDArray[Any],
    style: dict[str, Any],
) -> None:
    """Give each of the largest groups a colour and a line of the legend; the smallest group is drawn last."""
    names, counts = np.unique(values[rows], return_counts=True)
    order = names[np.argsort(-counts, kind="stable")].tolist()
    if set(order) <= {"kept", "dropped"}:
        palette = {"dropped": GREY, "kept": BLUE}
        order = [name for name in palette if name in order]
    else:
        palette = dict(zip(order[:SHOWN], COLOURS, strict=False))
        if rest := order[SHOWN:]:
            others = rows[np.isin(values[rows], rest)]
            ax.scatter(x[others], y[others], color=GREY, label=f"{len(rest):,}{OTHERS}", **style)
    for name, colour in palette.items():
        if name in order:
            of = rows[values[rows] == name]
            ax.scatter(x[of], y[of], color=colour, label=f"{plain_label(name)} ({len(of):,})", **style)


def plain_label(text: str, limit: int = 24) -> str:
    """Write a name as it is: not as mathematics, and not so that a legend would leave it out."""
    shown = safe_text(str(text), limit).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def new_axes(ax: Axes | None) -> Axes:
    """Give the axes to draw on: a new figure's where there are none."""
    if ax is not None:
        return ax
    made: Axes = pyplot().figure(figsize=(8, 4.8), layout="constrained").add_subplot()
    return made


def pyplot() -> Any:
    """Import matplotlib's pyplot, or say how to install it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise DataPrunerError(f"pictures need matplotlib: {how_to_install('matplotlib')}") from error
    return pyplot
