"""The stage: a run's cleaning steps, each as soon as what it reads is there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.step import CleaningStep, Remaining, checked
from datapruner.cleaning.telling import tell_drops
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.errors import DataPrunerError, RowError
from datapruner.inputs import Inputs
from datapruner.parts import CLEANING, built_in, find, make
from datapruner.reasons import NOT_MEASURED
from datapruner.signals.failing import RowsFailedError
from datapruner.signals.run import narrowed
from datapruner.signals.shared import Shared
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples

logger = logging.getLogger(__name__)


def make_step(given: Any, parameters: Mapping[str, Any] | None = None) -> CleaningStep:
    """Build a cleaning step from its name and parameters; an object is passed through.

    Parameters
    ----------
    given : str or CleaningStep
    parameters : mapping, optional

    Raises
    ------
    DataPrunerError
        Unknown name, unknown parameter, a value of the wrong type, or a step that has an option of its own.
    """
    step: CleaningStep = make(CLEANING, CleaningStep, given, parameters)
    if step.switch:
        raise DataPrunerError(f"the cleaning step '{step.name}' is switched on by {step.switch}")
    return step


def steps_of(recipe: Recipe, named: Iterable[CleaningStep] | None = None) -> list[CleaningStep]:
    """Give the steps of a run in their order.

    Parameters
    ----------
    recipe : Recipe
    named : iterable of CleaningStep, optional
        Instead of those that the recipe names under ``cleaning``.
    """
    own = (find(CLEANING, name).switched_on(recipe) for name in built_in(CLEANING))
    if named is None:
        named = [make_step(method.name, method.parameters) for method in recipe.cleaning]
    steps = [*(step for step in own if step is not None), *named]
    names = [step.name for step in steps]
    for name in names:
        if names.count(name) > 1:
            raise DataPrunerError(f"the cleaning step '{safe_text(name, 60)}' is named twice")
    return sorted(steps, key=lambda step: step.order)


class Stage:
    """What is left of a source's rows as the steps of a run go over them.

    Parameters
    ----------
    steps : sequence of CleaningStep
        In their order, see :func:`steps_of`.
    samples : Samples
        The source, whole.
    protected : ndarray, bool, shape (n,)
        Rows that no step drops.
    own : OwnText
    seed : int
    inputs : Inputs, optional
    shared : Shared, optional
        What is made of vectors once for all.
    briefly : bool
        As of :class:`datapruner.cleaning.step.Remaining`.

    Attributes
    ----------
    rows : ndarray, int64, ascending
        What is left.
    vetoes : list of Vetoes
        What each step dropped, in the order in which they ran.
    counted : dict
        What steps counted and did not drop: words -> rows.
    """

    def __init__(
        self,
        steps: Sequence[CleaningStep],
        samples: Samples,
        protected: Flags,
        own: OwnText,
        seed: int = 0,
        inputs: Inputs | None = None,
        shared: Shared | None = None,
        *,
        briefly: bool = False,
    ) -> None:
        self.rows: Ints = np.arange(len(samples), dtype=np.int64)
        self.vetoes: list[Vetoes] = []
        self.counted: dict[str, int] = {}
        self._waiting = list(steps)
        self._samples, self._protected, self._own, self._seed = samples, protected, own, seed
        self._inputs = Inputs({}) if inputs is None else inputs
        self._shared = Shared() if shared is None else shared
        self._briefly = briefly

    @property
    def waiting(self) -> list[str]:
        """The names of the steps that have not run, since what they read is not there yet."""
        return [step.name for step in self._waiting]

    def lose(self, error: RowsFailedError) -> None:
        """Drop rows that could not be measured.

        Raises
        ------
        DataPrunerError
            One of them is to be kept always, or no other row is left.
        """
        rows = np.array(list(error.why), dtype=np.int64)
        if (kept := rows[self._protected[rows]]).size:
            raise RowError(
                f"row {kept[0]} is to be kept always, and {error.who} fails on it: {error.why[int(kept[0])]}; take it "
                "off that list",
                kept[0],
            ) from error
        left = np.setdiff1d(self.rows, rows, assume_unique=True)
        said = next(iter(error.why.values()))
        if not left.size:
            raise DataPrunerError(f"{error.who} fails on every row: {said}") from error
        words = np.array(list(error.why.values()))
        self.vetoes += [
            drops(NOT_MEASURED.filled(who=error.who, why=why), rows[words == why])
            for why in sorted({*words.tolist()})
        ]
        logger.warning(
            "%s fails on %s of %s rows, which were left out; %s first: %s",
            error.who,
            f"{len(rows):,}",
            f"{len(self.rows):,}",
            self._samples.row_words(rows[0]),
            said,
        )
        self.rows = left

    def run(self, known: Mapping[str, Any] | None = None) -> None:
        """Run the steps that can be: those whose signals are there and that have not run yet.

        Parameters
        ----------
        known : mapping, optional
            Signal -> what was measured, one entry for each of ``rows``, in their order.

        Raises
        ------
        DataPrunerError
            A step refuses the rows, or does what no step may.
        """
        known = known or {}
        ready = [step for step in self._waiting if known.keys() >= set(step.needs)]
        held = {name: known[name] for step in ready for name in step.needs}
        self._waiting = [step for step in self._waiting if step not in ready]
        done = []
        for step in ready:
            left = Remaining(
                self._samples,
                self.rows,
                self._protected,
                self._own,
                {name: held[name] for name in step.needs},
                self._seed,
                self._inputs,
                self._shared,
                self.counted,
                self._briefly,
            )
            found = step.clean(left)
            listed = [found] if isinstance(found, Vetoes) else list(found or ())
            self.vetoes += checked(step, left, listed)
            done.append((step, left, listed))
            gone = np.concatenate([self.rows[:0], *(vetoes.rows for vetoes in listed)])
            if gone.size:
                places = np.flatnonzero(~np.isin(self.rows, gone))
                self.rows = self.rows[places]
                held = narrowed(held, places)
        for step, left, listed in done:
            for vetoes in listed:
                if len(vetoes):
                    step.tell(left, vetoes)
            tell_drops(self._samples, listed)
