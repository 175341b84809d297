"""Rows that an earlier result, or any other set, holds already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from datapruner.arrays import Ints
from datapruner.choices import Match
from datapruner.cleaning.held import Beside, Texts, same_as_held
from datapruner.cleaning.step import CleaningStep, Remaining
from datapruner.cleaning.steps.near import near_held
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.errors import DataPrunerError
from datapruner.files.remote import masked
from datapruner.reasons import Reason
from datapruner.samples.source import load_beside
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples

HELD = Reason(
    "already_held",
    "already held: says what row {other} of {name} says",
    "row that an earlier set holds",
    "rows that an earlier set holds",
    "dropped as held by an earlier set",
    "leave that set out of --against if these rows are to count again",
    "held row",
)
LIKE = "already held: near-duplicate of row {other} of {name} (Jaccard {measure:.2f})"


@dataclass(frozen=True)
class Against(CleaningStep):
    """Rows that an earlier result, or any other set, holds already: copies of its rows, and near duplicates.

    Attributes
    ----------
    sources : tuple of str
        Sets, each as a source is named; of a result its kept rows.
    names : tuple of str
        What each is called in the reason.
    columns : dict, optional
    layout : str, optional
        As rows of the source are read.
    match : {"text", "exact", "loose"}
        What counts as the same text.
    threshold : float
        Jaccard similarity of near duplicates.
    ngram : int
        Words a shingle.
    numbers : bool
        Rows of other numbers are kept apart.
    """

    name = "against"
    reasons = (HELD,)
    order = 35
    switch = "--against"

    sources: tuple[str, ...]
    names: tuple[str, ...]
    columns: dict[str, str] | None = None
    layout: str | None = None
    match: Match = "text"
    threshold: float = 0.7
    ngram: int = 3
    numbers: bool = False

    @classmethod
    def switched_on(cls, recipe: Recipe) -> Self | None:
        """Where ``against`` names a set."""
        if not recipe.against:
            return None
        paths = [recipe.names_path("against", one) for one in recipe.against]
        return cls(
            tuple(recipe.against),
            tuple(
                Path(one).name if path else masked(one)
                for one, path in zip(recipe.against, paths, strict=True)
            ),
            recipe.columns,
            recipe.layout,
            recipe.match,
            recipe.near_threshold,
            recipe.near_ngram,
            recipe.near_numbers,
        )

    def clean(self, left: Remaining) -> list[Vetoes]:
        """Compare the rows with each set, those that no set before it holds."""
        found: list[Vetoes] = []
        rows = left.free
        for number, (source, name) in enumerate(zip(self.sources, self.names, strict=True), 1):
            held = self._read(source)
            left.inputs.rows("against" if len(self.sources) == 1 else f"against {number}", held)
            for vetoes in self._compared(left, held, rows, name):
                found.append(vetoes)
                rows = np.setdiff1d(rows, vetoes.rows, assume_unique=True)
        return found

    def _read(self, source: str) -> Samples:
        try:
            return load_beside(source, columns=self.columns, layout=self.layout)
        except DataPrunerError as error:
            raise DataPrunerError(f"--against: {error.sentence}") from error

    def _compared(self, left: Remaining, held: Samples, rows: Ints, name: str) -> Iterator[Vetoes]:
        texts, told = Texts(held), HELD.filled(name=safe_text(name, 60))
        if not held.layout.has_text == left.samples.layout.has_text:
            raise DataPrunerError(
                f"--against: {safe_text(masked(held.source), 200)} is read as '{held.layout.name}' and the rows as "
                f"'{left.samples.layout.name}', so that they cannot be compared"
            )
        places, others = same_as_held(_told(held), len(held), left.samples.iter_keys(rows), rows, self.match)
        yield drops(told, rows[places], others, np.ones(len(places)), texts)
        rows = np.delete(rows, places)
        if not held.layout.has_text or not rows.size:
            return
        both = Beside(held, left.samples, rows, left.own)
        found, others, measures = near_held(
            both.texts(),
            both.is_held,
            threshold=self.threshold,
            ngram=self.ngram,
            seed=left.seed,
            numbers=self.numbers,
            apart=both.apart(self.match),
            whole=both.whole(),
        )
        near = replace(told, sentence=replace(HELD, sentence=LIKE).filled(name=safe_text(name, 60)).sentence)
        yield drops(near, rows[found - len(held)], others, measures, texts)


def _told(held: Samples) -> Iterator[str]:
    """Give the keys of a set's rows, and say of one that cannot be read whose it is."""
    try:
        yield from held.iter_keys()
    except DataPrunerError as error:
        raise DataPrunerError(
            f"--against: {safe_text(masked(held.source), 200)}: {error.sentence}"
        ) from error
