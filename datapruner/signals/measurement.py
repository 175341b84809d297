"""A measurement: what signals it gives, what it needs for them, what that costs, and how rows are measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from datapruner.signals.run import Run, tokens_a_row
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datapruner.progress import Ahead
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples

Shape = Literal["row", "token", "matrix", "table", "text", "other set"]
LANGUAGE_MODEL, EMBEDDER = "language model", "embedder"
OPEN = ":"
"""Ends the name of signals that are asked for with something behind it, such as ``column:capability``."""


@dataclass(frozen=True)
class Given:
    """A signal as a measurement announces it.

    Attributes
    ----------
    name : str
        What scorers ask for; one that ends in a colon stands for all names that begin so.
    what : str
        In a few words.
    shape : {"row", "token", "matrix", "table", "text", "other set"}
        One number a row (n,); a number for every supervised token (:class:`datapruner.ragged.Ragged`); a vector a row
        (n, d); integers (n, k); texts; an entry, or a vector, for each of another set's m rows.
    dtype : str
        Of the entries, as numpy writes it.
    unit : str
        Such as nats; empty where there is none.
    """

    name: str
    what: str
    shape: Shape = "row"
    dtype: str = "float64"
    unit: str = ""

    def covers(self, signal: str) -> bool:
        """Whether it is the one that was asked for."""
        return signal.startswith(self.name) if self.name.endswith(OPEN) else signal == self.name

    def described(self) -> str:
        """Say what it is, with its shape and unit where they are not a plain number a row."""
        shape = " (ragged)" if self.shape == "token" else ""
        return f"{self.what}{shape}{f', {self.unit}' if self.unit else ''}"


class Cost(NamedTuple):
    """What measuring costs, about, on a processor with a small model; what was measured before is noted and wins.

    Attributes
    ----------
    seconds : float
        For each row or token that has to be computed.
    of : {"row", "token"}
    """

    seconds: float = 0.0
    of: Literal["row", "token"] = "row"


Readers = Mapping[str, frozenset[str]]
"""Who reads signals, such as ``the scorer 'd2'``, -> which."""


class Measurement(ABC):
    """Base of all measurements: one file each, found by its name.

    A plug-in mostly derives from :class:`datapruner.signals.by_rows.RowMeasurement` and writes how a block of rows
    becomes arrays; what reads a model, a file or the whole set at once derives from this.

    Attributes
    ----------
    name : str
        The file's, or the entry point's.
    gives : tuple of Given
    needs : frozenset of str
        Signals that it reads.
    options : tuple of str
        The recipe's fields that nobody else reads, so that a scorer without this measurement can do without them.
    paced_by : tuple of str
        The recipe's fields that how fast it is depends on, such as the model.
    reads_text : bool
        Rows without text cannot be measured.
    roles : tuple of str
        Roles of a layout, such as ``rejected``, that rows must have to be measured.
    together : bool
        A row's signal depends on the other rows: it is measured again where a cleaning step dropped some of them.
    cost : Cost
    """

    name: ClassVar[str]
    gives: ClassVar[tuple[Given, ...]]
    needs: ClassVar[frozenset[str]] = frozenset()
    options: ClassVar[tuple[str, ...]] = ()
    paced_by: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = False
    roles: ClassVar[tuple[str, ...]] = ()
    together: ClassVar[bool] = False
    cost: ClassVar[Cost] = Cost()

    def applies(self, recipe: Recipe) -> bool:
        """Whether it is the one to give its signals in a run of this recipe; where others give them too."""
        return True

    def model(self, recipe: Recipe) -> str | None:
        """Name the kind of model that reads the rows: a language model, an embedder, or none."""
        return None

    def reads(self, signals: frozenset[str]) -> bool:
        """Whether somebody who reads these signals, and no others, makes use of its options."""
        return any(self.given(signal) is not None for signal in signals)

    def check(self, recipe: Recipe, readers: Readers) -> None:  # noqa: B027 - most have nothing to refuse
        """Refuse what cannot be measured, or what was given for it and nobody reads; before anything is read.

        Parameters
        ----------
        recipe : Recipe
        readers : mapping
            Who reads its signals in this run -> which of them; empty where it will not run.

        Raises
        ------
        DataPrunerError
        """

    def apart(self, recipe: Recipe) -> bool:
        """Whether blocks of rows can be measured one after another, by workers that keep its models open."""
        return not self.together

    def lacks(self, samples: Samples) -> str | None:
        """Say which of the ``roles`` rows lack; None where they have all."""
        lost = [role for role in self.roles if role not in samples.layout.columns]
        if not lost:
            return None
        return (
            f"the measurement '{safe_text(self.name, 60)}' reads the {lost[0]} side of a row, and rows of the layout "
            f"'{samples.layout.name}' have none; name its column with --columns={lost[0]}=COLUMN where there is one"
        )

    def prepare(self, run: Run, wanted: frozenset[str]) -> Any:
        """Read what is small, and refuse what the rows show, before they are cleaned and any model runs."""
        return None

    def passes(self, run: Run) -> list[Ahead]:
        """Give the passes of a language model that it will make, for how long all of them take."""
        return []

    def missing(self, run: Run, wanted: frozenset[str]) -> int | None:
        """Count the rows that are not stored; None where only measuring tells. No model is opened for it."""
        return None

    def seconds(self, run: Run, wanted: frozenset[str], rows: int) -> float:
        """Estimate how long measuring so many rows takes."""
        return self.pace(run) * rows

    def pace(self, run: Run) -> float:
        """Give the seconds that a row takes: as was noted when this was measured before, else as it says itself."""
        told = self.cost.seconds * (tokens_a_row(run) if self.cost.of == "token" else 1)
        return self.noted_pace(run) or told

    def noted_pace(self, run: Run) -> float | None:
        """Give the seconds that a row took in an earlier run."""
        noted = run.store.notes.get(self._about(run))
        found = None if noted is None else noted.get("seconds")
        return found if isinstance(found, float) else None

    def note_pace(self, run: Run, seconds: float) -> None:
        """Note the seconds that a row took, for the outlook of later runs."""
        run.store.notes.put(self._about(run), {"seconds": seconds})

    def _about(self, run: Run) -> dict[str, Any]:
        held = run.asked.model_dump(mode="json", include=set(self.paced_by))
        return {"pace": self.name, "with": held}

    def disk(self, run: Run, wanted: frozenset[str]) -> int:
        """Give the bytes on disk that a row takes, about, where that is worth telling; else 0."""
        return 0

    @abstractmethod
    def measure(self, run: Run, wanted: frozenset[str]) -> Mapping[str, Any]:
        """Measure ``run.rows``.

        Parameters
        ----------
        run : Run
        wanted : frozenset of str
            Those of its signals that somebody reads.

        Returns
        -------
        mapping
            Signal -> array, :class:`datapruner.ragged.Ragged` or list, an entry a row; at least those wanted, or
            nothing where they are not required and these rows have none.
        """

    def given(self, signal: str) -> Given | None:
        """Give the announcement of a signal; None where it gives no such thing."""
        return next((given for given in self.gives if given.covers(signal)), None)
