"""Rows on which a model raises or gives no number: found by halving their batch, then told at once or collected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError, RowError
from datapruner.text import safe_text

B = TypeVar("B")
R = TypeVar("R")

STREAK = 32
"""Rows that fail one after the other before it is looked whether the model still answers at all."""
MUCH = 0.1
"""Share of the rows that may fail before any passes, where others were measured by an earlier run."""
NUMBERED = re.compile(r"^Row \d+: ")
LONGEST = 200
"""Characters of what a model says."""


class RowsFailedError(RowError):
    """A model fails on some rows; the others are measured.

    Attributes
    ----------
    who : str
        Such as ``the language model``.
    why : dict
        Row of the source -> what it says; ascending.
    """

    def __init__(self, who: str, why: Mapping[int, str]) -> None:
        self.who, self.why = who, dict(sorted(why.items()))
        first, said = next(iter(self.why.items()))
        more = f" and {len(why) - 1:,} more" if len(why) > 1 else ""
        super().__init__(
            f"{who} fails on row {first}{more}: {said}; --on-error=drop leaves such rows out", first
        )


class NoNumberError(RowError):
    """A model gives no finite number for some row of a batch.

    Attributes
    ----------
    said : str
        In a few words, such as ``no finite loss``.
    """

    def __init__(self, sentence: str, row: int, said: str) -> None:
        super().__init__(sentence, row)
        self.said = said


class Failing:
    """Runs batches, and finds the rows on which that fails.

    Parameters
    ----------
    who : str
        What fails, for messages.
    rows : ndarray, int64, shape (m,), optional
        Position in the source by place; a place is a row's where it is missing.
    collect : bool
        Go on with the other rows, and tell of all that failed by :meth:`end`; else the first one is an error.
    refusals : bool
        What the library itself refuses is a row's failure, too.
    """

    def __init__(
        self, who: str, rows: Ints | None = None, *, collect: bool = False, refusals: bool = False
    ) -> None:
        self.who, self.rows, self.collect = who, rows, collect
        self.why: dict[int, str] = {}
        self._own: tuple[type[DataPrunerError], ...] = (DataPrunerError,) if refusals else (NoNumberError,)
        self._good: Callable[[], Any] | None = None
        self._streak, self._most = 0, STREAK

    def begin(self, count: int) -> None:
        """Take notice that so many places are about to run; others were measured before."""
        if self.rows is not None and count < len(self.rows):
            self._most = max(STREAK, round(MUCH * len(self.rows)))

    def each(
        self, batch: B, run: Callable[[B], R], place: Callable[[Any], int] = int
    ) -> Iterator[tuple[B, R]]:
        """Run a batch, in halves where it fails, and give the parts that pass.

        Parameters
        ----------
        batch : sequence
            Or an array: whatever can be sliced.
        run : callable
            Without effects that a second call would double.
        place : callable
            Gives an entry's place; by default it is one.

        Raises
        ------
        RowsFailedError
            A row fails by itself, and rows are not collected.
        DataPrunerError
            No row passes any more.
        """
        every: Any = batch
        try:
            found = run(batch)
        except Exception as error:
            if not self._may_be_a_rows(error):
                raise
            if len(every) == 1:
                self._failed(place(every[0]), error)
                return
            middle = len(every) // 2
            for half in (every[:middle], every[middle:]):
                yield from self.each(half, run, place)
        else:
            self._streak = 0
            if self._good is None:
                self._good = lambda: run(every[:1])
            yield batch, found

    def refuse(self, place: int, error: NoNumberError) -> None:
        """Collect a place for which there is no number, or raise its error."""
        if not self.collect:
            raise error
        self.why[place] = error.said

    def end(self) -> None:
        """Tell of all that failed.

        Raises
        ------
        RowsFailedError
            There are any.
        """
        if self.why:
            raise RowsFailedError(self.who, {self._row(place): said for place, said in self.why.items()})

    def __contains__(self, place: int) -> bool:
        return place in self.why

    def _may_be_a_rows(self, error: Exception) -> bool:
        from datapruner.signals.language_model.memory import is_out_of_memory

        if isinstance(error, DataPrunerError):
            return self.collect and isinstance(error, self._own)
        return not is_out_of_memory(error)

    def _row(self, place: int) -> int:
        return place if self.rows is None else int(self.rows[place])

    def _failed(self, place: int, error: Exception) -> None:
        said = said_of(error)
        if not self.collect:
            raise RowsFailedError(self.who, {self._row(place): said}) from error
        self.why[place] = said
        self._streak += 1
        if self._streak >= self._most and not self._answers():
            raise RowError(
                f"{self.who} fails on {self._streak:,} rows one after the other, row {self._row(place)} last, and on "
                f"others too: {said}",
                self._row(place),
            ) from error

    def _answers(self) -> bool:
        """Whether what passed once still does."""
        if self._good is None:
            return False
        try:
            self._good()
        except Exception:  # whatever it is, the row's own error is told
            return False
        self._streak = 0
        return True


def said_of(error: Exception) -> str:
    """Give what a model raised, in one line that may be shown."""
    return safe_text(_words(error), LONGEST)


def _words(error: Exception) -> str:
    if isinstance(error, NoNumberError):
        return error.said
    if isinstance(error, DataPrunerError):
        return NUMBERED.sub("", error.sentence)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": ")
