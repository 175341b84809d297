"""Make a selection of what was scored: spend a budget, or none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from datapruner.arrays import Flags, Ints
from datapruner.budget import Budget
from datapruner.cleaning.steps.no_supervised_tokens import NO_TOKENS
from datapruner.cleaning.vetoes import Vetoes, drops
from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.reasons import Reason
from datapruner.results.scored import Scored
from datapruner.results.selected import Selected
from datapruner.results.view import ALWAYS
from datapruner.selection.budget_rows import nothing_fits, portions
from datapruner.selection.tokens import gather

if TYPE_CHECKING:
    from datapruner.selection.selector import Selector

Kind = TypeVar("Kind", bound=Selected)


def choose(scored: Scored, name: str, selector: Selector, budget: Budget, kind: type[Kind]) -> Kind:
    """Spend a budget on one of the rankings.

    Parameters
    ----------
    scored : Scored
    name : str
        Of the ranking.
    selector : Selector
    budget : Budget
    kind : type
        What is made: :class:`Selected`, or one with more to it.

    Raises
    ------
    DataPrunerError
        A budget that cannot be met.
    """
    from datapruner.selection.selector import best_first, fill

    n = len(scored)
    codes, texts = scored.dropped_before()
    eligible = codes < 0
    costs = np.ones(n, dtype=np.int64)
    refused: list[Vetoes] = []

    def refuse(reason: Reason, rows: Flags) -> int:
        """Take rows that no budget buys out of the running, but for those that are always kept."""
        nonlocal texts
        out = eligible & rows & ~scored.forced
        if out.any():
            eligible[out] = False
            codes[out] = len(texts)
            texts = texts.also(f"dropped: {reason.sentence}")
            refused.append(drops(reason, np.flatnonzero(out)))
        return int(out.sum())

    if budget.in_tokens:
        costs = scored.tokens.get("num_supervised_tokens", costs[:0])
        if not len(costs):
            raise DataPrunerError("no tokens were counted for these scores; score again with count_tokens")
        refuse(NO_TOKENS, costs == 0)
    if (out := selector.refuses(scored.rankings[name])) is not None:
        lost = refuse(out.reason, out.rows)
        if isinstance(budget.keep, int) and (left := int(eligible.sum())) < budget.keep <= left + lost:
            raise DataPrunerError(
                f"{budget.keep} rows are to be kept, but only {left} are left, and {lost} were {out.reason.label}; "
                f"keep fewer, or take {out.way_out}"
            )
    forced = scored.forced & eligible
    codes[forced], texts = len(texts), texts.also(ALWAYS)
    kept = forced.copy()
    labels = None if budget.per_group is None else scored.column(budget.per_group)
    parts = portions(budget, costs, eligible, forced, labels, selector.group_power)
    masks: list[tuple[Ints, Ragged]] = []
    for number, portion in enumerate(parts):
        rng = np.random.default_rng([scored.recipe.seed, number])
        choice = selector.select(scored.rankings[name], portion, rng)
        kept[portion.rows] = choice.kept
        codes[portion.rows] = choice.codes + len(texts)
        texts = texts.also(*choice.texts)
        if choice.token_masks is not None:
            masks.append((portion.rows, choice.token_masks))
    if budget.in_tokens and len(parts) > 1:
        # What each group's share left over is too little for the group, but together it may fit a row.
        left = sum(portion.budget - int(costs[portion.rows[kept[portion.rows]]].sum()) for portion in parts)
        rows = np.sort(
            np.concatenate([portion.rows for portion in parts if not portion.fixed] or [costs[:0]])
        )
        rows = rows[~kept[rows]]
        more = np.zeros(len(rows), dtype=np.bool_)
        fill(best_first(scored.rankings[name].values[rows]), costs[rows], left, more)
        kept[rows[more]] = True
        codes[rows[more]] = len(texts)
        texts = texts.also("kept: among the best that fit into what the groups' shares left over")
    if not kept.any():
        raise nothing_fits(budget, costs, eligible)
    pruned = gather(masks, n) if masks else None
    return kind(scored, name, selector, budget, kept, codes, texts, pruned, refused)


def not_chosen(scored: Scored, name: str, kind: type[Kind]) -> Kind:
    """Give a selection as if nothing were kept: a rank for every row, and no cut."""
    from datapruner.selection.selectors.topk import TopK

    nothing = np.zeros(len(scored), dtype=np.bool_)
    codes, texts = scored.dropped_before()
    texts = texts.also("not chosen yet", ALWAYS)
    codes = np.where(codes < 0, len(texts) - 2 + scored.forced, codes)
    return kind(scored, name, TopK(), Budget(keep=1), nothing, codes.astype(np.int32), texts)
