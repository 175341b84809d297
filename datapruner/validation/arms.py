"""What the trainings of a validation differ in: rows without the best of a score, or kept ones beside random ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.results.view import SelectionView
from datapruner.samples.portable import TOKEN_COLUMNS
from datapruner.samples.rendered import Rendered
from datapruner.signals.language_model.reader import LanguageModel
from datapruner.text import safe_text
from datapruner.validation.target import BLOCK, Target
from datapruner.validation.training import IGNORED, as_many, left_out, supervised

if TYPE_CHECKING:
    from datapruner.scores import Scores

FEWEST_ROWS = 20


@dataclass(frozen=True, eq=False)
class Arms:
    """The rows of every training.

    Attributes
    ----------
    rows : int
        That a run draws, at most.
    runs : list of dict of str to list of Rendered
        Of every run the rows of each arm.
    shared : int
        Rows of the source that the target has too, and no arm.
    """

    rows: int
    runs: list[dict[str, list[Rendered]]]
    shared: int = 0

    @cached_property
    def learnt(self) -> Ints:
        """Supervised tokens of every training; int64 (runs, arms)."""
        return np.array([[sum(map(supervised, rows)) for rows in run.values()] for run in self.runs])


def of_score(
    scores: Scores,
    scorer: str,
    reader: LanguageModel,
    target: Target,
    rows: int,
    runs: int,
    leave_out: float,
    seed: int,
) -> Arms:
    """Draw rows for every run, and leave out the best of a score, the worst and any."""
    values = scores.rankings[scorer].values
    ranked = np.setdiff1d(np.flatnonzero(np.isfinite(values)), target.held_out)
    if np.ptp(values[ranked]) == 0:
        raise DataPrunerError(
            f"the scorer '{safe_text(scorer, 60)}' gives all rows the same score: nothing is best"
        )
    fit = _Fit(target)
    out, most = [], 0
    for run in range(runs):
        places = np.sort(np.random.default_rng([seed, run]).permutation(ranked)[:rows])
        found = list(fit(places, reader.render(scores.samples, places)))
        _enough(len(found), "scored", target)
        most = max(most, len(found))
        tokens = np.array([supervised(row) for _, row in found], dtype=np.int64)
        stays = left_out(
            values[[place for place, _ in found]], tokens, leave_out, np.random.default_rng([seed, run, 1])
        )
        out.append({f"without_{name}": [found[at][1] for at in of.tolist()] for name, of in stays.items()})
    return Arms(most, out, len(fit.shared))


def of_selection(
    selection: SelectionView, reader: LanguageModel, target: Target, rows: int, runs: int, seed: int
) -> Arms:
    """Draw kept rows for every run, and of the whole source at random rows of as many supervised tokens."""
    source = selection.source
    kept = np.flatnonzero(~np.isin(selection.indices, target.held_out))
    every = np.setdiff1d(np.arange(len(source)), target.held_out)
    if len(kept) == len(every):
        raise DataPrunerError("all rows are kept: a random draw of as many tokens would be the same rows")
    fit = _Fit(target)
    out = []
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        places = np.sort(rng.permutation(kept)[:rows])
        best = [row for _, row in fit(selection.indices[places], _kept(selection, reader, places))]
        _enough(len(best), "kept", target)
        budget, order = sum(map(supervised, best)), rng.permutation(every)
        drawn: list[Rendered] = []
        tokens: list[int] = []
        for start in range(0, len(order), BLOCK):
            part = order[start : start + BLOCK]
            drawn += (row for _, row in fit(part, reader.render(source, part)))
            tokens += map(supervised, drawn[len(tokens) :])
            if sum(tokens) > budget:
                drawn = drawn[: as_many(np.array(tokens, dtype=np.int64), budget)]
                break
        out.append({"random": drawn, "kept": best})
    return Arms(min(rows, len(kept)), out, len(fit.shared))


class _Fit:
    """Lets rows pass that have an answer and are none of those that are read; counts the others of these."""

    def __init__(self, target: Target) -> None:
        self.known = {row.key for row in target.rows}
        self.shared: set[int] = set()

    def __call__(self, places: Ints, rendered: Iterable[Rendered]) -> Iterator[tuple[int, Rendered]]:
        for place, row in zip(places.tolist(), rendered, strict=True):
            if row.key in self.known:
                self.shared.add(place)
            elif supervised(row):
                yield place, row


def token_pruned(selection: SelectionView) -> bool:
    """Whether some of the kept rows' tokens are out of the loss."""
    return set(TOKEN_COLUMNS) <= set(selection.dataset.column_names) - set(
        selection.source.dataset.column_names
    )


def _kept(selection: SelectionView, reader: LanguageModel, places: Ints) -> list[Rendered]:
    """Render some of the kept rows, with what of their tokens stays in the loss."""
    if not token_pruned(selection):
        return list(reader.render(selection.source, selection.indices[places]))
    out = []
    for row in selection.dataset.select(places).select_columns(list(TOKEN_COLUMNS)):
        ids, labels = (np.array(row[name], dtype=np.int32) for name in ("input_ids", "labels"))
        out.append(Rendered(ids, labels != IGNORED, False, np.zeros((0, 3), dtype=np.int32)))
    return out


def _enough(count: int, what: str, target: Target) -> None:
    if count < FEWEST_ROWS:
        beside = f" beside the {len(target.held_out):,} that are held out" if len(target.held_out) else ""
        raise DataPrunerError(
            f"{count} {what} rows have answers{beside}, and validate asks for {FEWEST_ROWS} at least"
        )
