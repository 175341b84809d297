"""What every selector promises, a check each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from datapruner.arrays import Ints
from datapruner.errors import DataPrunerError
from datapruner.ranking import Ranking
from datapruner.selection.budget_rows import Portion
from datapruner.selection.selector import Selector
from datapruner.selection.tokens import tokens_scored
from datapruner.testing.examples import plane, portion, random_ranking, rng

BUDGETS = (0.1, 0.3, 0.5, 1.0)


def check_selector(selector: Selector, ranking: Ranking | None = None) -> None:
    """Run every check of :data:`SELECTOR_CHECKS` on a selector.

    Parameters
    ----------
    selector : Selector
    ranking : Ranking, optional
        At least 10 rows, with the columns and the state that the selector reads; by default rankings with groups and
        all that the built-in scorers leave for their selectors. Supervised tokens are the lengths of the state
        ``token_nll``, or ``token_values``, where it is there.

    Raises
    ------
    AssertionError
        A promise of the contract is broken; the message says which.
    DataPrunerError
        The selector refuses the ranking, or its own choice is refused.
    """
    for check in SELECTOR_CHECKS.values():
        check(selector, ranking)


def selector_describes_itself(selector: Selector, ranking: Ranking | None = None) -> None:
    """A name, parameters that build it again."""
    del ranking
    assert selector.name.isidentifier(), f"the name '{selector.name}' is not a plain word"
    assert type(selector)(**selector.parameters()) == selector, (
        "the parameters do not build the selector again"
    )


def selector_meets_budgets(selector: Selector, ranking: Ranking | None = None) -> None:
    """Every budget is spent exactly in rows; in tokens less is left than the cheapest dropped row costs."""
    for held, tokens in _rankings(ranking):
        check_budgets(selector, held, tokens)


def selector_gives_reasons(selector: Selector, ranking: Ranking | None = None) -> None:
    """Every row has a reason that says whether it was kept."""
    held, _ = _one(ranking, 0)
    n = len(held.values)
    choice = selector.select(held, portion(n, np.ones(n, np.int64), n // 3), rng())
    assert choice.codes.shape == (n,), f"{len(choice.codes)} reasons for {n} rows"
    for kept, code in zip(choice.kept.tolist(), choice.codes.tolist(), strict=True):
        assert 0 <= code < len(choice.texts), f"the reason {code} is none of {len(choice.texts)}"
        text = choice.texts[code]
        assert text.startswith("kept" if kept else "dropped"), f"a row that is kept={kept} says: {text}"


def selector_masks_tokens_of_kept_rows(selector: Selector, ranking: Ranking | None = None) -> None:
    """Where tokens are pruned, it is in kept rows, one entry a supervised token, and some of each row stay."""
    held, tokens = _one(ranking, 6)
    n = len(tokens)
    choice = selector.select(held, portion(n, np.ones(n, np.int64), n // 2), rng())
    if choice.token_masks is None:
        return
    assert selector.prunes_tokens, "there are token masks, and prunes_tokens is not true"
    masks = choice.token_masks
    masked = masks.lengths > 0
    assert len(masks) == n, (
        "token masks are needed for every row of the portion, empty where nothing is pruned"
    )
    assert masks.values.dtype == np.bool_, "token masks must be bool"
    assert choice.kept[masked].all(), "a dropped row has a token mask"
    assert (masks.lengths == tokens)[masked].all(), "a token mask is not as long as its row"
    assert all(mask.any() for mask in masks if len(mask)), "a kept row loses all its tokens"


def selector_repeats(selector: Selector, ranking: Ranking | None = None) -> None:
    """The same seed gives the same rows, and the ranking is left alone."""
    held, tokens = _one(ranking, 3)
    before = copy.deepcopy(held)
    n = len(tokens)
    first = selector.select(held, portion(n, tokens, int(tokens.sum()) // 4), rng())
    second = selector.select(held, portion(n, tokens, int(tokens.sum()) // 4), rng())
    assert np.array_equal(first.kept, second.kept), "two calls keep different rows"
    assert np.array_equal(before.values, held.values), "the ranking was changed"
    for name, column in held.columns.items():
        assert np.array_equal(before.columns[name], column), f"the ranking's column '{name}' was changed"


def selector_reads_only_its_portion(selector: Selector, ranking: Ranking | None = None) -> None:
    """Rows outside the portion do not matter, whatever their values."""
    held, _ = _one(ranking, 4)
    n = len(held.values)
    rows = np.sort(np.random.default_rng(5).permutation(n)[: n // 2])
    part = Portion(rows, np.ones(len(rows), np.int64), len(rows) // 3)
    inside = np.zeros(n, dtype=np.bool_)
    inside[rows] = True
    values = np.where(inside, held.values, np.nan)
    columns = {
        name: np.where(inside, column, np.nan) if column.dtype.kind in "fiu" else column
        for name, column in held.columns.items()
    }
    choice = selector.select(held, part, rng())
    blind = selector.select(replace(held, values=values, columns=columns), part, rng())
    assert np.array_equal(choice.kept, blind.kept), "rows outside the portion changed the choice"


def selector_takes_little(selector: Selector, ranking: Ranking | None = None) -> None:
    """One row, equal values, and a budget of nothing."""
    if ranking is None:
        equal = Ranking(np.ones(9), np.zeros(9, np.int64), np.ones(1), *plane(np.ones(9), np.full(9, 3)))
        one = Ranking(
            np.zeros(1), np.zeros(1, np.int64), np.ones(1), *plane(np.zeros(1), np.ones(1, np.int64))
        )
    else:
        equal = one = replace(ranking, values=np.ones(len(ranking.values)))
    alone = Portion(np.zeros(1, np.int64), np.ones(1, np.int64), 1)
    n = len(equal.values)
    for held, part, rows in (
        (one, alone, 1),
        (equal, portion(n, np.ones(n, np.int64), n // 2), n // 2),
        (equal, portion(n, np.ones(n, np.int64), 0), 0),
    ):
        try:
            kept = selector.select(held, part, rng()).kept
        except DataPrunerError:
            raise
        except Exception as error:
            raise AssertionError(
                f"{len(part.rows)} rows and a budget of {rows} end in {type(error).__name__}: {error}"
            ) from error
        assert kept.sum() == rows, (
            f"{kept.sum()} of {len(part.rows)} equal rows were kept, and {rows} asked for"
        )


def check_budgets(selector: Selector, ranking: Ranking, tokens: Ints) -> None:
    """Check that budgets in rows are met exactly, and those in tokens until no further row fits."""
    n = len(ranking.values)
    for share in BUDGETS:
        rows = max(1, round(share * n))
        kept = selector.select(ranking, portion(n, np.ones(n, np.int64), rows), rng()).kept
        assert kept.sum() == rows, f"{selector.name} kept {kept.sum()} rows of a budget of {rows}"
        budget = int(share * tokens.sum())
        kept = selector.select(ranking, portion(n, tokens, budget), rng()).kept
        left = budget - int(tokens[kept].sum())
        assert left >= 0, f"{selector.name} overspent a token budget by {-left}"
        if not kept.all():
            assert left < tokens[~kept].min(), f"{selector.name} left {left} tokens, enough for another row"


def _rankings(given: Ranking | None) -> Iterator[tuple[Ranking, Ints]]:
    """Give rankings and the tokens of their rows: the one that was given, once as it is and once full of ties."""
    if given is None:
        yield from map(random_ranking, range(20))
        return
    yield given, _tokens(given)
    yield replace(given, values=np.floor(given.values)), _tokens(given)


def _one(given: Ranking | None, seed: int) -> tuple[Ranking, Ints]:
    return random_ranking(seed) if given is None else (given, _tokens(given))


def _tokens(ranking: Ranking) -> Ints:
    if (held := tokens_scored(ranking.state)) is not None:
        return held
    return np.random.default_rng(0).integers(1, 50, size=len(ranking.values))


SELECTOR_CHECKS: dict[str, Callable[[Selector, Ranking | None], None]] = {
    check.__name__: check
    for check in (
        selector_describes_itself,
        selector_meets_budgets,
        selector_gives_reasons,
        selector_masks_tokens_of_kept_rows,
        selector_repeats,
        selector_reads_only_its_portion,
        selector_takes_little,
    )
}
"""By name; each takes a selector and, optionally, a ranking with what it reads."""
