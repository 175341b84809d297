"""Preference data of every layout becomes the pairs, or the votes, that trl's trainers read."""

from __future__ import annotations

import pytest

import datapruner as dp
from tests.test_inputs import LAYOUTS, turns

USER = {"role": "user", "content": "Name a fruit."}
CHOSEN = {"role": "assistant", "content": "A cherry."}
REJECTED = {"role": "assistant", "content": "A whale."}
SYSTEM = {"role": "system", "content": "Be brief."}


def pairs(*rows, **options):
    return dp.load_samples(list(rows), **options).preference().to_list()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a fruit.", "chosen": "A cherry.", "rejected": "A whale."},
        {"instruction": "Name a fruit.", "chosen": "A cherry.", "rejected": "A whale."},
        {"chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
        {"prompt": "Name a fruit.", "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
        {"prompt": [USER], "chosen": [CHOSEN], "rejected": [REJECTED]},
        {"messages": [USER, CHOSEN], "rejected_response": "A whale."},
        {
            "conversations": [{"from": "human", "value": "Name a fruit."}],
            "chosen": {"from": "gpt", "value": "A cherry."},
            "rejected": {"from": "gpt", "value": "A whale."},
        },
    ],
)
def test_one_pair_whatever_it_is_written_as(row):
    assert pairs(row) == [{"prompt": [USER], "chosen": [CHOSEN], "rejected": [REJECTED]}]


@pytest.mark.parametrize("sides", ["texts", "conversations"])
def test_a_system_prompt_of_its_own_is_part_of_the_prompt(sides):
    whole = sides == "conversations"
    row = {
        "system": "Be brief.",
        "question": "Name a fruit.",
        "chosen": [USER, CHOSEN] if whole else "A cherry.",
        "rejected": [USER, REJECTED] if whole else "A whale.",
    }
    assert pairs(row) == [{"prompt": [SYSTEM, USER], "chosen": [CHOSEN], "rejected": [REJECTED]}]


def test_sides_that_part_early_share_what_both_begin_with():
    again = {"role": "user", "content": "Another?"}
    row = {"chosen": [USER, CHOSEN, again, CHOSEN], "rejected": [USER, REJECTED, again, CHOSEN]}
    assert pairs(row) == [
        {"prompt": [USER], "chosen": [CHOSEN, again, CHOSEN], "rejected": [REJECTED, again, CHOSEN]}
    ]


def test_several_rejected_answers_are_as_many_pairs():
    row, _ = LAYOUTS["several_rejected"]
    found = pairs(row)
    assert [one["rejected"][0]["content"] for one in found] == ["A whale.", "A stone."]
    assert [one["chosen"] for one in found] == [[CHOSEN], [CHOSEN]]


def test_sides_in_one_text_without_turns_stay_texts():
    row = {"chosen": "a: b", "rejected": "a: c"}
    assert pairs(row) == [row]


def test_votes():
    rows = [{"prompt": "Name a fruit.", "completion": "A cherry.", "label": vote} for vote in (True, False)]
    assert pairs(*rows) == [
        {"prompt": [USER], "completion": [CHOSEN], "label": vote} for vote in (True, False)
    ]


def test_the_kept_rows_alone():
    rows = [
        {"prompt": f"Name fruit {number}.", "chosen": f"Cherry {number}.", "rejected": "A whale."}
        for number in range(9)
    ]
    selection = dp.prune(rows, scorer="random", keep=4, progress=False)
    found = [one["chosen"][0]["content"] for one in selection.preference()]
    assert found == [f"Cherry {number}." for number in selection.indices]


def test_rows_without_a_second_answer_are_refused():
    with pytest.raises(dp.DataPrunerError, match=r"no preference data.*question_answer"):
        pairs({"question": "a", "answer": "b"})


def test_calls_stay_calls():
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": None}}}
    row = {"chosen": turns("a", "", tool_calls=[call]), "rejected": turns("a", "no")}
    (found,) = pairs(row)
    assert found["chosen"][0]["tool_calls"][0]["function"]["name"] == "f"


def test_texts_in_parts_are_a_text_and_pictures_stay_parts():
    """Most templates print a list as Python does; trl would train on that."""
    text, picture = {"type": "text", "text": "What is it?"}, {"type": "image"}
    rows = [{"messages": turns([text, text], "An oak.")}, {"messages": turns([picture, text], "An oak.")}]
    contents = [one["messages"][0]["content"] for one in dp.load_samples(rows).conversation()]
    assert contents[0] == "What is it?What is it?"
    assert [part["type"] for part in contents[1]] == ["image", "text"]
