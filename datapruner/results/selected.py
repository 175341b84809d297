"""A selection made from scores for one budget: the kept rows, and a reason for every row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.arrays import Flags, Floats, Ints
from datapruner.budget import Budget
from datapruner.cleaning.vetoes import Vetoes
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.reasons import KEPT, OVER_BUDGET, Reason, reason_of, saved_words
from datapruner.results.columns import (
    COUNTED,
    GROUPS,
    REASONS,
    WITHIN,
    arrow_array,
    columns_of_origins,
    encoded,
    method_columns,
)
from datapruner.results.scored import Scored
from datapruner.results.standing import Grouping, Standing, crossed, standing
from datapruner.results.view import SelectionView
from datapruner.samples.labels import encode_labels
from datapruner.samples.origins import COLUMN, ROW
from datapruner.samples.recorded import LAYOUT, record
from datapruner.selection.tokens import tokens_scored

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from datapruner.cleaning.pairs import Pair
    from datapruner.ranking import Measure
    from datapruner.recipe import Recipe
    from datapruner.samples.samples import Samples
    from datapruner.selection.selector import Selector


@dataclass(frozen=True, eq=False, repr=False)
class Selected(SelectionView):
    """The kept rows of a dataset, and a reason for every row.

    What its fields are is said where users meet them, in :class:`datapruner.scores.Selection`.
    """

    scores: Scored
    scorer: str
    selector: Selector
    budget: Budget
    kept: Flags
    codes: NDArray[np.int32]
    texts: Sequence[str]
    token_masks: Ragged | None = None
    refused: Sequence[Vetoes] = ()

    @property
    def values(self) -> Floats:
        """The scorer's value of every row, NaN where it was dropped before scoring; float64 (n,)."""
        return self.scores.rankings[self.scorer].values

    @property
    def dataset(self) -> Dataset:
        """The kept rows with all their original columns, in source order."""
        return self.scores.samples.dataset.select(self.indices)

    @property
    def source(self) -> Samples:
        """All rows that were chosen from."""
        return self.scores.samples

    def pairs(self, count: int | None = None) -> list[Pair]:
        """Give the rows that cleaning dropped beside the row that each was dropped for, the least alike first.

        Parameters
        ----------
        count : int, optional
            Pairs of each cleaning step at most; all of them by default.
        """
        from datapruner.cleaning.pairs import pairs

        return pairs(self.scores.samples, self.scores.vetoes, count)

    def conversation(self) -> Dataset:
        """Give the kept rows as ``messages`` (or ``text``), whatever their layout was: what SFTTrainer reads.

        Raises
        ------
        DataPrunerError
            Tokens were pruned, which messages cannot say.
        """
        if self.token_masks is not None:
            raise DataPrunerError(
                "a conversation would train on the pruned tokens too; train on `selection.dataset`, whose labels leave "
                "them out, or choose with token_keep=1"
            )
        return super().conversation()

    def preference(self) -> Dataset:
        """Give the kept rows of preference data as trl's DPOTrainer (pairs) or KTOTrainer (votes) reads them.

        Raises
        ------
        DataPrunerError
            The rows have neither rejected answers nor votes.
        """
        return self.scores.samples.preference(self.indices)

    @cached_property
    def supervised_tokens_kept(self) -> Ints | None:
        """Supervised tokens of each row that stay in the loss, 0 where it was dropped; None: tokens were not pruned."""
        if self.token_masks is None:
            return None
        scored = tokens_scored(self.scores.rankings[self.scorer].state)
        whole = self.token_masks.lengths if scored is None else scored
        stay = np.bincount(self.token_masks.rows(), self.token_masks.values, len(self.kept)).astype(np.int64)
        return np.where(self.kept, np.where(self.token_masks.lengths > 0, stay, whole), 0)

    def reason(self, row: int) -> str:
        """Why a source row was kept or dropped."""
        return self.texts[int(self.codes[self._checked(row)])]

    @property
    def reasons(self) -> pa.DictionaryArray:
        """The reason of every source row, dictionary-encoded."""
        return encoded(self.codes, self.texts)

    @cached_property
    def _fates(self) -> tuple[list[str], Ints]:
        steps = [(vetoes.kind, vetoes.rows) for vetoes in (*self.scores.vetoes, *self.refused)]
        names = list(dict.fromkeys([KEPT, *(kind for kind, _ in steps), OVER_BUDGET]))
        codes = np.where(self.kept, 0, len(names) - 1)
        for kind, rows in steps:
            codes[rows] = names.index(kind)
        return names, codes

    @property
    def counted(self) -> Mapping[str, int]:
        """What cleaning counted and did not drop."""
        return self.scores.counted

    @property
    def reasons_by_code(self) -> dict[str, Reason]:
        """Give the reasons that rows may have been dropped for, by their codes."""
        return {
            **self.scores.reasons_by_code,
            **{vetoes.kind: vetoes.reason for vetoes in self.refused},
            **{code: reason_of(code) for code in (KEPT, OVER_BUDGET)},
        }

    def table(self) -> pa.Table:
        """Give every source row as ``selection.parquet`` has it."""
        import pyarrow as pa

        n = len(self.kept)
        names, fates = self.fates()
        columns: dict[str, Any] = {
            "index": pa.array(np.arange(n)),
            **columns_of_origins(self.scores.samples),
            "kept": pa.array(self.kept),
            "cause": encoded(fates, names),
            "reason": self.reasons,
            "score": arrow_array(self.values),
        }
        for name, values in self.scores.tokens.items():
            columns[name] = arrow_array(values)
        for name, array in method_columns(self.scores.rankings[self.scorer]).items():
            columns.setdefault(name, array)  # tokens were counted of all rows
        stay = self.supervised_tokens_kept
        if stay is not None:
            columns["supervised_tokens_kept"] = pa.array(stay)
        standing = self.standing
        if len(standing.names) > 1:
            columns[WITHIN] = encoded(standing.parts, standing.names)
        table = pa.table(columns)
        # What each group got cannot be told from the rows' fates alone: the source has the groups.
        words = saved_words(self.reasons_by_code)
        said = {GROUPS: self.shares(), REASONS: words, COUNTED: dict(self.counted)}
        samples = self.scores.samples
        said[LAYOUT] = record(samples.split, {samples.split: samples.ways, **samples.other_ways})
        held = {name: json.dumps(told) for name, told in said.items() if told}
        return table.replace_schema_metadata(held) if held else table

    @cached_property
    def standing(self) -> Standing:
        """Every row's rank among those that it competed with."""
        n = len(self.kept)
        competing = np.isfinite(self.values)
        for vetoes in (*self.scores.vetoes, *self.refused):
            competing[vetoes.rows] = False
        competing &= ~self.scores.forced
        found: list[Grouping] = [([""], np.zeros(n, dtype=np.int64))]
        if self.budget.per_group is not None:
            found.append(encode_labels(self._labels(self.budget.per_group)))
        groups = self.scores.rankings[self.scorer].groups
        if groups is not None and self.selector.by_groups:
            clusters = [f"cluster {number}" for number in range(int(groups.max(initial=-1)) + 1)]
            found.append(crossed(found[-1], (clusters, groups)))
        costs = self._tokens() if self.budget.in_tokens else None
        return standing(self.values, self.kept, competing, found, costs)

    def _measure(self) -> Measure:
        return self.scores.rankings[self.scorer].measure

    @property
    def clusters(self) -> Ints | None:
        """Every row's cluster, where the scorer works in clusters; int64 (n,)."""
        return self.scores.rankings[self.scorer].groups

    def _budget(self) -> Budget:
        return self.budget

    def _recipe(self) -> Recipe:
        return self.recipe

    def _selector(self) -> str:
        return self.selector.name

    def _labels(self, column: str) -> list[Any]:
        return self.scores.column(column)

    def _tokens(self) -> Ints:
        return self.scores.tokens["num_supervised_tokens"]

    def _shown(self, rows: Ints) -> tuple[Samples, Ints]:
        return self.scores.samples, rows

    def _known(self, row: int) -> dict[str, Any]:
        stay, scored = self.supervised_tokens_kept, np.isfinite(self.values[row])
        columns = self.scores.rankings[self.scorer].columns
        origin = self.scores.samples.origin_of(row)
        return {
            **({} if origin is None else {COLUMN: origin[0].name, ROW: origin[1]}),
            **{name: column[row] if scored else None for name, column in columns.items()},
            **{name: column[row] for name, column in self.scores.tokens.items()},
            **({} if stay is None else {"supervised_tokens_kept": stay[row]}),
        }

    @property
    def recipe(self) -> Recipe:
        """The arguments that lead here."""
        from datapruner.parts import SELECTORS, is_named
        from datapruner.recipe import method_of

        scores, selector = self.scores, self.selector
        recipe = scores.recipe.pinned(scores.samples)
        is_default = selector == scores.scorers[self.scorer].selector()
        named = is_named(SELECTORS, selector)
        return recipe.model_copy(
            update={
                "in_memory": [held for held in recipe.in_memory if not held.startswith("selector ")]
                + [f"selector {selector.name}"] * (not named and not is_default),
                "count_tokens": bool(scores.tokens),
                "scorer": self.scorer if len(scores.rankings) > 1 else None,
                "selector": None
                if is_default
                else method_of(selector.name, selector.parameters(), named=named),
                **self.budget.fields(),
            }
        )
