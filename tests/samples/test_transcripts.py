"""Sides of a pair that are one text each with the turns written into it are read as turns, as hh-rlhf has them."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.samples.preference import sides
from datapruner.samples.transcripts import transcript

SAID = st.text(st.sampled_from("ab é\n:"), min_size=1).map(str.strip).filter(bool)
TALKS = st.lists(st.tuples(SAID, SAID), min_size=1, max_size=4)


def written(turns):
    return "".join(f"\n\nHuman: {asked}\n\nAssistant: {answer}" for asked, answer in turns)


def said(sample):
    return [(turn.role, turn.content) for turn in sample.messages]


@given(TALKS)
def test_what_was_written_as_turns_is_read_as_turns(turns):
    wanted = [pair for asked, answer in turns for pair in (("user", asked), ("assistant", answer))]
    assert [(turn.role, turn.content) for turn in transcript(written(turns))] == wanted


def test_odd_transcripts():
    merged = transcript("Human: a\n\nHuman: b\n\nAssistant: Human: is no turn here\n\nAssistant:")
    assert [(turn.role, turn.content) for turn in merged] == [
        ("user", "a\n\nb"),
        ("assistant", "Human: is no turn here"),
    ]
    assert [(turn.role, turn.content) for turn in transcript("no turns")] == [("assistant", "no turns")]


def rows(n=3):
    before = [("Name a fruit.", "Which colour?")]
    return [
        {
            "chosen": written([*before, (f"Red {row}.", "A cherry.")]),
            "rejected": written([*before, (f"Red {row}.", "A whale.")]),
        }
        for row in range(n)
    ]


def test_pairs_of_transcripts_are_pairs_of_turns():
    samples = dp.load_samples(rows())
    assert samples.layout.transcripts
    assert "turns of Human: and Assistant:" in dp.inspect_samples(samples).notes[-1]
    first = [("user", "Name a fruit."), ("assistant", "Which colour?"), ("user", "Red 0.")]
    assert said(samples[0]) == [*first, ("assistant", "A cherry.")]
    assert not samples[0].plain
    _, (rejected,) = sides(next(samples.iter_rows()))
    assert said(rejected) == [*first, ("assistant", "A whale.")]
    pair = samples.preference()[0]
    assert [(turn["role"], turn["content"]) for turn in pair["prompt"]] == first
    assert [[turn["content"] for turn in pair[side]] for side in ("chosen", "rejected")] == [
        ["A cherry."],
        ["A whale."],
    ]
    assert len(samples.conversation()[0]["messages"]) == 4


@pytest.mark.parametrize("odd", ["a text", None, "\n\nHuman: nobody answers"])
def test_one_row_that_is_none_leaves_all_of_them_texts(odd, caplog):
    some = rows(120)
    some[110]["rejected"] = odd
    with caplog.at_level(logging.WARNING):
        samples = dp.load_samples(some)
    assert not samples.layout.transcripts
    assert samples[0].plain
    assert "row 110 has no turns of Human: and Assistant: in 'rejected'" in caplog.text
    caplog.clear()
    some[0]["chosen"] = "a text"  # not even the first rows are
    assert dp.load_samples(some)[1].plain
    assert not caplog.records


def test_a_prompt_of_its_own_leaves_answers_as_they_are():
    (row,) = rows(1)
    samples = dp.load_samples([{"prompt": "p", **row}])
    assert said(samples[0]) == [("user", "p"), ("assistant", row["chosen"])]


def test_a_prompt_that_is_a_transcript_is_read_as_turns_too():
    """As in the forms of hh-rlhf that have the prompt apart."""
    before = written([("Name a fruit.", "Which colour?")])
    row = {
        "prompt": f"{before}\n\nHuman: Red.\n\nAssistant:",
        "chosen": " A cherry.",
        "rejected": " A whale.",
    }
    samples = dp.load_samples([row, row])
    asked = [("user", "Name a fruit."), ("assistant", "Which colour?"), ("user", "Red.")]
    assert said(samples[0]) == [*asked, ("assistant", "A cherry.")]
    # As in every prompt of messages, what the assistant said there is no answer of the row.
    assert [turn.trained for turn in samples[0].messages] == [True, False, True, True]
    pair = samples.preference()[0]
    assert [(turn["role"], turn["content"]) for turn in pair["prompt"]] == asked
    assert [pair[side][0]["content"] for side in ("chosen", "rejected")] == ["A cherry.", "A whale."]
    assert said(dp.load_samples([row, {**row, "prompt": "p"}])[0])[0] == ("user", row["prompt"])


def test_what_is_chosen_of_them_stays_as_it_was():
    kept = dp.prune(rows(9), scorer="random", keep=4, progress=False)
    assert [row["chosen"] for row in kept.dataset] == [rows(9)[row]["chosen"] for row in kept.indices]
