"""Tokens of the highest values, over all rows or in each, against a plain sort; rows that lose all are dropped."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.ragged import Ragged
from datapruner.ranking import Ranking
from datapruner.selection.selectors.top_tokens import TopTokens
from datapruner.selection.tokens import highest

ROWS = st.lists(st.lists(st.integers(-3, 3).map(float), max_size=7), max_size=9)


def best(tokens, share):
    """The places of the best of some tokens, the earlier of equal ones first: as one would write it down."""
    order = sorted(range(len(tokens)), key=lambda place: (-tokens[place], place))
    return set(order[: max(1, round(share * len(tokens)))])


@given(ROWS, st.integers(1, 20), st.integers(20, 40))
def test_the_tokens_that_stay_are_those_of_a_plain_sort(rows, numerator, denominator):
    keep = round(numerator / denominator, 3)
    share = Fraction(str(keep))
    values = Ragged.from_rows([np.array(row) for row in rows])
    flat = [token for row in rows for token in row]
    wanted = best(flat, share) if flat else set()
    assert set(np.flatnonzero(highest(values, keep, "all").values).tolist()) == wanted
    for row, found in zip(rows, highest(values, keep, "row"), strict=True):
        assert set(np.flatnonzero(found).tolist()) == (best(row, share) if row else set())


def test_a_selection_takes_the_masks_of_its_rows_and_refuses_rows_without_any():
    rows = [[3, -1], [-2, -3, -4], [2, 1, 0, -5]]
    tokens = Ragged.from_rows([np.array(row, dtype=float) for row in rows])
    ranking = Ranking(np.array([1.0, -3.0, -0.5]), state={"token_values": tokens})
    selector = TopTokens(token_keep=0.5)
    refused = selector.refuses(ranking)
    assert refused.rows.tolist() == [False, True, False]
    assert refused.reason.sentence.startswith("none of its tokens is among the 50 % of highest value")
    assert TopTokens(token_keep=0.5, over="row").refuses(ranking) is None
    assert TopTokens(token_keep=1.0).refuses(ranking) is None
    # Another share of the same tokens is not that of before.
    assert selector._stay(ranking)[0].values.sum() == 4
    assert TopTokens(token_keep=0.25)._stay(ranking)[0].values.sum() == 2
    assert selector._stay(ranking)[0].values.sum() == 4


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_without_meaning_is_refused(share):
    with pytest.raises(DataPrunerError, match="top_tokens: token_keep must lie above 0 and at most 1"):
        TopTokens(token_keep=share)


def test_a_ranking_without_tokens_is_refused_with_a_way_out():
    with pytest.raises(DataPrunerError, match=r"a value of every token.*excess_loss, or the selector topk"):
        TopTokens().refuses(Ranking(np.zeros(3)))
