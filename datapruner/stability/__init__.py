"""How steady a selection is: under other seeds, under noise on the vectors, with another embedder.

All of it is *ours*. Cleaning and every pass of a model are done once; what a scorer makes of them is done again.
"""

from datapruner.stability.agreement import Agreement
from datapruner.stability.noise import deviations, with_noise
from datapruner.stability.result import Stability
from datapruner.stability.run import OF_ONE_SELECTION, UNREAD, compare_stability, stability_of
from datapruner.stability.variations import NOISE, OF_VECTORS, Measurement, Second, Variations

__all__ = [
    "NOISE",
    "OF_ONE_SELECTION",
    "OF_VECTORS",
    "UNREAD",
    "Agreement",
    "Measurement",
    "Second",
    "Stability",
    "Variations",
    "compare_stability",
    "deviations",
    "stability_of",
    "with_noise",
]
