"""Rows of one template: fillings stay, copies go."""

from __future__ import annotations

import numpy as np
import pytest

import datapruner as dp
from datapruner.cleaning.blanks import without_fillings
from datapruner.cleaning.steps.near import near_duplicates

TEMPLATE = (
    "{}, given a list of categories: company, school, artist, athlete, office holder, ship, building, place, village, "
    "animal, plant, album, film or written work, which one does the title belong to? Company"
)
RNG = np.random.default_rng(0)
NAMES = [f"Name{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(30)]
TEXT = " ".join(f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in RNG.permutation(600)[:60])


def dropped(texts):
    rows = np.arange(len(texts)) * 2
    found = near_duplicates(texts, rows)
    kept = without_fillings(
        found, lambda some: [texts[row // 2] for row in some.tolist()], ngram=3, threshold=0.7
    )
    return {
        row // 2: other // 2 for row, other in zip(found.rows.tolist(), found.others.tolist(), strict=True)
    }, {row // 2: other // 2 for row, other in zip(kept.rows.tolist(), kept.others.tolist(), strict=True)}


def with_word(text, place):
    words = text.split()
    return " ".join([*words[:place], "other", *words[place + 1 :]])


def test_fillings_stay_and_their_copies_go():
    texts = [TEMPLATE.format(name) for name in NAMES]
    texts += [
        texts[7],
        with_word(texts[9], 14),
        f"Please tell me this. {texts[11]}",
        TEXT,
        with_word(TEXT, 20),
    ]
    before, after = dropped(texts)
    assert {*before} == {*range(1, 33), 34}
    assert after == {30: 7, 31: 9, 32: 11, 34: 33}


@pytest.mark.parametrize("edit", ["word", "sentence", "end"])
def test_many_edited_copies_of_one_row_are_no_template(edit):
    """Each is edited somewhere else, the first one too."""
    words = TEXT.split()
    places = RNG.permutation(np.arange(3, 57))[:30].tolist()
    texts = [
        {
            "word": with_word(TEXT, place),
            "sentence": " ".join([*words[:place], "and", f"new{place}", "too", *words[place:]]),
            "end": " ".join(words[: 60 - place % 9]),
        }[edit]
        for place in places
    ]
    before, after = dropped(texts)
    assert len(before) == 29
    assert after.keys() <= before.keys()
    assert len(after) >= 28  # the shortest of those that are cut off is what all of them hold


def test_a_few_rows_are_no_template():
    before, after = dropped([TEMPLATE.format(name) for name in NAMES[:11]])
    assert len(before) == 10
    assert after == before


def test_rows_that_are_the_template_and_nothing_else_are_copies():
    texts = [TEMPLATE.format(name) for name in NAMES]
    bare = TEMPLATE.format("").removeprefix(", ")
    before, after = dropped([*texts, bare, f"{bare} "])
    assert len(before) == 31
    assert after == {31: 30}


def test_it_is_an_option_and_the_default_recipe_has_it(cache):
    rows = [{"question": TEMPLATE.format(name)[:-8], "answer": "Company"} for name in NAMES]
    found = {
        blanks: dp.prune(rows, scorer="random", keep=1.0, dedup=["near"], near_blanks=blanks, progress=False)
        for blanks in (False, True)
    }
    assert [found[blanks].kept.sum() for blanks in (False, True)] == [1, 30]
    assert dp.prune(rows, without=["noise", "shares"], progress=False).kept.all()
