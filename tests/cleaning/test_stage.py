"""The cleaning steps on whole rows: what a row is besides its text."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.cleaning.own_text import OwnText
from datapruner.cleaning.stage import Stage, steps_of
from datapruner.cleaning.step import CleaningStep
from datapruner.cleaning.vetoes import Vetoes
from datapruner.matching import match_form
from datapruner.reasons import Reason
from datapruner.recipe import Recipe
from datapruner.samples import inspect_samples, load_samples
from datapruner.samples.sample import Message, Sample
from datapruner.signals import TARGET

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def talk(*turns):
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": roles[turn[0]], "content": turn[1:]} for turn in turns]


def dropped(rows, **settings):
    samples = load_samples(rows)
    recipe = Recipe(source="x", scorers=[{"name": "random"}], keep=1, **{"on_empty": "keep", **settings})
    stage = Stage(steps_of(recipe), samples, np.zeros(len(rows), dtype=bool), OwnText(samples))
    stage.run()
    found = stage.vetoes
    assert sorted([*stage.rows, *(row for vetoes in found for row in vetoes.rows)]) == list(range(len(rows)))
    return {vetoes.kind: vetoes.rows.tolist() for vetoes in found}


def test_roles_and_turns_are_part_of_a_row():
    rows = [
        talk("ua", "ab", "uc", "ad"),
        talk("ua", "ab\nc\nd"),
        talk("sa", "ub", "ac\nd"),
        talk("sa", "ub", "uc", "ad"),
        talk("ua", "ab", "tc", "ad"),
        talk("ua", "ab", "uc", "ad", "u"),
        talk("ua ", "a\tb", "uc\n", "ad"),
        talk("uA.", "ab", "uc", "a(d)"),
    ]
    rows = [{"messages": messages} for messages in rows]
    assert dropped(rows, dedup=["exact"], match="exact") == {"exact_duplicate": []}
    assert dropped(rows, dedup=["exact"]) == {"exact_duplicate": [6]}
    assert dropped(rows, dedup=["exact"], match="loose") == {"exact_duplicate": [6, 7]}
    assert inspect_samples(load_samples(rows)).exact_duplicates == 1


def test_tools_are_part_of_a_row():
    messages = talk("ua", "ab")
    other = {"function": {"parameters": {"type": "object"}, "name": "f"}, "type": "function"}
    tools = [None, "[]", [TOOL], [other], [TOOL, TOOL], [{**TOOL, "type": "é"}]]
    keys = [
        match_form(Sample((Message("user", "a"),), tools=[] if given == "[]" else given).key())
        for given in tools
    ]
    assert [keys.index(key) for key in keys] == [0, 0, 2, 2, 4, 5]

    rows = [{"messages": messages, "tools": json.dumps(given)} for given in ([], [TOOL], [other], [TOOL])]
    assert dropped(rows, dedup=["exact"]) == {"exact_duplicate": [2, 3]}


def test_a_plain_text_is_no_answer():
    message = (Message("assistant", "a"),)
    assert Sample(message).key() != Sample(message, plain=True).key()


TURNS = st.lists(
    st.tuples(st.sampled_from(["user", "assistant"]), st.text("\0 ausert\n", max_size=9)), max_size=4
)


@given(TURNS, TURNS)
def test_no_content_can_imitate_another_row(first, second):
    def meaning(turns):
        return [(role, match_form(content)) for role, content in turns]

    keys = [match_form(Sample(tuple(Message(*turn) for turn in turns)).key()) for turns in (first, second)]
    assert (keys[0] == keys[1]) == (meaning(first) == meaning(second))


def test_hostile_contents():
    contents = [
        "",
        "\0",
        "\0\0",
        "\0user\0",
        "\0\0user\0 ",
        "a\0user\0 b",
        "\0user\0 a \0assistant\0",
        "tools",
    ]
    rows = [((role, text),) for role in ("user", "assistant") for text in contents]
    rows += list(itertools.product(rows[0] + rows[3] + rows[8], repeat=2))
    keys = {match_form(Sample(tuple(Message(*turn) for turn in row)).key()) for row in rows}
    assert len(keys) == len(rows)


def test_steps_see_what_is_left_in_source_order():
    text = " ".join(f"w{i}" for i in range(40))
    rows = [
        {"text": text},
        {"text": "alone"},
        {"text": text.replace(" ", "  ")},
        {"text": text.replace("w7 ", "w8 ")},
    ]
    assert dropped(rows, dedup=["exact", "near"]) == {"exact_duplicate": [2], "near_duplicate": [3]}
    assert dropped(rows, dedup=["near"]) == {"near_duplicate": [2, 3]}


@pytest.mark.parametrize(("dedup", "measured"), [([], []), (["exact"], []), (["semantic"], ["embedding"])])
def test_what_cleaning_reads_is_measured(dedup, measured):
    from datapruner.measuring.measure import plan_of
    from datapruner.measuring.request import request_of

    recipe = Recipe(source="x", scorers=[{"name": "random"}], keep=1, dedup=dedup, on_empty="keep")
    plan = plan_of(request_of(recipe))
    assert (plan.names, plan.first) == (measured, len(measured))


def test_a_row_without_an_answer_is_told_or_dropped_and_never_outlives_its_copy(caplog):
    question = "u" + " ".join(f"word{number}" for number in range(30))
    calls = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    rows = [
        {"messages": talk(question, "a ")},
        {"messages": talk(question, "asocial bonding")},
        {"messages": talk("uanother", "aone")},
        {"messages": talk("uhow many", "a", "uagain", "atwo")},
        {"messages": [*talk("ucall it"), {"role": "assistant", "content": "", "tool_calls": calls}]},
    ]
    assert dropped(rows, dedup=["near"]) == {"near_duplicate": [1]}
    assert dropped(rows, dedup=["near"], on_empty="drop") == {"no_answer": [0], "near_duplicate": []}

    caplog.clear()
    with caplog.at_level("WARNING"):
        selection = dp.prune(rows, scorer="random", keep=4)
    assert caplog.messages == [
        "1 of 5 rows have no answer, row 0 first, and were left out; on_empty='keep' ranks them "
        "like any other"
    ]
    assert (selection.reason(0), selection.counts()) == ("dropped: no answer", {"kept": 4, "no_answer": 1})
    with pytest.raises(
        dp.DataPrunerError, match=r"^row 0 has no answer \(1 such rows\); give it one, or leave"
    ):
        dp.prune(rows, scorer="random", keep=4, on_empty="error")
    assert dp.prune(rows, scorer="random", keep=5, on_empty="keep").counts() == {"kept": 5}
    # What is asked for by its number is not dropped by a default.
    assert dp.prune(rows, scorer="random", keep=4, always_keep=[0]).kept[0]
    with pytest.raises(dp.DataPrunerError, match="no row has an answer"):
        dp.prune(rows[:1], scorer="random", keep=1)


@dataclass(frozen=True)
class Odd(CleaningStep):
    """Drops odd rows, and needs signals of the rows and of another set."""

    name = "odd"
    reasons = (Reason("odd", "odd"),)
    needs = ("number", TARGET)

    def clean(self, left):
        assert left.signals[TARGET].shape == (2, 3)
        assert left.signals["number"].tolist() == left.rows.tolist()
        odd = left.rows[left.rows % 2 == 1]
        return Vetoes(self.reasons[0], odd, np.full(odd.size, -1), np.ones(odd.size))


@dataclass(frozen=True)
class Late(Odd):
    """Drops nothing more, and sees what the step before left."""

    name = "late"

    def clean(self, left):
        assert left.rows.tolist() == list(range(0, 40, 2))
        return super().clean(left)


def test_signals_of_another_set_stay_whole_where_rows_go():
    rows = [{"text": f"row {number}"} for number in range(40)]
    samples = load_samples(rows)
    stage = Stage([Odd(), Late()], samples, np.zeros(40, dtype=bool), OwnText(samples))
    stage.run({"number": np.arange(40), TARGET: np.ones((2, 3), dtype=np.float32)})
    assert stage.rows.tolist() == list(range(0, 40, 2))
