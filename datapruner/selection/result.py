"""What a run knows: the scores of every row, and a selection made from them for one budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.selection.budget import Amount, Budget, encode_labels, portions
from datapruner.selection.explanation import Explanation, Summary
from datapruner.selection.standing import Grouping, Standing, crossed, standing
from datapruner.selection.tokens import gather
from datapruner.selection.vetoes import Vetoes
from datapruner.selection.view import ALWAYS, SelectionView, checked_row, find_rows, frame
from datapruner.text import did_you_mean, safe_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

    from datapruner.recipe import Recipe
    from datapruner.samples.rendered import Rendered
    from datapruner.samples.samples import Samples
    from datapruner.scorers.base import Measure, Ranking, Scorer
    from datapruner.selection.pairs import Pair
    from datapruner.selection.selectors import Selector

NO_TOKENS = "dropped: no supervised tokens"


@dataclass(frozen=True, eq=False)
class Scores:
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
    """

    samples: Samples
    recipe: Recipe
    scorers: Mapping[str, Scorer]
    rankings: Mapping[str, Ranking]
    vetoes: Sequence[Vetoes]
    forced: NDArray[np.bool_]
    tokens: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    renderer: Callable[[Samples, NDArray[np.int64]], Iterator[Rendered]] | None = None

    def __len__(self) -> int:
        """Return the number of source rows."""
        return len(self.samples)

    def __repr__(self) -> str:
        """Name the scorers and count the rows."""
        dropped = [
            f"{count:,} {words}"
            for (cause, count), words in zip(self.summary.causes.items(), self.summary.words(), strict=True)
            if cause != "ranked"
        ]
        scorers = ", ".join(safe_text(name, 60) for name in self.rankings)
        return f"Scores({'; '.join([f'{len(self):,} rows', scorers, *dropped])})"

    def _repr_html_(self) -> str:
        """Show it in a notebook: counts by cause, and how each scorer's values spread."""
        from datapruner.outputs.notebook import scores_html

        return scores_html(self)

    @cached_property
    def summary(self) -> Summary:
        """Rows by cause: those that are ranked, and what each cleaning step dropped."""
        steps: dict[str, int] = {}
        for vetoes in self.vetoes:
            if len(vetoes):
                steps[vetoes.kind] = steps.get(vetoes.kind, 0) + len(vetoes)
        ranked = len(self) - sum(steps.values())
        return Summary(len(self), {"ranked": ranked, **steps}, scorers=tuple(self.rankings))

    def to_pandas(self) -> pd.DataFrame:
        """Give every row's scores, and why a cleaning step dropped it; the index is the row's position in the source.

        ``cause`` and ``reason`` are as in a selection, ``ranked`` and empty for a row that may be chosen;
        ``always_keep`` marks the rows that every selection keeps. A score is ``score.NAME``, higher = keep.
        """
        from datapruner.outputs.scores import scores_table

        return frame(scores_table(self))

    def find(
        self, match: str | None = None, where: Mapping[str, Any] | None = None, *, case: bool = False
    ) -> NDArray[np.int64]:
        """Find rows by what they say; see :meth:`Selection.find`."""
        return find_rows(self.samples, match, where, case=case)

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
        name = self._which(scorer)
        if name not in self._looked_at:
            from datapruner.selection.selectors import TopK

            # As if nothing were kept: a rank, and no cut.
            nothing = np.zeros(len(self), dtype=np.bool_)
            codes, texts = self._dropped_before()
            texts += ["not chosen yet", ALWAYS]
            codes = np.where(codes < 0, len(texts) - 2 + self.forced, codes)
            self._looked_at[name] = Selection(
                self, name, TopK(), Budget(keep=1), nothing, codes.astype(np.int32), texts
            )
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
    def _labels(self) -> dict[str, list[Any]]:
        return {}

    @cached_property
    def _looked_at(self) -> dict[str, Selection]:
        return {}

    @cached_property
    def _veto_texts(self) -> list[str]:
        return [f"dropped: {text}" for vetoes in self.vetoes for text in vetoes.reasons()]

    def select(
        self,
        scorer: str | None = None,
        *,
        keep: Amount | None = None,
        keep_tokens: int | None = None,
        per_group: str | None = None,
        quotas: Mapping[str, Amount] | None = None,
        selector: str | Selector | None = None,
    ) -> Selection:
        """Spend a budget; needs no model and takes seconds for millions of rows.

        Parameters
        ----------
        scorer : str, optional
            Which ranking chooses; may be left out where there is only one.
        keep, keep_tokens, per_group, quotas
            See :class:`datapruner.selection.budget.Budget`.
        selector : str or Selector, optional
            Default: the scorer's own.

        Raises
        ------
        DataPrunerError
            Unknown scorer, or a budget that cannot be met.
        """
        from datapruner.selection.selectors import make_selector

        budget = Budget(keep, keep_tokens, per_group, {} if quotas is None else quotas)
        name = self._which(scorer)
        if selector is None and name not in self.scorers:
            raise DataPrunerError(
                f"the recipe of these scores names no scorer '{safe_text(name, 60)}', so that its own selector is not "
                "known; name a selector, or score again"
            )
        chooser = self.scorers[name].selector() if selector is None else make_selector(selector)
        return self._choose(name, chooser, budget)

    def _which(self, scorer: str | None) -> str:
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

    def _choose(self, name: str, selector: Selector, budget: Budget) -> Selection:
        from datapruner.selection.selectors import best_first, fill

        n = len(self)
        codes, texts = self._dropped_before()
        eligible = codes < 0
        costs = np.ones(n, dtype=np.int64)
        if budget.in_tokens:
            costs = self.tokens.get("num_supervised_tokens", costs[:0])
            if not len(costs):
                raise DataPrunerError(
                    "no tokens were counted for these scores; score again with count_tokens"
                )
            empty = eligible & (costs == 0) & ~self.forced
            eligible &= ~empty
            codes[empty] = len(texts)
            texts.append(NO_TOKENS)
        forced = self.forced & eligible
        codes[forced] = len(texts)
        texts.append(ALWAYS)
        kept = forced.copy()
        labels = None if budget.per_group is None else self._column(budget.per_group)
        parts = portions(budget, costs, eligible, forced, labels)
        masks: list[tuple[NDArray[np.int64], Ragged]] = []
        for number, portion in enumerate(parts):
            rng = np.random.default_rng([self.recipe.seed, number])
            choice = selector.select(self.rankings[name], portion, rng)
            kept[portion.rows] = choice.kept
            codes[portion.rows] = choice.codes + len(texts)
            texts += choice.texts
            if choice.token_masks is not None:
                masks.append((portion.rows, choice.token_masks))
        if budget.in_tokens and len(parts) > 1:
            # What each group's share left over is too little for the group, but together it may fit a row.
            left = sum(
                portion.budget - int(costs[portion.rows[kept[portion.rows]]].sum()) for portion in parts
            )
            rows = np.sort(
                np.concatenate([portion.rows for portion in parts if not portion.fixed] or [codes[:0]])
            )
            rows = rows[~kept[rows]]
            more = np.zeros(len(rows), dtype=np.bool_)
            fill(best_first(self.rankings[name].values[rows]), costs[rows], left, more)
            kept[rows[more]] = True
            codes[rows[more]] = len(texts)
            texts.append("kept: among the best that fit into what the groups' shares left over")
        if not kept.any():
            shortest = f"; the shortest has {int(costs[eligible].min())}" if eligible.any() else ""
            raise DataPrunerError(f"no row fits into {budget.describe()}{shortest}")
        pruned = gather(masks, n) if masks else None
        return Selection(self, name, selector, budget, kept, codes.astype(np.int32), texts, pruned)

    def _dropped_before(self) -> tuple[NDArray[np.int64], list[str]]:
        """Give the number of every row's reason, -1 where no cleaning step dropped it; and these reasons."""
        codes = np.full(len(self), -1, dtype=np.int64)
        start = 0
        for vetoes in self.vetoes:
            codes[vetoes.rows] = np.arange(start, start + len(vetoes))
            start += len(vetoes)
        return codes, list(self._veto_texts)

    def _column(self, name: str) -> list[Any]:
        if name not in self._labels:
            self._labels[name] = self.samples.column(name)
        return self._labels[name]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the scores to a folder, whole or not at all; see :func:`datapruner.outputs.scores.save_scores`."""
        from datapruner.outputs.scores import save_scores

        return save_scores(self, Path(path), overwrite=overwrite)


@dataclass(frozen=True, eq=False, repr=False)
class Selection(SelectionView):
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
    texts : list of str
    token_masks : Ragged, optional
        bool, n rows: which supervised tokens of a kept row stay in the loss; empty where all of them do. None
        where the selector does not prune tokens.
    """

    scores: Scores
    scorer: str
    selector: Selector
    budget: Budget
    kept: NDArray[np.bool_]
    codes: NDArray[np.int32]
    texts: list[str]
    token_masks: Ragged | None = None

    @property
    def values(self) -> NDArray[np.float64]:
        """The scorer's value of every row, NaN where it was dropped before scoring; float64 (n,)."""
        return self.scores.rankings[self.scorer].values

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
        from datapruner.outputs.tokens import token_splits
        from datapruner.temporary import private_folder

        return token_splits(self, private_folder())

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
        from datapruner.selection.pairs import pairs

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
    def supervised_tokens_kept(self) -> NDArray[np.int64] | None:
        """Supervised tokens of each row that stay in the loss, 0 where it was dropped; None: tokens were not pruned."""
        if self.token_masks is None:
            return None
        token_nll = self.scores.rankings[self.scorer].state.get("token_nll")
        whole = token_nll.lengths if isinstance(token_nll, Ragged) else self.token_masks.lengths
        stay = np.bincount(self.token_masks.rows(), self.token_masks.values, len(self.kept)).astype(np.int64)
        return np.where(self.kept, np.where(self.token_masks.lengths > 0, stay, whole), 0)

    def reason(self, row: int) -> str:
        """Why a source row was kept or dropped."""
        return self.texts[int(self.codes[self._checked(row)])]

    @property
    def reasons(self) -> pa.DictionaryArray:
        """The reason of every source row, dictionary-encoded."""
        import pyarrow as pa

        # Every text once: of a dictionary that repeats itself, Arrow's Parquet writer makes other bytes each time.
        numbers = {text: number for number, text in enumerate(dict.fromkeys(self.texts))}
        codes = np.array([numbers[text] for text in self.texts], dtype=np.int32)[self.codes]
        return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(list(numbers), pa.string()))

    def fates(self) -> tuple[list[str], NDArray[np.int64]]:
        """Give what may become of a row, as :meth:`counts` names it, and each row's number among these, int64 (n,)."""
        return self._fates

    @cached_property
    def _fates(self) -> tuple[list[str], NDArray[np.int64]]:
        steps = [(vetoes.kind, vetoes.rows) for vetoes in self.scores.vetoes]
        if NO_TOKENS in self.texts:
            steps.append(("no_supervised_tokens", np.flatnonzero(self.codes == self.texts.index(NO_TOKENS))))
        names = list(dict.fromkeys(["kept", *(kind for kind, _ in steps), "over_budget"]))
        codes = np.where(self.kept, 0, len(names) - 1)
        for kind, rows in steps:
            codes[rows] = names.index(kind)
        return names, codes

    def table(self) -> pa.Table:
        """Give every source row as ``selection.parquet`` has it."""
        from datapruner.outputs.dataset import selection_table

        return selection_table(self)

    @cached_property
    def standing(self) -> Standing:
        """Every row's rank among those that it competed with."""
        n = len(self.kept)
        competing = np.isfinite(self.values)
        for vetoes in self.scores.vetoes:
            competing[vetoes.rows] = False
        for text in (ALWAYS, NO_TOKENS):
            if text in self.texts:
                competing &= self.codes != self.texts.index(text)
        found: list[Grouping] = [([""], np.zeros(n, dtype=np.int64))]
        if self.budget.per_group is not None:
            found.append(encode_labels(self._labels(self.budget.per_group)))
        groups = self.scores.rankings[self.scorer].groups
        if groups is not None and self.selector.by_groups:
            clusters = [f"cluster {number}" for number in range(int(groups.max(initial=-1)) + 1)]
            found.append(crossed(found[-1], (clusters, groups)))
        costs = self._tokens() if self.budget.in_tokens else None
        return standing(self.values, self.kept, competing, found, costs)

    @property
    def measure(self) -> Measure:
        """The quantity that the score is."""
        return self.scores.rankings[self.scorer].measure

    @property
    def clusters(self) -> NDArray[np.int64] | None:
        """Every row's cluster, where the scorer works in clusters; int64 (n,)."""
        return self.scores.rankings[self.scorer].groups

    def _budget(self) -> Budget:
        return self.budget

    def _selector(self) -> str:
        return self.selector.name

    def _labels(self, column: str) -> list[Any]:
        return self.scores._column(column)

    def _tokens(self) -> NDArray[np.int64]:
        return self.scores.tokens["num_supervised_tokens"]

    def _shown(self, rows: NDArray[np.int64]) -> tuple[Samples, NDArray[np.int64]]:
        return self.scores.samples, rows

    def _known(self, row: int) -> dict[str, Any]:
        stay, scored = self.supervised_tokens_kept, np.isfinite(self.values[row])
        columns = self.scores.rankings[self.scorer].columns
        return {
            **{name: column[row] if scored else None for name, column in columns.items()},
            **{name: column[row] for name, column in self.scores.tokens.items()},
            **({} if stay is None else {"supervised_tokens_kept": stay[row]}),
        }

    def rebudget(
        self,
        keep: Amount | None = None,
        *,
        keep_tokens: int | None = None,
        quotas: Mapping[str, Amount] | None = None,
    ) -> Selection:
        """Choose again from the same scores for another budget; groups stay as they were."""
        budget = Budget(
            keep, keep_tokens, self.budget.per_group, self.budget.quotas if quotas is None else quotas
        )
        return self.scores._choose(self.scorer, self.selector, budget)

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

    @property
    def recipe(self) -> Recipe:
        """The arguments that lead here."""
        from datapruner.recipe import method_of, plain
        from datapruner.selection.selectors import SELECTORS

        scores, selector = self.scores, self.selector
        recipe = scores.recipe.pinned(scores.samples.revision)
        is_default = selector == scores.scorers[self.scorer].selector()
        named = SELECTORS.get(selector.name) is type(selector)
        return recipe.model_copy(
            update={
                "in_memory": recipe.in_memory
                + [f"selector {selector.name}"] * (not named and not is_default),
                "count_tokens": bool(scores.tokens),
                "scorer": self.scorer if len(scores.rankings) > 1 else None,
                "selector": None
                if is_default
                else method_of(selector.name, selector.parameters(), named=named),
                "keep": plain(self.budget.keep, "keep"),
                "keep_tokens": plain(self.budget.keep_tokens, "keep_tokens"),
                "per_group": plain(self.budget.per_group, "per_group"),
                "quotas": plain(dict(self.budget.quotas), "quotas"),
            }
        )
