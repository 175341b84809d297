"""What is read of a message: its role, its fields, its calls, whether it is trained on, and whose nulls are whose."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapruner.errors import DataPrunerError
from datapruner.samples import Message, Sample, inspect_samples, load_samples
from datapruner.samples.turns import NULL, read_turns, shape_of, unpadded

ASK = {"role": "user", "content": "Weather in Oslo?"}
ANSWER = {"role": "assistant", "content": "3 C"}


def call(name="weather", **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def wrong(what):
    return DataPrunerError(what)


def turns(*messages, **options):
    return read_turns(messages, wrong, **options)


def sample(*messages, **columns):
    return load_samples([{"messages": list(messages), **columns}])[0]


def test_fields_that_templates_read_are_kept_and_others_are_not():
    (turn,) = turns(
        {
            "role": "assistant",
            "content": "a",
            "reasoning_content": "r",
            "name": "ann",
            "tool_calls": [],
            "thinking": None,
            "timestamp": 3,
        }
    )
    assert turn == Message("assistant", "a", {"reasoning_content": "r", "name": "ann"})
    (turn,) = turns({"role": "tool", "content": "3 C", "tool_call_id": "x1", "name": "weather"})
    assert turn.fields == {"tool_call_id": "x1", "name": "weather"}


@pytest.mark.parametrize(
    "message",
    [
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "weather", "arguments": '{"city":"Oslo"}'},
        },
        {
            "role": "assistant",
            "content": None,
            "function_call": '{"name":"weather","arguments":{"city":"Oslo"}}',
        },
        {"role": "assistant", "content": None, "tool_calls": call(city="Oslo")},
        {"role": "assistant", "content": None, "tool_calls": json.dumps([call(city="Oslo")])},
        {"role": "assistant", "content": None, "tool_calls": [json.dumps(call(city="Oslo"))]},
        {"role": "tool_call", "content": '{"name":"weather","arguments":{"city":"Oslo"}}'},
        {"from": "function_call", "value": '[{"name":"weather","arguments":"{\\"city\\": \\"Oslo\\"}"}]'},
        {"role": "Tool-Call", "content": '{"name":"weather","parameters":{"city":"Oslo"}}'},
    ],
)
def test_calls_however_they_are_written(message):
    (turn,) = turns(message)
    assert (turn.role, turn.content, turn.fields["tool_calls"]) == ("assistant", "", [call(city="Oslo")])
    assert '"city":"Oslo"' in turn.text


def test_a_call_turn_that_is_no_json_is_what_it_says():
    for content in ("f(x)", "{", "3", '{"a": 1}', '[{"name": "f"}, 3]'):
        (turn,) = turns({"role": "tool_call", "content": content})
        assert turn == Message("assistant", content)


def test_arguments_that_are_text_stay_text_where_the_source_has_calls():
    written = {"function": {"name": "f", "arguments": '{"a": 1}'}, "id": "x", "type": "function"}
    (turn,) = turns({"role": "assistant", "content": "", "tool_calls": [written]})
    assert turn.fields["tool_calls"] == [written]


def test_calls_join_the_turn_before_them():
    one, two = (
        {"role": "tool_call", "content": json.dumps({"name": "f", "arguments": {"a": n}})} for n in (1, 2)
    )
    answer = {"role": "assistant", "content": "Let me look.", "thinking": "t"}
    found = turns(ASK, answer, one, two, {"role": "tool_response", "content": "3 C"}, one)
    assert [turn.role for turn in found] == ["user", "assistant", "tool", "assistant"]
    assert found[1].fields == {"thinking": "t", "tool_calls": [call("f", a=1), call("f", a=2)]}
    assert found[3] == Message("assistant", "", {"tool_calls": [call("f", a=1)]})
    # What is trained on and what is not stay two turns.
    assert len(turns(ASK, {**answer, "weight": 0}, one)) == 3


@pytest.mark.parametrize(
    ("flag", "trained"),
    [
        ({"weight": 0}, False),
        ({"weight": 0.0}, False),
        ({"weight": 1}, True),
        ({"weight": 0.5}, True),
        ({"weight": None}, True),
        ({"train": False}, False),
        ({"train": "false"}, False),
        ({"training": True}, True),
        ({"trained": False}, False),
        ({"trainable": "no"}, False),
        ({"loss": False}, False),
        ({"loss": 0}, False),
        ({"loss_mask": 1}, True),
        ({"loss_mask": 0}, False),
        ({"mask": True}, False),
        ({"masked": "true"}, False),
        ({"mask": False}, True),
        ({"mask": 1}, True),
        ({"weight": 1, "loss": False}, False),
        ({"train": "the night train"}, True),
    ],
)
def test_what_must_not_be_trained_on(flag, trained):
    (turn,) = turns({**ANSWER, **flag})
    assert (turn.trained, turn.fields) == (trained, {})
    assert turns({**ASK, **flag})[0] == Message("user", ASK["content"])


def test_rows_in_which_nothing_is_trained_on_have_no_answer():
    rows = [{"messages": [ASK, {**ANSWER, "weight": weight}]} for weight in (0, 1)]
    samples = load_samples(rows)
    assert samples.texts("response") == ["", "3 C"]
    assert inspect_samples(samples).empty_responses == 1
    assert samples.conversation().to_list() == [
        {"messages": [ASK, {**ANSWER, "weight": 0}]},
        {"messages": [ASK, ANSWER]},
    ]


def test_roles():
    shown = [
        turns({"role": role, "content": "x"})[0]
        for role in ("developer", "ipython", "Human", "AI", "tool-result")
    ]
    assert [turn.role for turn in shown] == ["system", "tool", "user", "assistant", "tool"]
    assert [turn.fields for turn in shown] == [{"role": "developer"}, {"role": "ipython"}, {}, {}, {}]


def test_parts():
    parts = ["a", {"type": "text", "text": "b", "image": None}]
    (turn,) = turns({"role": "user", "content": parts})
    handed = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert turn == Message("user", "ab", {"content": handed})
    with pytest.raises(DataPrunerError, match="has a part of the unknown type 'smell' in message 0"):
        turns({"role": "user", "content": [{"type": "smell", "url": "x"}]})
    # An image has no text, and tells rows apart.
    shown = [{"type": "image", "url": "x", "text": None}, {"type": "text", "text": "b"}]
    (turn,) = turns({"role": "user", "content": shown})
    assert turn == Message("user", "b", {"content": [{"type": "image", "url": "x"}, shown[1]]})


def test_reasoning_alone_is_an_answer():
    (turn,) = turns({"role": "assistant", "content": None, "reasoning_content": "r"})
    assert (turn.content, turn.text, turn.handed()["content"]) == ("", "r", None)
    (turn,) = turns(
        {"role": "assistant", "content": None, "function_call": {"name": None, "arguments": None}}
    )
    assert (turn.text, Sample((turn,)).unanswered) == ("", True)
    with pytest.raises(DataPrunerError, match="has no content in message 0"):
        turns({"role": "user", "content": None})


# Nulls: the row's own, or Arrow's.

TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": keys, "required": need}},
    }
    for name, keys, need in [
        ("find", {"kind": {}, "limit": {}}, ["kind", "limit"]),
        ("walk", {"far": {}, "limit": {}}, []),
        ("wait", {"far": {}}, []),
    ]
]


def arguments(rows, row=0, *, padded=True):
    source = pa.Table.from_pylist(rows) if padded else rows
    (made,) = load_samples(source)[row].messages[1].fields["tool_calls"]
    return made["function"]["arguments"]


def rows_of(*calls, **columns):
    return [
        {"messages": [ASK, {"role": "assistant", "content": "", "tool_calls": [one]}], **columns}
        for one in calls
    ]


def test_a_key_that_is_null_in_every_row_was_written():
    rows = rows_of(call("find", kind="cafe", limit=None), call("find", kind="inn", limit=None))
    assert [arguments(rows, row) for row in (0, 1)] == [
        {"kind": "cafe", "limit": None},
        {"kind": "inn", "limit": None},
    ]


def test_a_key_that_has_a_value_elsewhere_is_padding():
    rows = rows_of(call("find", kind="cafe"), call("walk", far=3))
    assert [arguments(rows, row) for row in (0, 1)] == [{"kind": "cafe"}, {"far": 3}]


def test_what_the_tools_say_of_an_argument_decides():
    calls = [
        call("find", kind="cafe", limit=None),
        call("find", kind="inn", limit=3),
        call("walk", far=2),
        call("walk", far=2, limit=None),
    ]
    rows = rows_of(*calls, tools=json.dumps(TOOLS))
    # Required: the null is the call's own. Optional: whether it was there cannot be known; it most often was not.
    assert [arguments(rows, row) for row in range(4)] == [
        {"kind": "cafe", "limit": None},
        {"kind": "inn", "limit": 3},
        {"far": 2},
        {"far": 2},
    ]
    # Null in every row, hence somebody's: that of the functions that have such an argument.
    rows = rows_of(call("walk", far=2, limit=None), call("wait", far=1), tools=json.dumps(TOOLS))
    assert [arguments(rows, row) for row in (0, 1)] == [{"far": 2, "limit": None}, {"far": 1}]


def test_rows_that_no_table_padded_keep_their_own_nulls():
    calls = [{"kind": "cafe", "limit": None}, {"limit": 3}, {}, {"far": {"x": None, "y": {}}}]
    rows = rows_of(*(call("find", **each) for each in calls))
    assert [arguments(rows, row, padded=False) for row in range(4)] == calls


def test_json_text_has_no_padding():
    made = call("find", kind=None, limit=None)
    rows = [{"messages": json.dumps([ASK, {"role": "assistant", "content": "", "tool_calls": [made]}])}]
    assert arguments(rows) == {"kind": None, "limit": None}
    tools = [{"name": "f", "parameters": {"default": None}}]
    assert sample(ASK, ANSWER, tools=json.dumps(tools)).tools == tools


KEYS = st.sampled_from("abcd")
OBJECTS = st.recursive(
    st.integers(0, 9) | st.text("xyz", max_size=3),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(KEYS, OBJECTS, min_size=1), min_size=1, max_size=4))
def test_padding_goes_and_nothing_else(rows):
    try:
        column = pa.array(rows)
    except (pa.ArrowException, TypeError):
        return  # a key of two types
    shape = shape_of(column.type)
    for row, padded in zip(rows, column.to_pylist(), strict=True):
        assert unpadded(padded, shape) == row


@given(st.lists(st.dictionaries(KEYS, st.none(), min_size=1, max_size=4), min_size=1, max_size=3))
def test_keys_without_a_value_anywhere_stay(rows):
    import pyarrow as pa

    column = pa.array(rows)
    shape = shape_of(column.type)
    assert set(shape.values()) == {NULL}
    for row, padded in zip(rows, column.to_pylist(), strict=True):
        assert unpadded(padded, shape).items() >= row.items()


MESSAGES = st.lists(
    st.dictionaries(
        st.sampled_from(
            ["role", "content", "from", "value", "tool_calls", "function_call", "weight", "thinking"]
        ),
        st.none()
        | st.sampled_from(["user", "assistant", "tool_call", "x", "{", '{"name": "f"}', "[]"])
        | st.lists(
            st.sampled_from(["a", None, 3])
            | st.dictionaries(st.sampled_from(["text", "function"]), st.text())
        )
        | st.dictionaries(st.sampled_from(["name", "arguments"]), st.text() | st.none()),
    ),
    max_size=4,
)


@given(MESSAGES)
def test_any_message_is_read_or_refused_with_its_place(messages):
    try:
        found = turns(*messages)
    except DataPrunerError as error:
        found, why = [], str(error)
    else:
        why = " message "
    assert " message " in why
    assert all(turn.role in ("system", "user", "assistant", "tool") for turn in found)
    assert all(isinstance(turn.text, str) for turn in found)
    assert json.loads(json.dumps([turn.handed() for turn in found])) == [turn.handed() for turn in found]


def test_conversations_have_the_whole_messages():
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "é"}]},
        ASK,
        {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [call(city=None)]},
        {"role": "tool", "content": "3 C", "name": "weather"},
    ]
    made = load_samples([{"messages": json.dumps(messages), "tools": [{"name": "weather"}]}]).conversation()
    messages[0]["content"] = "é"  # texts in parts are a text
    assert made[0]["messages"] == messages
    assert json.loads(made[0]["tools"]) == [{"name": "weather"}]
    plain = load_samples([{"messages": [ASK, ANSWER]}]).conversation()
    assert set(plain.features["messages"].feature) == {"role", "content"}


def test_answers_in_a_prompt_are_not_trained_on():
    prompt = [ASK, {"role": "assistant", "content": "Where?"}, {"role": "user", "content": "Oslo."}]
    for row in (
        {"prompt": prompt, "completion": [ANSWER]},
        {"prompt": prompt, "completion": "3 C"},
        {"prompt": prompt, "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "4 C"}]},
        {"prompt": prompt, "completion": [ANSWER], "label": True},
    ):
        (made,) = load_samples([row])
        assert [turn.trained for turn in made.messages] == [True, False, True, True]
        assert made.part("response") == "3 C"
    # What trains on pairs of a history does so on all of them.
    (made,) = load_samples(
        [{"instruction": "And in Oslo?", "output": "3 C", "history": [["Bergen?", "4 C"]]}]
    )
    assert made.part("response") == "4 C\n3 C"


def test_what_a_row_tells_its_template():
    rows = [
        {"messages": [ASK, ANSWER], "chat_template_kwargs": {"enable_thinking": False, "tone": None}},
        {"messages": [ASK, ANSWER], "chat_template_kwargs": {"enable_thinking": None, "tone": "dry"}},
        {"messages": [ASK, ANSWER], "chat_template_kwargs": None},
    ]
    samples = load_samples(pa.Table.from_pylist(rows))
    assert [made.options for made in samples] == [{"enable_thinking": False}, {"tone": "dry"}, {}]
    assert len({made.key() for made in samples}) == len({made.fed() for made in samples}) == 3
    assert samples.conversation()["chat_template_kwargs"] == [{"enable_thinking": False}, {"tone": "dry"}, {}]
    text = load_samples([{"messages": [ASK, ANSWER], "chat_template_kwargs": '{"tone": "dry"}'}])
    assert text[0].options == {"tone": "dry"}
    with pytest.raises(
        DataPrunerError, match="Row 0 holds a list where an object is needed in column 'chat_template_k"
    ):
        load_samples([{"messages": [ASK, ANSWER], "chat_template_kwargs": "[1]"}])[0]
