"""What is told of one row: one shape for results in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from datapruner.html_tables import block, table
from datapruner.moved import moved
from datapruner.text import did_you_mean, safe_text


@dataclass(frozen=True)
class Explanation(Mapping[str, Any]):
    """Why a row was kept or dropped; a mapping too, of these names and the method's columns.

    Its texts are harmless to print.

    Attributes
    ----------
    row : int
        Position in the source, counted from 0.
    kept : bool, optional
        None where nothing has been chosen yet.
    cause : str
        ``kept``, ``over_budget``, ``exact_duplicate``, ...: as ``summary.causes`` counts; ``ranked`` where nothing
        has been chosen yet.
    reason : str
        A sentence: what ``selection.parquet`` says, the row's rank, and the number it missed.
    scorer : str
    score : float, optional
        Higher = keep; None where it was dropped before scoring.
    measure : str, optional
        The quantity that the score is, where it is a column (``log_ppl`` for the scorer ``perplexity``) or a random
        draw.
    measured : float, optional
        Its value, with its own sign.
    rank : int, optional
        1 for the best score among the rows that it competed with; None where it did not compete.
    ranked, ranked_kept : int, optional
        How many rows competed with it, itself included, and how many of them were kept.
    within : str
        Where they competed: a group of the budget, a cluster; empty for the whole dataset.
    needed : float, optional
        The score (or the measure) from which rows were kept; None where more than the score decided.
    columns : mapping
        Tokens, and what the method says of the row; None where it was dropped before scoring.
    """

    row: int
    kept: bool | None
    cause: str
    reason: str
    scorer: str
    score: float | None = None
    measure: str | None = None
    measured: float | None = None
    rank: int | None = None
    ranked: int | None = None
    ranked_kept: int | None = None
    within: str = ""
    needed: float | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    _keywords: Callable[[], tuple[str, ...]] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def keywords(self) -> tuple[str, ...]:
        """Words that are frequent in the row's cluster and rare elsewhere; read from the texts when first asked for.

        Empty where there are no clusters or no texts, or the source is no longer there.
        """
        return () if self._keywords is None else self._keywords()

    def __getitem__(self, name: str) -> Any:
        """Give one of the attributes, or of the columns; ``index`` is the row, as in ``selection.parquet``."""
        if name in _NAMES:
            return getattr(self, name)
        if name == "index":
            return self.row
        if name not in self.columns:
            raise KeyError(
                f"nothing called '{name}' is known of a row.{did_you_mean(str(name), list(self))} Known: "
                f"{', '.join(self)}"
            )
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        """Name the attributes, then the columns."""
        return iter([*_NAMES, *(name for name in self.columns if name not in _NAMES)])

    def __len__(self) -> int:
        """Count these names."""
        return len(list(iter(self)))

    def told(self) -> dict[str, str]:
        """Give what there is to say, in words, in the order of importance."""
        inside = f" in {self.within}" if self.within else ""
        place = f"{self.rank or 0:,} of {self.ranked or 0:,}{inside}"
        if self.ranked_kept is not None:
            place += f"; {self.ranked_kept:,} were kept"
        # Each once, under its own name.
        reason = self.reason if self.rank is None else self.reason.replace(f"; ranked {place}", "")
        shown = self.score if self.measure is None else self.measured
        rest = {name: self.columns[name] for name in self.columns if name not in (self.measure, *_NAMES)}
        out: dict[str, Any] = {
            "row": self.row,
            "kept": None if self.kept is None else "yes" if self.kept else "no",
            "reason": reason,
            "rank": None if self.rank is None else place,
            self.measure or "score": shown,
            "scorer": self.scorer,
            "keywords": ", ".join(self.keywords) or None,
            **rest,
        }
        return {
            safe_text(name, 60): f"{value:.6g}" if isinstance(value, float) else str(value)
            for name, value in out.items()
            if value is not None
        }

    def __str__(self) -> str:
        """Write a line for everything that is known."""
        return "\n".join(f"{name:>22}  {value}" for name, value in self.told().items())

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        return block([table([[name, value] for name, value in self.told().items()], head=False, left=2)])


_NAMES = (
    *(spec.name for spec in fields(Explanation) if spec.name not in ("columns", "_keywords")),
    "keywords",
)


__getattr__ = moved(__name__, ["datapruner.results.summary"])
