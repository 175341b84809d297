"""When two texts count as the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.cleaning.steps.near import near_duplicates
from datapruner.matching import holds_code, match_form, nesting

LEVELS = ("exact", "text", "loose")
TEXTS = st.text("aB\t\n :{-.5'*%\0`~é\u0301\u0085\u2028\u200d\u0651", max_size=14) | st.text(max_size=12)

LOOP = "Does it return after the loop?\ndef total(xs):\n    s = 0\n    for x in xs:\n        s += x\n    return s"
INSIDE = LOOP.replace("    return s", "        return s")
OTHER = {
    "ruby": ("def f(x)\n  if x then\n    a\n  end\n  b", "def f(x)\n  if x then\n    a\n  end\n    b"),
    "yaml": ("a:\n  b: 1\nc: 2", "a:\n  b: 1\n  c: 2"),
    "make": ("all: x\n\tcc x\nclean", "all: x\n\tcc x\n\tclean"),
    "fence": ("look\n~~~\na\nb\n~~~", "look\n~~~\na\n b\n~~~"),
    "list": ("- one:\n  - two\n- three", "- one:\n  - two\n  - three"),
}


@given(TEXTS)
def test_a_form_is_its_own_form_and_each_level_holds_the_one_before(text):
    for level in LEVELS:
        form = match_form(text, level)
        assert match_form(form, level) == form
    assert match_form(text, "exact") == text
    assert match_form(match_form(text, "text"), "loose") == match_form(text, "loose")


@given(st.lists(TEXTS, min_size=2, max_size=2))
def test_levels_are_nested(texts):
    same = [match_form(texts[0], level) == match_form(texts[1], level) for level in LEVELS]
    assert same == sorted(same)


@pytest.mark.parametrize("pair", [(LOOP, INSIDE), *OTHER.values()], ids=["python", *OTHER])
def test_indentation_counts_in_code(pair):
    first, second = pair
    assert all(map(holds_code, pair))
    assert " ".join(first.split()) == " ".join(second.split())
    for level in LEVELS:
        assert match_form(first, level) != match_form(second, level)
    for plain in pair:
        wider = "\n\n".join(
            " " * 3 * (len(line) - len(line.lstrip(" "))) + line.lstrip(" ") + "  "
            for line in plain.split("\n")
        )
        assert match_form(plain, "exact") != match_form(wider, "exact")
        assert match_form(plain) == match_form(wider)


def test_tabs_and_blanks_nest_alike():
    assert (
        match_form(LOOP) == match_form(LOOP.replace("    ", "\t")) == match_form(LOOP.replace("    ", "  "))
    )
    assert nesting(LOOP) == (0, 0, 1, 1, 2, 1)
    assert nesting(INSIDE) == (0, 0, 1, 1, 2, 2)


def test_indentation_of_prose_is_white_space():
    verse = "The river runs\n    past the mill\n  and on\nto the sea."
    assert not holds_code(verse)
    assert nesting(verse) == ()
    assert match_form(verse) == match_form("The river runs past the mill and on to the sea.")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Hello, World!", "hello world", True),
        ("don't  STOP", "Dont stop", True),
        ("well-known (twice)", "well known twice", True),
        ("STRASSE", "straße", True),
        ("كَتَبَ الوَلَدُ", "كتب الولد", True),
        ("שָׁלוֹם", "שלום", True),
        ("क्या है।", "क्या है", True),
        ("a\u00adb\u200dc", "abc", True),
        ("2+3", "2-3", False),
        ("2+3", "2<3", False),
        ("2*3", "2/3", False),
        ("x = -5", "x = 5", False),
        ("3.5", "35", False),
        (".5", "5", False),
        ("50%", "50", False),
        ("a < b", "a > b", False),
        ("5²", "52", False),
        ("?!", "...", False),
        ("काम", "कम", False),
        ("résumé", "resume", False),
    ],
)
def test_loose_leaves_out_what_does_not_change_the_words(first, second, same):
    assert (match_form(first, "loose") == match_form(second, "loose")) is same
    assert match_form(first) != match_form(second)


def test_near_duplicates_of_code_are_nested_alike():
    assert near_duplicates([LOOP, INSIDE, LOOP.replace("    ", "\t")], np.arange(3)).rows.tolist() == [2]
    assert near_duplicates([LOOP, INSIDE, INSIDE + "\n"], np.arange(3)).others.tolist() == [1]


def test_rows_of_other_numbers_can_be_kept_apart():
    said = "A baker fills {} trays with {} rolls each and sells every roll for two coins on the market day, so how"
    said += " many coins does the baker take home in the evening, if every customer pays at once"
    said += " and nobody gets a thing for free?"
    texts = [said.format(*pair) for pair in [(3, 12), (4, 12), (12, 3), (3, 12)]]
    texts.append(texts[0].replace("baker", "cook", 1))
    texts.append(said.format("३", "१२"))
    assert near_duplicates(texts, np.arange(6)).rows.tolist() == [1, 2, 3, 4, 5]
    apart = near_duplicates(texts, np.arange(6), numbers=True)
    assert apart.rows.tolist() == [3, 4, 5]
    assert apart.others.tolist() == [0, 0, 0]
