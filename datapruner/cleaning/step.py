"""The cleaning step's contract: rows in, those that must not be trained on out, each with a reason."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.rows import asides
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.inputs import Inputs
from datapruner.parameters import Parameters
from datapruner.reasons import Reason
from datapruner.signals.shared import Shared

if TYPE_CHECKING:
    from datapruner.choices import Match
    from datapruner.recipe import Recipe
    from datapruner.samples.sample import Part
    from datapruner.samples.samples import Samples


UNREAD = "unread"
"""A signal that only cleaning reads: whether a row's vector says nothing, since the embedder saw too little of it."""


@dataclass(frozen=True)
class Remaining:
    """The rows that the steps before have left, and what is known of them.

    Attributes
    ----------
    samples : Samples
        The source, whole.
    rows : ndarray, int64, shape (m,), ascending
        Positions in the source: what a step may drop.
    protected : ndarray, bool, shape (n,)
        Rows of the source that are always kept: no step drops them, and other rows give way to them.
    own : OwnText
        What of the rows' texts is their own.
    signals : mapping
        Signal -> what was measured, one entry for each of ``rows``, in their order: those that the step needs.
    seed : int
        Of everything random.
    inputs : Inputs
        Notes the files that a step reads besides, so that a change of theirs is seen.
    shared : Shared
        Clusterings and graphs of the vectors, made once for all that ask for the same.
    counted : dict
        What a step counts and does not drop goes here: words -> rows. The summary, the card and the page tell it.
    briefly : bool
        The default recipe runs, whose summary has a line for each part: what that says need not be told before.
    """

    samples: Samples
    rows: Ints
    protected: Flags
    own: OwnText
    signals: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    inputs: Inputs = field(default_factory=lambda: Inputs({}))
    shared: Shared = field(default_factory=Shared)
    counted: dict[str, int] = field(default_factory=dict)
    briefly: bool = False

    @cached_property
    def free(self) -> Ints:
        """The rows that are not protected; int64."""
        return self.rows[~self.protected[self.rows]]

    def texts(self, which: Part = "both", rows: Ints | None = None) -> Iterator[str]:
        """Read one part of each row as rows are compared: without system turns and what many share; streamed."""
        return self.own.texts(which, self.rows if rows is None else rows)

    def apart(self, match: Match) -> Ints | None:
        """Give rows a number for what they are besides their texts; see :func:`datapruner.cleaning.rows.asides`."""
        return asides(self.samples, self.rows, match)


@dataclass(frozen=True)
class CleaningStep(Parameters, ABC):
    """Something that drops rows before any scorer looks at them; its fields are its parameters.

    A built-in step is a file of :mod:`datapruner.cleaning.steps`, a plug-in's an entry point of the group
    ``datapruner.cleaning``; both are switched on by their name (``cleaning=["name"]``, ``--cleaning name``), and a
    built-in one by options of its own too.

    Attributes
    ----------
    name : str
    reasons : tuple of Reason
        Why it drops rows.
    needs : tuple of str
        Signals that it reads; none where it reads texts only, so that it runs before any model does. It runs as soon as
        they are measured.
    order : int
        Steps that may run at the same time do so in this order. What would be dropped anyway goes first: were it last,
        such a row could have dropped its better copy. Leaks have 20, copies 40 and more.
    passive : bool
        Nothing is measured for its sake: it runs where what it needs is there anyway.
    switch : str
        The option that switches it on, where it has one of its own.
    """

    name: ClassVar[str]
    reasons: ClassVar[tuple[Reason, ...]]
    needs: ClassVar[tuple[str, ...]] = ()
    order: ClassVar[int] = 30
    passive: ClassVar[bool] = False
    switch: ClassVar[str] = ""

    @classmethod
    def switched_on(cls, recipe: Recipe) -> Self | None:
        """Give the step as a recipe's own options switch it on; None where they do not."""
        return None

    @abstractmethod
    def clean(self, left: Remaining) -> Vetoes | Sequence[Vetoes] | None:
        """Say which of the rows that are left to drop.

        Parameters
        ----------
        left : Remaining

        Returns
        -------
        Vetoes, a sequence of them, or None
            See :func:`datapruner.cleaning.vetoes.drops`. An empty one says that it looked and found nothing.
        """

    def tell(self, left: Remaining, found: Vetoes) -> None:
        """Warn of what it dropped, besides what is said of every step that drops much.

        Parameters
        ----------
        left : Remaining
            What it was given.
        found : Vetoes
        """


def checked(step: CleaningStep, left: Remaining, found: Sequence[Vetoes]) -> Sequence[Vetoes]:
    """Refuse what no step may do.

    Raises
    ------
    DataPrunerError
        It drops a row that it was not given, that is always kept, or twice, or for a reason that is not its own.
    """
    import numpy as np

    codes = [reason.code for reason in step.reasons]
    gone = np.zeros(len(left.samples), dtype=np.bool_)
    given = np.zeros(len(left.samples), dtype=np.bool_)
    given[left.rows] = True
    for vetoes in found:
        wrong = ""
        inside = vetoes.rows[vetoes.rows < len(given)]
        if vetoes.kind not in codes:
            wrong = f"gives the reason '{vetoes.kind}', and names {', '.join(codes) or 'none'}"
        elif (row := _first(vetoes.rows >= len(given), vetoes.rows)) is not None:
            wrong = f"drops row {row} of {len(given):,}"
        elif (row := _first(~given[inside], inside)) is not None:
            wrong = f"drops row {row}, which it was not given"
        elif (row := _first(left.protected[inside], inside)) is not None:
            wrong = f"drops row {row}, which is to be kept always"
        elif (row := _first(gone[inside], inside)) is not None:
            wrong = f"drops row {row} twice"
        elif vetoes.texts is None and (row := _first(vetoes.others >= len(given), vetoes.others)) is not None:
            wrong = f"names row {row} of {len(given):,}"
        if wrong:
            raise DataPrunerError(f"the cleaning step '{step.name}' {wrong}; that is a fault of the step")
        gone[inside] = True
    return found


def _first(wrong: Flags, rows: Ints) -> int | None:
    return int(rows[wrong.argmax()]) if wrong.any() else None
