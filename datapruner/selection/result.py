"""What a run knows: the scores of every row, and a selection made from them for one budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datapruner.errors import DataPrunerError
from datapruner.selection.budget import Amount, Budget, encode_labels, portions
from datapruner.selection.tokens import gather
from datapruner.selection.vetoes import Vetoes
from datapruner.signals.ragged import Ragged
from datapruner.text import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

    from datapruner.recipe import Recipe
    from datapruner.samples.base import Samples
    from datapruner.samples.rendering import Rendered
    from datapruner.scorers.base import Ranking, Scorer
    from datapruner.selection.selectors import Selector

ALWAYS = "kept: on the always-keep list"
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
        return f"Scores({len(self)} rows, {', '.join(self.rankings)})"

    @cached_property
    def _labels(self) -> dict[str, list[Any]]:
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
        eligible = np.ones(n, dtype=np.bool_)
        codes = np.full(n, -1, dtype=np.int64)
        texts = list(self._veto_texts)
        start = 0
        for vetoes in self.vetoes:
            eligible[vetoes.rows] = False
            codes[vetoes.rows] = np.arange(start, start + len(vetoes))
            start += len(vetoes)
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

    def _column(self, name: str) -> list[Any]:
        if name not in self._labels:
            self._labels[name] = self.samples.column(name)
        return self._labels[name]

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the scores to a folder, whole or not at all; see :func:`datapruner.outputs.scores.save_scores`."""
        from datapruner.outputs.scores import save_scores

        return save_scores(self, Path(path), overwrite=overwrite)


@dataclass(frozen=True, eq=False)
class Selection:
    """The kept rows of a dataset, and a reason for every row.

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

    def __len__(self) -> int:
        """Return the number of kept rows."""
        return int(self.kept.sum())

    def __repr__(self) -> str:
        """Say what was kept."""
        return f"Selection({len(self)} of {len(self.kept)} rows by {self.scorer})"

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """Source positions of the kept rows, ascending; int64."""
        return np.flatnonzero(self.kept)

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
        return self.scores.samples.conversation(self.indices)

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

    def counts(self) -> dict[str, int]:
        """Count rows by what became of them: kept, dropped by each cleaning step, dropped by the budget."""
        names, codes = self.fates()
        counts = np.bincount(codes, minlength=len(names)).tolist()
        return {name: count for name, count in zip(names, counts, strict=True) if count}

    def fates(self) -> tuple[list[str], NDArray[np.int64]]:
        """Give what may become of a row, as :meth:`counts` names it, and each row's number among these, int64 (n,)."""
        steps = [(vetoes.kind, vetoes.rows) for vetoes in self.scores.vetoes]
        if NO_TOKENS in self.texts:
            steps.append(("no_supervised_tokens", np.flatnonzero(self.codes == self.texts.index(NO_TOKENS))))
        names = list(dict.fromkeys(["kept", *(kind for kind, _ in steps), "over_budget"]))
        codes = np.where(self.kept, 0, len(names) - 1)
        for kind, rows in steps:
            codes[rows] = names.index(kind)
        return names, codes

    def shares(self) -> dict[str, tuple[int, int, str]]:
        """Tell what each group of the budget's column got: kept, of how many, in which unit.

        Without groups there is one entry, for a token budget only: what of it was spent.
        """
        if self.budget.per_group is None:
            if self.budget.keep_tokens is None:
                return {}
            spent = int(self.scores.tokens["num_supervised_tokens"][self.kept].sum())
            return {"budget": (spent, self.budget.keep_tokens, "supervised tokens")}
        names, codes = encode_labels(self.scores._column(self.budget.per_group))
        in_tokens = self.budget.in_tokens
        costs = self.scores.tokens["num_supervised_tokens"] if in_tokens else np.ones(len(codes), np.int64)
        whole, kept = np.bincount(codes, costs), np.bincount(codes, costs * self.kept)
        unit = "supervised tokens" if in_tokens else "rows"
        return {name: (int(kept[j]), int(whole[j]), unit) for j, name in enumerate(names)}

    def explain(self, row: int) -> dict[str, Any]:
        """Everything that is known of a row: whether it was kept, why, its score and the method's columns.

        None stands where a row was dropped before scoring.
        """
        row = self._checked(row)
        scored = bool(np.isfinite(self.values[row]))
        tokens, columns = self.scores.tokens, self.scores.rankings[self.scorer].columns
        stay = self.supervised_tokens_kept
        return {
            "row": row,
            "kept": bool(self.kept[row]),
            "reason": self.reason(row),
            "scorer": self.scorer,
            "score": float(self.values[row]) if scored else None,
            **{name: column[row].item() if scored else None for name, column in columns.items()},
            **{name: column[row].item() for name, column in tokens.items()},
            **({} if stay is None else {"supervised_tokens_kept": int(stay[row])}),
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

    def _checked(self, row: int) -> int:
        if not 0 <= row < len(self.kept):
            raise DataPrunerError(
                f"there is no row {row}; the dataset has {len(self.kept)} rows, counted from 0"
            )
        return int(row)
