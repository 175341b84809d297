"""A selection that was saved, read back from its folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from datapruner.api import run
from datapruner.arrays import Flags, Floats, Ints
from datapruner.budget import Amount, Budget
from datapruner.errors import MALFORMED, DataPrunerError
from datapruner.files.checksums import check
from datapruner.files.paths import is_file
from datapruner.measuring.reading import read_samples
from datapruner.moved import moved
from datapruner.outputs.dataset import REASONS
from datapruner.outputs.upload import brought
from datapruner.ranking import Measure, Ranking
from datapruner.reasons import CLEANED, KEPT, OVER_BUDGET, Reason, reason_of
from datapruner.recipe import Recipe, load_recipe
from datapruner.results.columns import COUNTED, GROUPS, WITHIN, decoded, numbers_of, read_counted
from datapruner.results.columns import REASONS as REASONS_HELD
from datapruner.results.standing import Standing, standing
from datapruner.results.view import ALWAYS, SelectionView
from datapruner.samples.origins import ROW
from datapruner.samples.recorded import LAYOUT
from datapruner.text import safe_text

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

    from datapruner.samples.samples import Samples
    from datapruner.scores import Selection

logger = logging.getLogger(__name__)

OURS = frozenset({"index", "kept", "cause", "reason", "score", WITHIN})
CLUSTERS = ("cluster", "topology_group")
"""Columns of methods that number clusters."""


@dataclass(frozen=True, eq=False, repr=False)
class SavedSelection(SelectionView):
    """A selection that was saved: the kept rows, and the reason for every row of the source.

    It tells what a :class:`datapruner.scores.Selection` tells. Rows are read when they are asked for: the
    kept ones from the folder, the others (``source``, ``dropped``, ``find``) from where they came, which may be gone.

    Attributes
    ----------
    folder : Path
    recipe : Recipe
        What made it.
    scorer : str
    kept : ndarray, bool, shape (n,)
    """

    folder: Path
    recipe: Recipe
    scorer: str
    kept: Flags
    _held: pa.Table = field(repr=False)
    _given: Any = None

    def _repr_html_(self) -> str:
        """Show it in a notebook: counts by cause and by group, and the first kept rows."""
        from datapruner.outputs.notebook import selection_html

        return selection_html(self)

    def table(self) -> pa.Table:
        """Give every source row as ``selection.parquet`` has it."""
        return self._held

    @cached_property
    def values(self) -> Floats:
        """The scorer's value of every row, NaN where it was dropped before scoring; float64 (n,)."""
        return numbers_of(self._held, "score")

    @cached_property
    def _ranking(self) -> Ranking:
        import pyarrow.types as pt

        numeric = [
            column.name
            for column in self._held.schema
            if column.name not in {*OURS, ROW} and (pt.is_integer(column.type) or pt.is_floating(column.type))
        ]
        return Ranking(self.values, columns={name: numbers_of(self._held, name) for name in numeric})

    def _measure(self) -> Measure:
        return self._ranking.measure

    @cached_property
    def clusters(self) -> Ints | None:
        """Every row's cluster, where the scorer works in clusters; int64 (n,)."""
        named = next((name for name in CLUSTERS if name in self._ranking.columns), None)
        if named is None:
            return None
        numbers: Ints = np.nan_to_num(self._ranking.columns[named], nan=-1).astype(np.int64)
        return numbers

    @property
    def texts(self) -> list[str]:
        """Every reason that some row has."""
        held: list[str] = self._reasons[0]
        return held

    @cached_property
    def _reasons(self) -> tuple[list[str], Ints]:
        return decoded(self._held, "reason")

    def reason(self, row: int) -> str:
        """Why a source row was kept or dropped, in the words of ``selection.parquet``."""
        text: str = self.texts[self._reasons[1][self._checked(row)]]
        return text

    @cached_property
    def _fates(self) -> tuple[list[str], Ints]:
        if "cause" in self._held.column_names:
            names, codes = decoded(self._held, "cause")
            # In the order of the steps, of which the file keeps no other trace than its dictionary's.
            return names, codes
        # Before causes were written: what has no score was cleaned away.
        unscored = np.isnan(self.values)
        return [KEPT, CLEANED, OVER_BUDGET], np.where(self.kept, 0, np.where(unscored, 1, 2))

    @cached_property
    def reasons_by_code(self) -> dict[str, Reason]:
        """What :meth:`counts` names, in words: those that are built in, and those that the file brings."""
        try:
            saved = json.loads((self._held.schema.metadata or {}).get(REASONS_HELD, b"{}"))
            return {code: reason_of(code, saved) for code in self.fates()[0]}
        except MALFORMED as error:
            raise DataPrunerError(f"{self.folder / REASONS} is damaged; run its recipe again") from error

    @cached_property
    def counted(self) -> dict[str, int]:
        """What cleaning counted and did not drop."""
        try:
            return read_counted(json.loads((self._held.schema.metadata or {}).get(COUNTED, b"{}")))
        except MALFORMED as error:
            raise DataPrunerError(f"{self.folder / REASONS} is damaged; run its recipe again") from error

    @cached_property
    def standing(self) -> Standing:
        """Every row's rank among those that it competed with."""
        names, codes = self.fates()
        competing = np.isfinite(self.values)
        competing &= np.isin(codes, [j for j, name in enumerate(names) if name in (KEPT, OVER_BUDGET)])
        texts, numbers = self._reasons
        if ALWAYS in texts:
            competing &= numbers != texts.index(ALWAYS)
        within = ([""], np.zeros(len(self.kept), dtype=np.int64))
        if WITHIN in self._held.column_names:
            within = decoded(self._held, WITHIN)
        costs = self._tokens() if self.recipe.keep_tokens is not None else None
        return standing(self.values, self.kept, competing, [within], costs)

    @cached_property
    def budget(self) -> Budget:
        """What was spent."""
        recipe = self.recipe
        return Budget(recipe.keep, recipe.keep_tokens, recipe.per_group, recipe.quotas, recipe.group_share)

    def _budget(self) -> Budget:
        return self.budget

    def _recipe(self) -> Recipe:
        return self.recipe

    def _selector(self) -> str:
        from datapruner.scorers import make_scorer

        if self.recipe.selector is not None:
            return self.recipe.selector.name
        method = next(method for method in self.recipe.scorers if method.name == self.scorer)
        try:
            name: str = make_scorer(method.name, method.parameters).selector().name
        except DataPrunerError:
            return "of its own"  # an object that is not known under its name here
        return name

    def _tokens(self) -> Ints:
        return numbers_of(self._held, "num_supervised_tokens").astype(np.int64)

    def _known(self, row: int) -> dict[str, Any]:
        held: dict[str, Any] = self._held.slice(row, 1).to_pylist()[0]
        return {name: value for name, value in held.items() if name not in OURS}

    def shares(self) -> dict[str, tuple[int, int, str]]:
        """Tell what each group of the budget's column got: kept, of how many, in which unit."""
        held = (self._held.schema.metadata or {}).get(GROUPS)
        return {name: (kept, of, unit) for name, (kept, of, unit) in json.loads(held or b"{}").items()}

    @cached_property
    def source(self) -> Samples:
        """All rows that were chosen from, read again where they came from.

        Raises
        ------
        DataPrunerError
            The source was in memory, is gone, or has other rows by now.
        """
        if self._given is None and self.recipe.source is None:
            raise DataPrunerError(
                f"{self.folder} was made of rows in memory, which it does not name; give them to load_selection as "
                "`source`"
            )
        samples = read_samples(self.recipe.model_copy(update={"keep": None}), self._given)
        if len(samples) != len(self.kept):
            raise DataPrunerError(
                f"{safe_text(samples.source)} had {len(self.kept):,} rows when {self.folder} was made and has "
                f"{len(samples):,} now"
            )
        return samples

    def _readable(self) -> Samples | None:
        try:
            return super()._readable()
        except DataPrunerError as error:
            logger.info("the keywords of %s are not known: %s", safe_text(str(self.folder)), error)
            return None

    @cached_property
    def _samples(self) -> Samples:
        """The kept rows, from the folder."""
        from datapruner.samples import load_samples

        recipe = self.recipe
        noted = LAYOUT in (self._held.schema.metadata or {})  # what the recipe says was of the sources
        samples = load_samples(
            self.folder,
            split=recipe.split,
            columns=None if noted else recipe.columns,
            layout=None if noted else recipe.layout,
            embeddings_given=recipe.has_embeddings,
        )
        if len(samples) != len(self):
            raise DataPrunerError(
                f"{self.folder} says that {len(self):,} rows were kept, and its data has {len(samples):,}; run its "
                "recipe again"
            )
        return samples

    def _shown(self, rows: Ints) -> tuple[Samples, Ints]:
        return self._samples, np.searchsorted(self.indices, rows)

    @property
    def dataset(self) -> Dataset:
        """The kept rows as they were saved, in source order."""
        return self._samples.dataset

    @property
    def splits(self) -> DatasetDict:
        """The kept rows under their split's name, beside the other splits with all their rows."""
        from datasets import DatasetDict

        return DatasetDict({self._samples.split: self.dataset, **self._samples.others})

    def rebudget(
        self,
        keep: Amount | None = None,
        *,
        keep_tokens: int | None = None,
        per_group: str | Literal[False] | None = None,
        quotas: Mapping[str, Amount] | None = None,
        group_share: Mapping[str, float] | None = None,
        **objects: Any,
    ) -> Selection:
        """Run its recipe again for another budget; what was measured is in the cache.

        Parameters
        ----------
        keep, keep_tokens, per_group, quotas, group_share
            See :meth:`datapruner.scores.Selection.rebudget`: what is not said stays as it was.
        **objects
            ``cache``, ``progress`` and ``trust_code`` as in :func:`datapruner.score`, ``changed_source`` as in
            :func:`datapruner.run`.
        """
        budget = self.budget.other(keep, keep_tokens, per_group, quotas, group_share)
        return run(self.recipe.with_budget(budget), **objects)


