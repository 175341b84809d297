"""How far runs of one scorer agree: the rows that both keep, and the order of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from datapruner.arrays import Flags, Floats
from datapruner.overlap import chance, correlation, jaccard


@dataclass(frozen=True)
class Agreement:
    """How far runs of one scorer agree that differ in one thing.

    Attributes
    ----------
    scorer : str
    varied : {"seed", "noise", "embedder"}
    noise : float, optional
        In standard deviations of every dimension, where noise was added.
    comparisons : int
        Pairs of runs behind the figures; 0 where nothing was compared, and ``note`` says why.
    jaccard, jaccard_sd : float, optional
        Mean and standard deviation, over the comparisons, of the rows that both runs keep as a share of the rows
        that either keeps.
    chance : float, optional
        The Jaccard index to be expected of two independent random selections of that size.
    spearman, spearman_sd : float, optional
        Rank correlation of the scores; None where a run gave all rows the same score.
    note : str
    """

    scorer: str
    varied: Literal["seed", "noise", "embedder"]
    noise: float | None = None
    comparisons: int = 0
    jaccard: float | None = None
    jaccard_sd: float | None = None
    chance: float | None = None
    spearman: float | None = None
    spearman_sd: float | None = None
    note: str = ""


class Run(NamedTuple):
    """What one run of one scorer kept, its scores, and the rows it had to keep."""

    kept: Flags
    values: Floats
    forced: Flags


class Figures(NamedTuple):
    """What two runs have in common, and what two random selections of their sizes would."""

    jaccard: float
    chance: float
    spearman: float | None


def compared(first: Run, second: Run) -> Figures:
    """Compare two runs of one scorer."""
    return Figures(
        jaccard(first.kept, second.kept),
        chance(
            (int(first.kept.sum()), int(second.kept.sum())),
            (np.isfinite(first.values), np.isfinite(second.values)),
            first.forced,
        ),
        correlation(first.values, second.values),
    )


def agreement_of(
    scorer: str,
    varied: Literal["seed", "noise", "embedder"],
    found: Sequence[Figures],
    *,
    noise: float | None = None,
    note: str = "",
) -> Agreement:
    """Sum up what was found over all pairs of runs; the note says why where there are none."""
    if not found:
        return Agreement(scorer, varied, noise, note=note)
    overlaps, levels, ranks = zip(*found, strict=True)
    return Agreement(
        scorer,
        varied,
        noise,
        comparisons=len(found),
        jaccard=_mean(overlaps),
        jaccard_sd=_deviation(overlaps),
        chance=_mean(levels),
        spearman=_mean(ranks),
        spearman_sd=_deviation(ranks),
        note=note,
    )


def _mean(figures: Sequence[float | None]) -> float | None:
    """Of what is not known there is no mean."""
    known = [found for found in figures if found is not None]
    return float(np.mean(known)) if len(known) == len(figures) else None


def _deviation(figures: Sequence[float | None]) -> float | None:
    """Give the standard deviation of a sample; of one figure there is none."""
    known = [found for found in figures if found is not None]
    return float(np.std(known, ddof=1)) if len(known) == len(figures) > 1 else None
