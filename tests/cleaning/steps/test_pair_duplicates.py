"""Preference rows that share a prompt, a chosen answer or both sides, and those that contradict each other."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datapruner as dp
from datapruner.cleaning.step import Remaining
from datapruner.cleaning.steps.pair_duplicates import PairDuplicates

PAIRS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from("xyz")).filter(
        lambda one: one[1] != one[2]
    ),
    min_size=1,
    max_size=9,
)


def rows(pairs):
    return [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in pairs]


def cleaned(pairs, by):
    """The reason of each row that the step drops, None of the others."""
    samples, n = dp.load_samples(rows(pairs)), len(pairs)
    left = Remaining(samples, np.arange(n), np.zeros(n, dtype=bool), own=None)
    found = [None] * n
    for vetoes in PairDuplicates(by).clean(left):
        for row in vetoes.rows:
            found[row] = vetoes.kind
    return found


def causes(pairs, *, by, **options):
    selection = dp.clean(rows(pairs), cleaning=[{"pair_duplicates": {"by": by}}], progress=False, **options)
    names, codes = selection.fates()
    return [names[code] for code in codes], selection


@settings(max_examples=40)
@given(PAIRS, st.sampled_from(["pair", "chosen", "prompt"]))
def test_the_first_of_each_stays_as_by_counting(pairs, by):
    width = {"pair": 3, "chosen": 2, "prompt": 1}[by]
    times = Counter(pairs)
    wanted = []
    for place, pair in enumerate(pairs):
        against = times[pair[0], pair[2], pair[1]] if by == "pair" else 0
        if against and against >= times[pair]:
            wanted.append("contradicted_pair" if against > times[pair] else "undecided_pair")
        else:
            first = pair[:width] not in [other[:width] for other in pairs[:place]]
            wanted.append(None if first else "pair_duplicate")
    assert cleaned(pairs, by) == wanted


def test_reasons_name_the_row_and_what_is_shared():
    pairs = [("a", "x", "y"), ("a", "x", "z"), ("a", " x ", "y"), ("b", "x", "y"), ("a", "y", "x")]
    for by, told in (
        ("pair", "dropped: has the prompt and both answers of row 0"),
        ("chosen", "dropped: has the prompt and the chosen answer of row 0"),
        ("prompt", "dropped: has the prompt of row 0"),
    ):
        assert causes(pairs, by=by)[1].reason(2) == told
    assert (
        causes(pairs, by="pair")[1].reason(4) == "dropped: row 0 prefers the same answers the other way round"
    )
    found, _ = causes(pairs, by="pair", always_keep=[2, 4])
    assert found == ["pair_duplicate", "kept", "kept", "kept", "kept"]


def test_rows_of_other_layouts_have_a_prompt_and_one_answer():
    said = [
        {"question": "q", "answer": "a"},
        {"question": "q", "answer": "b"},
        {"question": "r", "answer": "a"},
    ]
    for by, kept in (("prompt", [0, 2]), ("chosen", [0, 1, 2]), ("pair", [0, 1, 2])):
        step = [{"pair_duplicates": {"by": by}}]
        assert dp.clean(said, cleaning=step, progress=False).indices.tolist() == kept


def test_several_rejected_answers_are_one_set():
    several = [
        {"prompt": "a", "chosen": "x", "rejected": list(order)}
        for order in itertools.permutations(["y", "z"])
    ]
    selection = dp.clean(several, cleaning=["pair_duplicates"], progress=False)
    assert selection.indices.tolist() == [0]


@pytest.mark.parametrize("by", ["side", 3])
def test_another_way_to_compare_is_refused(by):
    with pytest.raises(dp.DataPrunerError, match="pair_duplicates"):
        dp.clean(rows([("a", "x", "y")]), cleaning=[{"pair_duplicates": {"by": by}}], progress=False)
