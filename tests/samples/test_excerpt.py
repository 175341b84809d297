"""What stands for a row where it is shown in short."""

from __future__ import annotations

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import datapruner as dp
from datapruner.comparison.tables import SNIPPET
from datapruner.outputs.report.rows import MOST_TURNS, excerpts
from datapruner.samples import load_samples
from datapruner.samples.sample import Message, Sample, leading

RULES = "You are a careful assistant. Follow every rule of the house. " * 5


def chat(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


TALK = [
    ("system", RULES),
    ("user", "What is\n2 + 2?"),
    ("assistant", "4"),
    ("user", "And 3 + 3?"),
    ("assistant", "six"),
]


@pytest.mark.parametrize(
    ("roles", "places"),
    [
        ("", []),
        ("s", [0]),
        ("su", [1]),
        ("sua", [1, 2]),
        ("suaua", [3, 4]),
        ("suatta", [1, 5]),
        ("sta", [1, 2]),
        ("sa", [1]),
        ("a", [0]),
        ("suau", [1, 2]),  # what comes after the answer is not trained on
    ],
)
def test_the_last_question_and_its_answer(roles, places):
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    assert leading([names[role] for role in roles]) == places


def test_an_excerpt_is_one_line_without_the_system_prompt():
    sample = Sample(tuple(Message(*turn) for turn in TALK))
    assert sample.excerpt(100) == "And 3 + 3? → six"
    first = Sample(sample.messages[:3])
    assert first.excerpt(100) == "What is 2 + 2? → 4"
    assert (
        Sample((Message("user", "q" * 500), Message("assistant", "yes"))).excerpt(40) == "q" * 33 + "… → yes"
    )
    assert (
        Sample((Message("user", "why?"), Message("assistant", "a" * 500))).excerpt(40)
        == "why? → " + "a" * 32 + "…"
    )
    assert Sample((Message("assistant", "plain text"),), plain=True).excerpt(40) == "plain text"


@given(
    st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.text())),
    st.integers(10, 200),
)
def test_an_excerpt_keeps_its_length_and_harms_nobody(turns, limit):
    said = Sample(tuple(Message(*turn) for turn in turns)).excerpt(limit)
    assert len(said) <= limit
    assert not {unicodedata.category(character) for character in said} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def rows(count=24):
    return [
        chat(("system", RULES), ("user", f"question {n}?"), ("assistant", f"answer {n}" + " more" * (n % 6)))
        for n in range(count)
    ]


def test_damage_and_comparison_show_it(tmp_path, cache):
    data, rng = rows(), np.random.default_rng(0)
    vectors, jsd = rng.normal(size=(24, 4)), rng.uniform(0, 0.5, 24)
    found = dp.damage(data, embeddings=vectors, divergences=jsd, n_clusters=2, progress=False)
    row = found.groups[0].typical[0]
    assert f"row {row}: question {row}? → answer {row}" in found.describe()
    compared = dp.compare(data, scorers=["length", "k_center"], embeddings=vectors, keep=4, progress=False)
    frame = compared.disagreements_frame(3)
    for row, text in zip(frame["row"], frame["text"], strict=True):
        assert text == load_samples(data)[row].excerpt(SNIPPET)
        assert f"row {row}: question {row}? → answer {row}" in compared.describe(3)
    assert "careful" not in found.describe() + compared.describe(3)


def test_a_page_knows_which_turns_stand_for_a_row():
    held = [chat(*TALK), chat(("user", "only asked")), chat(*[("user", "u"), ("assistant", "a")] * 50)]
    shown = excerpts(load_samples(held), np.arange(3))
    assert [one["lead"] for one in shown] == [[3, 4], [0], [MOST_TURNS - 1, MOST_TURNS]]
    assert shown[2]["turns"][10] == ["…", "60 more turns are not shown"]
    assert json.dumps(shown)
    columns = excerpts(load_samples([{"embedding": [0.0, 1.0], "kind": "x", "n": 3}]), np.arange(1))
    assert columns[0]["lead"] == [0, 1]
