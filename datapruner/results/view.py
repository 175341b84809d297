"""What a selection tells of itself, whether it was made a moment ago or read from a folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from datapruner.arrays import Flags, Floats, Ints
from datapruner.budget import Budget
from datapruner.ranking import DRAW, Measure
from datapruner.reasons import KEPT, Reason
from datapruner.results.columns import encoded, frame
from datapruner.results.explanation import Explanation
from datapruner.results.finding import checked_row, find_rows
from datapruner.results.standing import Standing, missed_words, place_words
from datapruner.results.summary import Summary
from datapruner.results.tally import tallied
from datapruner.samples.fingerprint import dataset_of
from datapruner.samples.labels import encode_labels
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from datasets import Dataset

    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples


ALWAYS = "kept: on the always-keep list"
ADDED = ("row", "cause", "reason", "score")
"""Columns that ``dropped`` has beside the source's."""


class SelectionView(ABC):
    """The kept rows of a dataset, and a reason for every row.

    Its length is the number of kept rows, and iterating over it gives these as dictionaries of the original columns.
    """

    scorer: str
    kept: Flags

    def __getitem__(self, place: int) -> dict[str, Any]:
        """Give one kept row, as iterating over all of them would; counted from the end where negative."""
        if not -len(self) <= place < len(self):
            raise IndexError(f"kept row {place} is out of range: {len(self)} rows were kept")
        found: dict[str, Any] = self.dataset[place % len(self)]
        return found

    @property
    @abstractmethod
    def values(self) -> Floats:
        """The scorer's value of every row, NaN where it was dropped before scoring; float64 (n,)."""

    @property
    @abstractmethod
    def dataset(self) -> Dataset:
        """The kept rows with all their original columns, in source order."""

    @property
    @abstractmethod
    def source(self) -> Samples:
        """All rows that were chosen from."""

    def fates(self) -> tuple[list[str], Ints]:
        """Give what may become of a row, as :meth:`counts` names it, and each row's number among these, int64 (n,)."""
        return self._fates

    @property
    @abstractmethod
    def _fates(self) -> tuple[list[str], Ints]:
        """Find them, once."""

    @property
    @abstractmethod
    def reasons_by_code(self) -> Mapping[str, Reason]:
        """What :meth:`counts` names, in words."""

    @property
    @abstractmethod
    def counted(self) -> Mapping[str, int]:
        """What cleaning counted and did not drop: words -> rows of the source."""

    @abstractmethod
    def reason(self, row: int) -> str:
        """Why a source row was kept or dropped, in the words of ``selection.parquet``."""

    @abstractmethod
    def table(self) -> pa.Table:
        """Give every source row as ``selection.parquet`` has it."""

    @property
    @abstractmethod
    def standing(self) -> Standing:
        """Every row's rank among those that it competed with."""

    @property
    @abstractmethod
    def clusters(self) -> Ints | None:
        """Every row's cluster, where the scorer works in clusters; int64 (n,)."""

    @abstractmethod
    def _measure(self) -> Measure:
        """Give the quantity that the score is, by its numbers."""

    @abstractmethod
    def _budget(self) -> Budget:
        """Give what was spent."""

    @abstractmethod
    def _recipe(self) -> Recipe:
        """Give the arguments that lead here."""

    @abstractmethod
    def _selector(self) -> str:
        """Name the selector."""

    @abstractmethod
    def _known(self, row: int) -> dict[str, Any]:
        """Give what else is known of a row: the method's columns, tokens."""

    @abstractmethod
    def _tokens(self) -> Ints:
        """Supervised tokens of every row, where the budget counts them."""

    @abstractmethod
    def _shown(self, rows: Ints) -> tuple[Samples, Ints]:
        """Give samples that hold these kept rows, and their places there."""

    def __len__(self) -> int:
        """Return the number of kept rows."""
        return len(self.indices)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the kept rows one by one, in source order, a block in memory at a time."""
        return iter(self.dataset)

    def __repr__(self) -> str:
        """Say what was kept and what was not."""
        counted = Summary(len(self.kept), self.counts(), reasons=self.reasons_by_code).words()
        dropped = [f"{count:,} {words}" for words, count in counted.items() if words != KEPT]
        said = f"{len(self):,} of {len(self.kept):,} rows kept by {safe_text(self.scorer, 60)}"
        return f"{type(self).__name__}({'; '.join([said, *dropped])})"

    @cached_property
    def measure(self) -> Measure:
        """The quantity that the score is."""
        found = self._measure()
        return Measure(DRAW) if found == Measure() and _draws(self._recipe(), self.scorer) else found

    @cached_property
    def indices(self) -> Ints:
        """Source positions of the kept rows, ascending; int64."""
        return np.flatnonzero(self.kept)

    def counts(self) -> dict[str, int]:
        """Count rows by what became of them: kept, dropped by each cleaning step, dropped by the budget."""
        names, codes = self.fates()
        counts = np.bincount(codes, minlength=len(names)).tolist()
        return {name: count for name, count in zip(names, counts, strict=True) if count}

    @cached_property
    def summary(self) -> Summary:
        """Rows by cause and by group: the numbers that the command line prints."""
        counts, clusters, groups = self.counts(), self.clusters, self.shares()
        return Summary(
            len(self.kept),
            counts,
            groups,
            (self.scorer,),
            self._selector(),
            self._budget().describe(),
            self.reasons_by_code,
            self.counted,
            tallied(
                self._recipe(),
                counts,
                len(self.kept),
                reasons=self.reasons_by_code,
                clusters=None if clusters is None else len(np.unique(clusters[clusters >= 0])),
                values=list(groups),
            ),
        )

    def shares(self) -> dict[str, tuple[int, int, str]]:
        """Tell what each group of the budget's column got: kept, of how many, in which unit.

        Without groups there is one entry, for a token budget only: what of it was spent.
        """
        budget = self._budget()
        if budget.per_group is None:
            if budget.keep_tokens is None:
                return {}
            spent = int(self._tokens()[self.kept].sum())
            return {"budget": (spent, budget.keep_tokens, "supervised tokens")}
        names, codes = encode_labels(self._labels(budget.per_group))
        costs = self._tokens() if budget.in_tokens else np.ones(len(codes), np.int64)
        whole, kept = np.bincount(codes, costs), np.bincount(codes, costs * self.kept)
        unit = "supervised tokens" if budget.in_tokens else "rows"
        return {name: (int(kept[j]), int(whole[j]), unit) for j, name in enumerate(names)}

    def _labels(self, column: str) -> Sequence[Any]:
        return self.source.column(column)

    def conversation(self) -> Dataset:
        """Give the kept rows as ``messages`` (or ``text``), whatever their layout was: what SFTTrainer reads."""
        samples, places = self._shown(self.indices)
        return samples.conversation(places)

    @cached_property
    def dropped(self) -> Dataset:
        """The rows that were not kept, with all their original columns, why, and where they stood.

        ``row``, ``cause``, ``reason`` and ``score`` come first; where the source has a column of such a name, ours is
        called ``datapruner_row`` and so on. No row is copied, unless the source is itself a shuffled or filtered view.
        ``to_pandas()`` has the reasons without the rows.
        """
        import pyarrow as pa
        from datasets import concatenate_datasets

        source = self.source.dataset.with_format(None)
        names, codes = self.fates()
        told = self.table()
        causes = encoded(codes, names)
        columns = (
            told["index"],
            causes.cast(pa.string()),
            told["reason"].cast(pa.large_string()),
            told["score"],
        )
        called = [name if name not in source.column_names else f"datapruner_{name}" for name in ADDED]
        ours = dataset_of(pa.table(dict(zip(called, columns, strict=True))))
        rows = np.flatnonzero(~self.kept)
        return concatenate_datasets([ours, source], axis=1).select(rows)

    def to_pandas(self) -> pd.DataFrame:
        """Give every source row's fate as a table: kept, cause, reason, score and the method's columns.

        Its index is the row's position in the source. The rows themselves are in ``dataset`` and ``dropped``.
        """
        return frame(self.table())

    def find(
        self, match: str | None = None, where: Mapping[str, Any] | None = None, *, case: bool = False
    ) -> Ints:
        """Find source rows by what they say, kept or not.

        Parameters
        ----------
        match : str, optional
            A text that a turn of the row holds.
        where : mapping, optional
            Column -> value; the row has all of them. Values are compared as they are written: 7 is ``"7"``, and a
            missing one is ``"None"``.
        case : bool
            Whether ``match`` minds upper and lower case.

        Returns
        -------
        ndarray, int64
            Positions in the source, ascending.

        Raises
        ------
        DataPrunerError
            Neither is given, there is no such column, the rows have no text, or the source is no longer there.
        """
        return find_rows(self.source, match, where, case=case)

    def explain(self, row: int) -> Explanation:
        """Everything that is known of a row: whether it was kept, why, its rank, what it missed, the method's columns.

        Parameters
        ----------
        row : int
            Position in the source; :meth:`find` finds it by a text or by a column's value.
        """
        row = self._checked(row)
        names, codes = self.fates()
        score = float(self.values[row])
        scored = bool(np.isfinite(score))
        kept = bool(self.kept[row])
        held, measure = self.standing, self.measure
        part = int(held.parts[row])
        cut = float(held.cuts[part]) if part >= 0 and not kept else np.nan
        said = [self.reason(row), place_words(held, row)]
        # A row that was too long, or in conflict, missed no score.
        by_score = score <= cut
        if by_score:
            said.append(missed_words(score, cut, measure, held.names[part]))
        named = measure.name if measure.name != "score" else None
        by_score &= named != DRAW
        return Explanation(
            row=row,
            kept=kept,
            cause=names[codes[row]],
            reason=safe_text("; ".join(words for words in said if words)),
            scorer=self.scorer,
            score=score if scored else None,
            measure=named if scored else None,
            measured=measure.shown(score) if scored and named else None,
            rank=int(held.places[row]) if part >= 0 else None,
            ranked=int(held.sizes[part]) if part >= 0 else None,
            ranked_kept=int(held.kept[part]) if part >= 0 else None,
            within=safe_text(held.names[part]) if part >= 0 else "",
            needed=measure.shown(cut) if by_score else None,
            columns={name: _plain(value) for name, value in self._known(row).items()},
            _keywords=partial(self.keywords, row) if scored else None,
        )

    def keywords(self, row: int) -> tuple[str, ...]:
        """Words of a row's cluster; empty where there are no clusters or no texts, or they are no longer there."""
        if self.clusters is None or self.clusters[row] < 0:
            return ()
        cluster = int(self.clusters[row])
        if cluster not in self._words:
            from datapruner.signals.texts.keywords import words_of

            found: tuple[str, ...] = ()
            if (samples := self._readable()) is not None:
                inside = (self.clusters == cluster) & np.isfinite(self.values)
                found = words_of(samples, np.flatnonzero(inside), np.flatnonzero(np.isfinite(self.values)))
            self._words[cluster] = found
        return self._words[cluster]

    @cached_property
    def _words(self) -> dict[int, tuple[str, ...]]:
        return {}

    def _readable(self) -> Samples | None:
        return self.source if self.source.layout.has_text else None

    def _checked(self, row: int) -> int:
        return checked_row(row, len(self.kept))


def _draws(recipe: Recipe, name: str) -> bool:
    """Tell whether a recipe's scorer draws its values; one that is not installed here is taken not to."""
    from datapruner.parts import SCORERS, available
    from datapruner.scorers import make_scorer

    method = next((one for one in recipe.scorers if one.name == name), None)
    return (
        method is not None
        and method.name in available(SCORERS)
        and make_scorer(method.name, method.parameters).drawn
    )


def _plain(value: Any) -> Any:
    """Make a cell harmless to print, and a number Python's."""
    held = value.item() if isinstance(value, np.generic) else value
    return safe_text(held) if isinstance(held, str) else held
