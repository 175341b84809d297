"""Measure how steady selections are: rows are cleaned and models run once, and ranked and chosen again and again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from datapruner.arguments import takes
from datapruner.budget import Amount, Budget
from datapruner.measuring.arguments import in_full, requested
from datapruner.measuring.measure import Measured, measure
from datapruner.measuring.request import Request
from datapruner.option_types import DEFAULTS, SCORERS_OWN, SELECTING, Choosing, notes
from datapruner.progress import bar as progress_bar
from datapruner.running import rank
from datapruner.stability.agreement import Agreement, Figures, Run, agreement_of, compared
from datapruner.stability.noise import deviations, varied_measurement, with_noise
from datapruner.stability.result import Stability
from datapruner.stability.variations import NOISE, OF_VECTORS, Measurement, Second, Variations

if TYPE_CHECKING:
    from datapruner.scorers.base import Scorer
    from datapruner.selection.selector import Selector

UNREAD = "reads no embedding"
OF_ONE_SELECTION = {
    **dict.fromkeys(SELECTING | {"per_group"}, "it takes `scorers`, what to `keep`, and one `selector`"),
    **SCORERS_OWN,
}
"""Arguments of a verb that makes one selection, and what those that make several take instead."""


@takes(
    Choosing,
    defaults=DEFAULTS,
    told=notes(Choosing),
    elsewhere=OF_ONE_SELECTION,
)
def compare_stability(
    source: Any,
    *,
    scorers: str | Scorer | Sequence[str | Scorer] | None = None,
    keep: Amount = 0.3,
    seeds: int = 5,
    noise: Sequence[float] = NOISE,
    embedders: Sequence[Any] | None = None,
    second_embeddings: Any = None,
    selector: str | Selector | None = None,
    **options: Unpack[Choosing],
) -> Stability:
    """Measure how far the selections of some scorers depend on what should not matter.

    Runs are compared by the Jaccard index of the rows they keep and by the Spearman correlation of their scores:
    all pairs of runs that differ in the seed; runs with Gaussian noise on the vectors against the one without; and
    two embedders. Every figure stands beside what two independent random selections would give.

    Parameters
    ----------
    source : str, Path, Dataset, DatasetDict, list of dict or DataFrame
        See :func:`datapruner.score`.
    scorers : str, Scorer, or a sequence of them
    keep : float or int
        A fraction of the rows, or a number of rows.
    seeds, noise
        See :class:`Variations`. The vectors with noise are held in memory.
    embedders : pair of str or Encoder, optional
        Compare these two; the first makes the vectors of all other runs.
    second_embeddings : path or array of shape (n, d), optional
        Vectors that stand for a second embedder.
    selector : str or Selector, optional
        Default: each scorer's own.
    **options
        Everything :func:`datapruner.score` takes.

    Raises
    ------
    DataPrunerError
        Anything the user can put right.
    """
    varied = Variations(seeds, noise)
    budget = Budget(keep)
    second = Second.of(options, embedders, second_embeddings)
    given: dict[str, Any] = {**options, **({} if second is None else second.first)}
    scorers, given = in_full(scorers, given)
    asked = requested(source, scorers=scorers, budgets=[budget], selector=selector, **given)
    other = None if second is None else second.requested(asked, source, given)
    held = measure(asked)
    return stability_of(
        held,
        asked,
        varied=varied,
        second=None if second is None else second.measured(held, other),
    )


def stability_of(
    held: Measured, asked: Request, *, varied: Variations, second: Measurement | None = None
) -> Stability:
    """Compare the runs of all scorers of a measurement; see :func:`compare_stability`.

    Parameters
    ----------
    held : Measured
    asked : Request
        Its first budget is spent.
    varied : Variations
    second : Measurement, optional
        The same rows with other vectors.
    """
    budget = asked.budgets[0]
    scorers = held.scorers
    readers = [scorer for scorer in scorers if scorer.requires & OF_VECTORS]

    def runs_of(measured: Measured, made: Sequence[Scorer]) -> dict[str, Run]:
        scores = rank(measured, made)
        return {
            scorer.name: Run(
                scores.spend(budget, scorer.name, asked.selector_of(scorer)).kept,
                scores.rankings[scorer.name].values,
                scores.forced,
            )
            for scorer in made
        }

    draws = len(varied.noise) * varied.seeds if readers else 0
    with progress_bar(varied.seeds + draws, "stability", "runs", asked.progress) as bar:
        by_seed = []
        for number in range(varied.seeds):
            by_seed.append(
                runs_of(varied_measurement(held, seed=(held.recipe.seed + number) % 2**32), scorers)
            )
            bar.update()
        base = by_seed[0]
        noisy: dict[tuple[str, float], list[Figures]] = {}
        if draws:
            vectors = held.signals["embedding"]
            spread = deviations(vectors)
            for level in varied.noise:
                for draw in range(varied.seeds):
                    moved = with_noise(vectors, np.float32(level) * spread, held.recipe.seed, draw)
                    for name, run in runs_of(varied_measurement(held, vectors=moved), readers).items():
                        noisy.setdefault((name, level), []).append(compared(base[name], run))
                    bar.update()
    other = {} if second is None or second.held is None else runs_of(second.held, readers)
    records: list[Agreement] = []
    for scorer in scorers:
        name = scorer.name
        unread = "" if scorer in readers else UNREAD
        pairs = combinations([runs[name] for runs in by_seed], 2)
        records.append(agreement_of(name, "seed", [compared(*pair) for pair in pairs]))
        records.extend(
            agreement_of(name, "noise", noisy.get((name, level), []), noise=level, note=unread)
            for level in varied.noise
        )
        if second is not None:
            found = [compared(base[name], other[name])] if name in other else []
            records.append(agreement_of(name, "embedder", found, note=unread))
    first = next(iter(base.values()))
    return Stability(
        tuple(records),
        held.recipe.with_budget(budget).pinned(held.samples),
        len(held.samples),
        len(held.rows),
        int(first.kept.sum()),
        varied.seeds,
        tuple(varied.noise),
        None if second is None else second.names,
        budget.keep_tokens,
    )
