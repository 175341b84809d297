"""The scores of every row: all that a selection needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Ints
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.reasons import RANKED, Reason
from datapruner.results.columns import (
    arrow_array,
    columns_of_origins,
    encoded,
    frame,
    method_columns,
    steps_of,
)
from datapruner.results.finding import find_rows
from datapruner.results.sentences import Sentences
from datapruner.results.summary import Summary
from datapruner.results.tally import tallied
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from datapruner.ranking import Ranking
    from datapruner.recipe import Recipe
    from datapruner.samples.rendered import Rendered
    from datapruner.samples.samples import Samples
    from datapruner.scorers.base import Scorer


@dataclass(frozen=True, eq=False)
class Scored:
    """Every scorer's ranking of every row, with what cleaning dropped: all that a selection needs.

    What its fields are is said where users meet them, in :class:`datapruner.scores.Scores`.
    """

    samples: Samples
    recipe: Recipe
    scorers: Mapping[str, Scorer]
    rankings: Mapping[str, Ranking]
    vetoes: Sequence[Vetoes]
    forced: Flags
    tokens: Mapping[str, Ints] = field(default_factory=dict)
    renderer: Callable[[Samples, Ints], Iterator[Rendered]] | None = None
    counted: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of source rows."""
        return len(self.samples)

    def __repr__(self) -> str:
        """Name the scorers and count the rows."""
        dropped = [
            f"{count:,} {words}"
            for (cause, count), words in zip(self.summary.causes.items(), self.summary.words(), strict=True)
            if cause != RANKED
        ]
        scorers = ", ".join(safe_text(name, 60) for name in self.rankings)
        return f"{type(self).__name__}({'; '.join([f'{len(self):,} rows', scorers, *dropped])})"

    @cached_property
    def summary(self) -> Summary:
        """Rows by cause: those that are ranked, and what each cleaning step dropped."""
        steps: dict[str, int] = {}
        for vetoes in self.vetoes:
            if len(vetoes):
                steps[vetoes.kind] = steps.get(vetoes.kind, 0) + len(vetoes)
        ranked = len(self) - sum(steps.values())
        causes = {RANKED: ranked, **steps}
        return Summary(
            len(self),
            causes,
            scorers=tuple(self.rankings),
            reasons=self.reasons_by_code,
            counted=self.counted,
            parts=tallied(self.recipe, causes, len(self), reasons=self.reasons_by_code),
        )

    @property
    def reasons_by_code(self) -> dict[str, Reason]:
        """Give what cleaning steps dropped rows for."""
        return {vetoes.kind: vetoes.reason for vetoes in self.vetoes}

    def to_pandas(self) -> pd.DataFrame:
        """Give every row's scores, and why a cleaning step dropped it; the index is the row's position in the source.

        ``cause`` and ``reason`` are as in a selection, ``ranked`` and empty for a row that may be chosen;
        ``always_keep`` marks the rows that every selection keeps. A score is ``score.NAME``, higher = keep.
        """
        return frame(self.table())

    def table(self) -> pa.Table:
        """Give every row's scores and columns, and why a cleaning step dropped it, as a person reads them."""
        import pyarrow as pa

        n = len(self)
        kinds = list(dict.fromkeys([RANKED, *(vetoes.kind for vetoes in self.vetoes)]))
        steps = np.array([0, *(kinds.index(vetoes.kind) for vetoes in self.vetoes)])
        codes, texts = self.dropped_before()
        columns: dict[str, Any] = {
            "index": pa.array(np.arange(n)),
            **columns_of_origins(self.samples),
            "always_keep": pa.array(self.forced),
            "cause": encoded(steps[steps_of(self.vetoes, n) + 1], kinds),
            "reason": encoded(codes, texts),
            **{name: arrow_array(values) for name, values in self.tokens.items()},
            **{f"score.{name}": arrow_array(ranking.values) for name, ranking in self.rankings.items()},
        }
        for scorer, ranking in self.rankings.items():
            for name, array in method_columns(ranking).items():
                if name not in self.tokens and not columns.setdefault(name, array).equals(array):
                    columns[f"{name}.{scorer}"] = array
        return pa.table(columns)

    def find(
        self, match: str | None = None, where: Mapping[str, Any] | None = None, *, case: bool = False
    ) -> Ints:
        """Find rows by what they say; see :meth:`Selection.find`."""
        return find_rows(self.samples, match, where, case=case)

    @cached_property
    def _labels(self) -> dict[str, list[Any]]:
        return {}

    def which(self, scorer: str | None) -> str:
        """Give the ranking that is meant: the only one, where none is named."""
        if scorer is None:
            if len(self.rankings) == 1:
                return next(iter(self.rankings))
            raise DataPrunerError(f"say which scorer is to choose: {', '.join(self.rankings)}")
        if scorer not in self.rankings:
            raise DataPrunerError(
                f"these scores hold no scorer '{scorer}'.{did_you_mean(scorer, self.rankings)} "
                f"They hold {', '.join(self.rankings)}"
            )
        return scorer

    def dropped_before(self) -> tuple[NDArray[np.int32], Sentences]:
        """Give the number of every row's reason, -1 where no cleaning step dropped it; and these reasons."""
        codes = np.full(len(self), -1, dtype=np.int32)
        start = 0
        for vetoes in self.vetoes:
            codes[vetoes.rows] = np.arange(start, start + len(vetoes))
            start += len(vetoes)
        return codes, Sentences(self.vetoes)

    def column(self, name: str) -> list[Any]:
        """Give a column of the source, read once."""
        if name not in self._labels:
            self._labels[name] = self.samples.column(name)
        return self._labels[name]
