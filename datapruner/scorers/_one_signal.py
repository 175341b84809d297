"""Rank by one signal of a forward pass: what the scorers of one loss, error or gradient share."""

from __future__ import annotations

from typing import Literal

import numpy as np

from datapruner.ranking import Ranking
from datapruner.signals import Signals

Keep = Literal["low", "high"]


def by_signal(signal: str, keep: Keep, signals: Signals) -> Ranking:
    """Rank by one signal."""
    values = np.array(signals.column(signal), dtype=np.float64)
    return Ranking(values if keep == "high" else -values, columns={signal: signals.column(signal)})
