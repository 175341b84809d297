"""Scores and selections as users hold them: what is known, and what is done with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datapruner.budget import Amount, Budget
from datapruner.errors import DataPrunerError
from datapruner.measuring.reading import changed_source, read_samples
from datapruner.results.choosing import choose, not_chosen
from datapruner.results.explanation import Explanation
from datapruner.results.finding import checked_row
from datapruner.results.scored import Scored
from datapruner.results.selected import Selected
from datapruner.text import safe_text

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from datapruner.scorers.base import Scorer
    from datapruner.selection.selector import Selector


@dataclass(frozen=True, eq=False, repr=False)
class Scores(Scored):
    """Every scorer's ranking of every row, with what cleaning dropped: all that a selection needs.

    Parameters
    ----------
    samples : Samples
    recipe : Recipe
    scorers : mapping
        Name -> scorer.
    rankings : mapping
        Name -> its ranking of the whole dataset; NaN where a row was dropped before scoring.
    vetoes : list of Vetoes
        In the order of the steps; a row is in one of them at most.
    forced : ndarray, bool, shape (n,)
        Always-kept rows.
    tokens : mapping
        ``num_tokens`` and ``num_supervised_tokens``, int64 (n,), where they were counted.
    renderer : callable, optional
        Samples and rows -> these rows as the language model was fed; needed to write token-pruned data.
    counted : mapping
        What cleaning counted and did not drop: words -> rows.
    """

    def _repr_html_(self) -> str:
        """Show it in a notebook: counts by cause, and how each scorer's values spread."""
        from datapruner.outputs.notebook import scores_html

        return scores_html(self)

    def explain(self, row: int, scorer: str | None = None) -> Explanation:
        """Everything that is known of a row before anything is chosen: its score, its rank, the method's columns.

        Parameters
        ----------
        row : int
            Position in the source.
        scorer : str, optional
            Whose rank; may be left out where there is only one.
        """
        row = checked_row(row, len(self))
        name = self.which(scorer)
        if name not in self._looked_at:
            self._looked_at[name] = not_chosen(self, name, Selection)
        told = self._looked_at[name].explain(row)
        open_ = told.rank is not None or bool(self.forced[row] and told.score is not None)
        return replace(
            told,
            kept=None if open_ else False,
            cause="ranked" if open_ else told.cause,
            reason=told.reason.replace("; 0 were kept", ""),
            ranked_kept=None,
        )

    @cached_property
    def _looked_at(self) -> dict[str, Selection]:
        return {}

    def select(
        self,
        scorer: str | None = None,
        *,
        keep: Amount | None = None,
        keep_tokens: int | None = None,
        per_group: str | None = None,
        quotas: Mapping[str, Amount] | None = None,
        group_share: Mapping[str, float] | None = None,
        selector: str | Selector | None = None,
    ) -> Selection:
        """Spend a budget; needs no model and takes seconds for millions of rows.

        Parameters
        ----------
        scorer : str, optional
            Which ranking chooses; may be left out where there is only one.
        keep, keep_tokens, per_group, quotas, group_share
            See :class:`datapruner.budget.Budget`.
        selector : str or Selector, optional
            Default: the scorer's own.

        Raises
        ------
        DataPrunerError
            Unknown scorer, or a budget that cannot be met.
        """
        column = self.recipe.column_of_sources if group_share and per_group is None else per_group
        budget = Budget(keep, keep_tokens, column, quotas or {}, group_share or {})
        return self.spend(budget, scorer, selector)

    def spend(
        self, budget: Budget, scorer: str | None = None, selector: str | Selector | None = None
    ) -> Selection:
        """Choose rows as :meth:`select` does, for a budget that is one object."""
        from datapruner.selection.selectors import make_selector

        name = self.which(scorer)
        if selector is None and name not in self.scorers:
            raise DataPrunerError(
                f"the recipe of these scores names no scorer '{safe_text(name, 60)}', so that its own selector is not "
                "known; name a selector, or score again"
            )
        chooser = self.scorers[name].selector() if selector is None else make_selector(selector)
        with self.samples.naming():
            return choose(self, name, chooser, budget, Selection)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the scores to a folder, whole or not at all; see :func:`datapruner.outputs.score_files.save_scores`."""
        from datapruner.outputs.score_files import save_scores

        return save_scores(self, Path(path), overwrite=overwrite)


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Selected):
    """The kept rows of a dataset, and a reason for every row.

    Its length is the number of kept rows, and iterating over it gives these as dictionaries of the original columns.

    Attributes
    ----------
    scores : Scores
        What it was made from.
    scorer : str
    selector : Selector
    budget : Budget
    kept : ndarray, bool, shape (n,)
    codes : ndarray, int32, shape (n,)
        Which of ``texts`` is a row's reason.
    texts : sequence of str
    token_masks : Ragged, optional
        bool, n rows: which supervised tokens of a kept row stay in the loss; empty where all of them do. None
        where the selector does not prune tokens.
    """

    scores: Scores

    def _repr_html_(self) -> str:
        """Show it in a notebook: counts by cause and by group, and the first kept rows."""
        from datapruner.outputs.notebook import selection_html

        return selection_html(self)

    @property
    def dataset(self) -> Dataset:
        """The kept rows with all their original columns, in source order.

        Where tokens were pruned there are ``input_ids`` and ``labels`` as well, with -100 for what is not supervised
        or was pruned; see :mod:`datapruner.outputs.tokens`.
        """
        if self.token_masks is None:
            return self.scores.samples.dataset.select(self.indices)
        return self._with_tokens[self.scores.samples.split].with_format(None)

    @property
    def splits(self) -> DatasetDict:
        """The kept rows under their split's name, beside the other splits with all their rows."""
        from datasets import DatasetDict

        if self.token_masks is None:
            return DatasetDict({self.scores.samples.split: self.dataset, **self.scores.samples.others})
        return self._with_tokens.with_format(None)

    @cached_property
    def _with_tokens(self) -> DatasetDict:
        from datapruner.files.temporary import private_folder
        from datapruner.outputs.tokens import token_splits

        return token_splits(self, private_folder())

    def rebudget(
        self,
        keep: Amount | None = None,
        *,
        keep_tokens: int | None = None,
        per_group: str | Literal[False] | None = None,
        quotas: Mapping[str, Amount] | None = None,
        group_share: Mapping[str, float] | None = None,
    ) -> Selection:
        """Choose again from the same scores for another budget; what is not said of it stays as it was.

        Parameters
        ----------
        keep, keep_tokens
            See :class:`datapruner.budget.Budget`.
        per_group : str or False, optional
            Another column, whose groups have no quotas and shares but those given; False for no groups.
        quotas, group_share : mapping, optional
            ``{}`` for none.

        Raises
        ------
        DataPrunerError
            A budget that cannot be met.
        """
        budget = self.budget.other(keep, keep_tokens, per_group, quotas, group_share)
        return choose(self.scores, self.scorer, self.selector, budget, type(self))

    def save(
        self,
        path: str | Path,
        *,
        format: str | None = None,
        overwrite: bool = False,
        report: bool = False,
    ) -> Path:
        """Write the pruned dataset with its card, reasons and recipe, whole or not at all.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist yet, or is empty.
        format : {"parquet", "jsonl", "arrow"}, optional
            Of the data; default: the recipe's.
        overwrite : bool
            Replace a folder that datapruner wrote before; any other is never touched.
        report : bool
            Write ``report.html`` too, as :meth:`report` does.

        Raises
        ------
        DataPrunerError
            The folder holds something else, or cannot be written.
        """
        from datapruner.outputs.dataset import save_selection

        return save_selection(
            self, Path(path), format=format or self.recipe.format, overwrite=overwrite, report=report
        )

    def report(self, path: str | Path, *, overwrite: bool = False, max_rows: int = 5000) -> Path:
        """Write one HTML file that shows what was kept and why, and needs no network.

        Parameters
        ----------
        path : str or Path
            The file.
        overwrite : bool
            Replace a file that is there.
        max_rows : int
            Of more rows a stratified sample is shown, and the page says so.

        Returns
        -------
        Path

        Raises
        ------
        DataPrunerError
            The file is there, cannot be written, or the extra ``report`` is not installed.
        """
        from datapruner.outputs.report import save_report

        return save_report(Path(path), [self], overwrite=overwrite, max_rows=max_rows)


