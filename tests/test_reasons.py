"""One table of reasons: every code has its words in one place, and what was read from elsewhere is harmless."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import datapruner
from datapruner.cleaning.steps.against import Against
from datapruner.cleaning.steps.best_of_prompt import BestOfPrompt
from datapruner.cleaning.steps.equal_sides import EqualSides
from datapruner.cleaning.steps.pair_duplicates import PairDuplicates
from datapruner.cleaning.steps.rules import Rules
from datapruner.cleaning.steps.symbols import Symbols
from datapruner.cleaning.steps.unfinished_answer import UnfinishedAnswer
from datapruner.cleaning.steps.unfit_answer import UnfitAnswer
from datapruner.errors import DataPrunerError
from datapruner.reasons import Reason, reason_of, saved_words, table
from datapruner.results.summary import Summary
from datapruner.text import safe_text

WORDS = {
    "kept": "kept",
    "over_budget": "dropped by the budget",
    "exact_duplicate": "dropped as exact duplicates",
    "near_duplicate": "dropped as near duplicates",
    "semantic_duplicate": "dropped as semantic duplicates",
    "contaminated": "dropped as contaminated by the test set",
    "no_answer": "dropped for having no answer",
    "no_supervised_tokens": "dropped for having no supervised tokens",
    "no_tokens_left": "dropped for having lost all their tokens",
    "never_keep": "dropped by the never-keep list",
}
"""As results have always said it."""


def test_the_words_are_those_of_always():
    assert {code: table()[code].label for code in WORDS} == WORDS
    steps = Against, Rules, Symbols, UnfitAnswer, UnfinishedAnswer, BestOfPrompt, EqualSides, PairDuplicates
    rules = {reason.code for step in steps for reason in step.reasons}
    assert set(table()) == {*WORDS, "ranked", "dropped_before_scoring", "not_measured", *rules}
    assert not saved_words(table())


def test_no_other_file_has_a_table_of_codes():
    """A dictionary keyed by two codes, or more, would be a second table."""
    package = Path(datapruner.__file__).parent
    found = []
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict):
                keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
                if len(keys & WORDS.keys()) > 1:
                    found.append(f"{file.relative_to(package)}:{node.lineno}")
    assert not found


def test_what_is_left_out_is_made_of_the_code():
    made = Reason("too_short")
    assert (made.sentence, made.one, made.many, made.label) == (
        "too short",
        "row dropped as too short",
        "rows dropped as too short",
        "dropped as too short",
    )
    one = Reason("too_short", one="short row")
    assert (one.many, one.label) == ("short rows", "dropped as short rows")


@pytest.mark.parametrize("code", ["", "Short", "too short", "1st", "a" * 61, "é"])
def test_a_code_that_could_not_be_read_again_is_refused(code):
    with pytest.raises(DataPrunerError, match=r"^the code of a reason has small letters"):
        Reason(code)


@pytest.mark.parametrize("sentence", ["{other.__class__}", "{measure:>999999}", "{0}", "{", "{Other}"])
def test_a_sentence_that_could_not_be_read_again_is_refused(sentence):
    with pytest.raises(DataPrunerError, match=r"^the sentence of the reason 'mine' may have the fields"):
        Reason("mine", sentence)


def test_a_step_fills_its_own_fields():
    made = Reason("mine", "{measure:.1f} of {least} for {other}").filled(least="{measure}")
    assert made.said(3, 0.25) == "0.2 of (measure) for 3"


@given(
    st.text(max_size=80), st.dictionaries(st.sampled_from(["one", "many", "label", "refers_to"]), st.text())
)
def test_whatever_a_file_says_is_told_harmlessly(code, words):
    reason = reason_of(code, {code: words})
    assert reason.label
    for text in (reason.code, reason.one, reason.many, reason.label, reason.refers_to):
        assert safe_text(text) == text
        assert len(text) < 300


def test_two_causes_of_one_name_are_counted_apart():
    same = {code: Reason(code, label="dropped for reasons") for code in ("a", "b")}
    assert Summary(3, {"a": 1, "b": 2}, reasons=same).words() == {
        "dropped for reasons": 1,
        "dropped for reasons (b)": 2,
    }
