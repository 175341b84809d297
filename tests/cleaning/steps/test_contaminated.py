"""Decontamination against the definition, and on planted leaks."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapruner.cleaning import gram_index
from datapruner.cleaning.rows import text_blocks
from datapruner.cleaning.steps import contaminated as step
from datapruner.cleaning.steps.contaminated import contaminated
from datapruner.errors import DataPrunerError

RNG = np.random.default_rng(0)
TEST = [" ".join(f"w{i}" for i in RNG.integers(0, 3000, 40)) for _ in range(30)]
TRAIN = [" ".join(f"w{i}" for i in RNG.integers(0, 3000, 80)) for _ in range(50)]


def grams(text, n):
    words = text.split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def truth(train, test, *, ngram, share, min_words, common, templates, usual):
    """The definition with sets: {training item: (test row, share)}."""
    first = {}
    for row, text in enumerate(test):
        if len(text.split()) >= min(min_words, ngram):
            first.setdefault(text, row)
    sets = {row: grams(text, min(ngram, len(text.split()))) for text, row in first.items()}
    seen = [gram for gram_set in sets.values() for gram in gram_set]

    def best(held):
        """The best test row of every training item that reaches the share, where so many rows hold a gram."""
        found = {}
        for item, text in enumerate(train):
            best = (Fraction(0), 0)
            for row, gram_set in specials.items():
                here = grams(text, len(next(iter(gram_set))))
                weight = {
                    gram: Fraction(1, seen.count(gram) ** 2)
                    * min(Fraction(1), Fraction(usual, max(held(gram), 1))) ** 2
                    for gram in gram_set
                }
                found_here = sum(weight[gram] for gram in gram_set & here)
                best = max(best, (found_here / sum(weight.values()), -row))
            if best[0] >= Fraction(share):
                found[item] = (-best[1], best[0])
        return found

    specials = {
        row: {gram for gram in gram_set if seen.count(gram) <= common} or gram_set
        for row, gram_set in sets.items()
    }
    plain = best(lambda _: 0)
    if templates == "test":
        return plain

    def holding(gram, items):
        return sum(gram in grams(train[item], len(gram)) for item in items)

    like = {row: [item for item in plain if plain[item][0] == row] for row in specials}
    copied = [
        row
        for row, items in like.items()
        if len(items) > usual and all(4 * holding(gram, items) >= len(items) for gram in specials[row])
    ]
    return best(
        lambda gram: (
            holding(gram, range(len(train)))
            - sum(max(holding(gram, like[row]) - 1, 0) for row in copied if gram in specials[row])
        )
    )


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), max_size=8),
    st.lists(st.lists(st.sampled_from("abc"), max_size=7).map(" ".join), max_size=6),
    st.fixed_dictionaries(
        {
            "ngram": st.integers(1, 4),
            "share": st.sampled_from([0.25, 0.5, 1.0]),
            "min_words": st.integers(1, 3),
            "common": st.integers(1, 3),
            "templates": st.sampled_from(["test", "both"]),
            "usual": st.integers(1, 3),
        }
    ),
)
def test_equals_the_definition(train, test, arguments):
    if all(len(text.split()) < min(arguments["min_words"], arguments["ngram"]) for text in test):
        with pytest.raises(DataPrunerError, match="nothing to compare"):
            contaminated(train, test, np.arange(len(train)), **arguments)
        return
    vetoes = contaminated(train, test, np.arange(len(train)), **arguments)
    expected = truth(train, test, **arguments)
    assert vetoes.rows.tolist() == sorted(expected)
    assert vetoes.others.tolist() == [expected[row][0] for row in sorted(expected)]
    assert vetoes.measures.tolist() == pytest.approx([float(expected[row][1]) for row in sorted(expected)])


def test_clean_rows_stay():
    assert len(contaminated(TRAIN, TEST, np.arange(len(TRAIN)))) == 0


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text,
        lambda text: text.upper().replace(" ", ",\n"),
        lambda text: text.replace(text.split()[20], "another"),
        lambda text: f"Please solve this. {text} The answer is 4.",
        lambda text: " ".join(text.split()[:26]),
    ],
)
def test_finds_leaks_by_source_position(edit):
    train = [*TRAIN, edit(TEST[17])]
    rows = np.arange(len(train)) * 3
    vetoes = contaminated(iter(train), iter(TEST), rows)
    assert (vetoes.rows.tolist(), vetoes.others.tolist()) == ([150], [17])
    assert "of test row 17" in vetoes.reasons()[0]


def edited(text, times):
    """Copies of a text with another word somewhere."""
    words = text.split()
    return [
        " ".join([*words[: place % 40], f"another{place}", *words[place % 40 + 1 :]])
        for place in range(times)
    ]


def test_a_template_is_no_leak():
    template = (
        "given a list of categories company school artist athlete building what category does it belong to"
    )
    test = [f"{template} {text[:20]}" for text in TEST]
    train = [f"{template} {text[:20]}" for text in TRAIN] + [test[9]]
    rows = np.arange(len(train))
    vetoes = contaminated(train, test, rows)
    assert (vetoes.rows.tolist(), vetoes.others.tolist()) == ([50], [9])
    # In a single test row the template is told from the question by the training rows alone.
    assert len(contaminated(train, test[:1], rows, templates="test")) == len(train)
    assert len(contaminated(train, test[:1], rows)) == 0
    assert contaminated(train, test[9:10], rows).rows.tolist() == [50]


def test_copies_of_a_leak_are_no_template():
    every = TRAIN + edited(TEST[3], 200)
    vetoes = contaminated(lambda rows: (every[row] for row in rows), TEST, np.arange(len(every)))
    assert vetoes.rows.tolist() == list(range(len(TRAIN), len(every)))


def test_the_same_question_about_other_numbers_is_no_copy():
    asked = (
        "a train leaves the station at {} and goes {} miles how long will it take to be back at the station"
    )
    train = [asked.format(number, number + 7) for number in range(100, 300)]
    vetoes = contaminated([*TRAIN, *train], [*TEST, train[60]], np.arange(len(TRAIN) + len(train)))
    assert vetoes.rows.tolist() == [len(TRAIN) + 60]


@pytest.mark.parametrize("held", [0, 40, 400, 1 << 20])
def test_texts_are_read_once_where_what_they_hold_fits(held, monkeypatch):
    """And whatever is held, the verdicts are the same."""
    leaks = [*TEST[::2], *edited(TEST[3], 30)]
    every = [*TRAIN, *leaks]
    rows, asked = np.arange(len(every)) * 2 + 1, []

    def texts(some):
        asked.append(some.tolist())
        return (every[row // 2] for row in some.tolist())

    expected = contaminated(every, TEST, rows)
    monkeypatch.setattr(gram_index, "text_blocks", partial(text_blocks, size=7))
    monkeypatch.setattr(step, "HELD", held)
    vetoes = contaminated(texts, TEST, rows)
    assert vetoes.rows.tolist() == expected.rows.tolist() == rows[len(TRAIN) :].tolist()
    assert vetoes.others.tolist() == expected.others.tolist()
    assert vetoes.measures.tolist() == expected.measures.tolist()
    whole, *others = asked
    assert whole == rows.tolist()
    if held == 1 << 20:
        assert not others
    else:
        assert all(some == rows[rows.tolist().index(some[0]) :].tolist() for some in others)
        assert len(others) == 2


def test_repeated_test_rows_are_no_template():
    vetoes = contaminated([TRAIN[0], TEST[3]], TEST + [TEST[3]] * 40, [0, 1])
    assert (vetoes.rows.tolist(), vetoes.others.tolist()) == ([1], [3])


def test_short_test_rows_match_as_a_whole():
    train = ["Q: What's the capital of France? A: Paris", "the capital of France is Paris", "hi"]
    vetoes = contaminated(train, ["Whats the capital", "hi"], [0, 1, 2], ngram=5, min_words=3)
    assert (vetoes.rows.tolist(), vetoes.measures.tolist()) == ([0], [1.0])


def test_no_training_rows():
    assert len(contaminated([], TEST, [])) == 0


@pytest.mark.parametrize(
    "wrong", [{"ngram": 0}, {"share": 0}, {"share": 1.5}, {"min_words": 0}, {"common": 0}]
)
def test_wrong_settings(wrong):
    with pytest.raises(DataPrunerError, match="must"):
        contaminated(TRAIN, TEST, np.arange(len(TRAIN)), **wrong)


def test_names_the_test_row_without_text():
    with pytest.raises(DataPrunerError, match="Test row 1 holds float"):
        contaminated(TRAIN, [TEST[0], 1.5], np.arange(len(TRAIN)))