def load_scores(path: str | Path, *, source: Any = None, scorers: Sequence[Scorer] = ()) -> Scores:
    """Read a folder of scores and the dataset they belong to.

    Parameters
    ----------
    path : str or Path
        What :meth:`Scores.save` wrote.
    source : optional
        The dataset, where it was in memory or has moved.
    scorers : sequence of Scorer
        Objects for scorers that are not installed under their name.

    Raises
    ------
    DataPrunerError
        It is no such folder, or the dataset is another one than was scored.
    """
    from datapruner.outputs.score_files import open_scores
    from datapruner.outputs.upload import brought
    from datapruner.scorers import make_scorer
    from datapruner.signals.models import renderer_of

    held = open_scores(brought(path))
    recipe = held.recipe
    if source is None and recipe.source is None:
        raise DataPrunerError("these scores were made from data in memory; pass it as `source`")
    if source is not None:
        recipe = recipe.with_source(source)
    samples = read_samples(recipe.model_copy(update={"source_content": None}), source)
    if len(samples) != held.rows or samples.own_content != held.content:
        raise DataPrunerError(
            f"{changed_source(samples, recipe)} has changed since it was scored; score it again"
        )
    rankings, vetoes, tokens, forced = held.parts()
    made = {scorer.name: scorer for scorer in scorers}
    made |= {m.name: make_scorer(m.name, m.parameters) for m in recipe.scorers if m.name not in made}
    return Scores(
        samples, recipe, made, rankings, vetoes, forced, tokens, renderer_of(recipe), held.counted()
    )