def load_selection(path: str | Path, *, source: Any = None) -> SavedSelection:
    """Read a folder that ``prune``, ``select`` or ``run`` wrote.

    Parameters
    ----------
    path : str or Path
    source : optional
        The dataset that was chosen from, where it was in memory or has moved.

    Returns
    -------
    SavedSelection

    Raises
    ------
    DataPrunerError
        It is no such folder, is damaged, or is not as it was written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = brought(path)
    file = folder / REASONS
    if is_file(file.with_name("scores.parquet")):
        raise DataPrunerError(
            f"{folder} holds scores (dp.load_scores); make a selection of them first with `datapruner select`"
        )
    if not is_file(file):
        raise DataPrunerError(f"{folder} is no result of datapruner: it has no selection.parquet")
    check(folder, file.name, "recipe.yaml")
    try:
        table = pq.read_table(file, memory_map=True)
        kept = table["kept"].to_numpy().astype(np.bool_)
        score, reason = table["score"].type, table["reason"].type
        if not pa.types.is_floating(score) or not (
            pa.types.is_string(reason)
            or (pa.types.is_dictionary(reason) and pa.types.is_string(reason.value_type))
        ):
            raise ValueError(f"{score}, {reason}")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataPrunerError(f"{file} is damaged; run its recipe again") from error
    recipe = load_recipe(folder / "recipe.yaml")
    if source is not None:
        recipe = recipe.with_source(source)
    scorer = recipe.scorer or recipe.scorers[0].name
    return SavedSelection(folder, recipe, scorer, kept, table, source)


__getattr__ = moved(__name__, ["datapruner.verbs"])
