"""Carry out what is asked for: measure, rank, choose. Every verb, from Python or the command line, ends here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from datapruner.errors import DataPrunerError
from datapruner.measuring.measure import Measured, measure
from datapruner.measuring.request import Request
from datapruner.ranking import Ranking
from datapruner.scorers.base import Scorer
from datapruner.scores import Scores, Selection


def scored(request: Request) -> Scores:
    """Measure and rank."""
    return rank(measure(request))


def selected(request: Request) -> Selection:
    """Measure, rank and spend the one budget."""
    if len(request.budgets) != 1 or request.chosen is None:
        raise DataPrunerError("a selection is made by one scorer, for one budget")
    return scored(request).spend(request.budgets[0], request.chosen, request.selector)


def rank(measured: Measured, scorers: Sequence[Scorer] | None = None) -> Scores:
    """Rank what was measured, with the run's scorers or with others that need no more than they do."""
    made = measured.scorers if scorers is None else list(scorers)
    rows, n = measured.rows, len(measured.samples)
    with measured.samples.naming():
        rankings = {scorer.name: scorer.score(measured.signals).scatter(rows, n) for scorer in made}
    return Scores(
        measured.samples,
        measured.recipe,
        {scorer.name: scorer for scorer in made},
        {name: _handed(ranking, measured) for name, ranking in rankings.items()},
        measured.vetoes,
        measured.forced,
        measured.tokens,
        measured.renderer,
        measured.counted,
    )


def _handed(ranking: Ranking, measured: Measured) -> Ranking:
    """Hand on what selectors read besides the ranking."""
    return replace(ranking, state={**ranking.state, **measured.handed}) if measured.handed else ranking
