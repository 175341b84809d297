"""A turn with more than a role and a content: what is read of it, and what makes two rows differ."""

import itertools
import pickle

from datapruner.samples.sample import Message, Sample
from datapruner.text import normalise

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": "é"}}}


def test_a_turn_says_its_reasoning_its_content_and_its_calls():
    fields = {
        "reasoning_content": "Two and two.",
        "thinking": "Two and two.",
        "name": "ann",
        "tool_calls": [CALL],
    }
    turn = Message("assistant", "Four.", fields)
    assert turn.text == (
        'Two and two.\nFour.\n[{"type":"function","function":{"name":"add","arguments":{"a":2,"b":"é"}}}]'
    )
    assert Message("assistant", "", {"tool_calls": [CALL]}).text.startswith('[{"type"')
    assert Message("user", "a\n", {"name": "ann", "tool_calls": []}).text == "a\n"


def test_what_a_template_is_handed():
    parts = [{"type": "text", "text": "a"}]
    turn = Message("system", "a", {"role": "developer", "content": parts, "name": "ann"})
    assert turn.handed() == {"role": "developer", "content": parts, "name": "ann"}
    assert Message("user", "a").handed() == {"role": "user", "content": "a"}


def test_an_answer_that_is_not_trained_on_is_no_response():
    row = Sample(
        (Message("user", "q"), Message("assistant", "bad", trained=False), Message("assistant", "good"))
    )
    assert row.part("response") == "good"
    assert row.part("both") == "q\nbad\ngood"


def test_fields_and_training_are_part_of_a_row():
    turns = [
        Message("assistant", "a"),
        Message("assistant", "a", trained=False),
        Message("assistant", "a", {"thinking": "t"}),
        Message("assistant", "a", {"reasoning_content": "t"}),
        Message("assistant", "a", {"thinking": "t"}, trained=False),
        Message("assistant", "a", {"thinking": None}),
        Message("assistant", 'a \0fields\0 {"thinking":"t"}'),
        Message("assistant", "a \0untrained\0 "),
        Message("assistant", "", {"tool_calls": [CALL]}),
        Message("assistant", str(CALL)),
    ]
    rows = [(turn,) for turn in turns] + list(itertools.product(turns, repeat=2))
    assert len({normalise(Sample(row).key()) for row in rows}) == len(rows)
    assert len({Sample(row).fed() for row in rows}) == len(rows)


def test_the_order_of_keys_is_fed_and_makes_no_other_row():
    other = {"function": {"arguments": {"b": "é", "a": 2}, "name": "add"}, "type": "function"}
    for one, two in [
        [Sample((Message("assistant", "", {"tool_calls": [call]}),)) for call in (CALL, other)],
        [Sample((Message("user", "a"),), tools=[call]) for call in (CALL, other)],
    ]:
        assert one.key() == two.key()
        assert one.fed() != two.fed()


def test_messages_travel_between_processes():
    row = Sample((Message("assistant", "a", {"tool_calls": [CALL]}, trained=False),))
    assert pickle.loads(pickle.dumps(row)) == row
